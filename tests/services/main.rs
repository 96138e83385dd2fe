//! One suite of behaviours for every backend, every layer, and typical stacks.

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/beside.rs"]
mod beside;
#[path = "../support/bigtable.rs"]
mod bigtable_emulator;
#[path = "../support/faults.rs"]
mod faults;
#[allow(dead_code)] // The proxy can do more than is needed here.
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/toll.rs"]
mod toll;

mod audit;
mod bigtable;
mod blobs;
mod buckets;
mod cache;
mod directories;
mod fleet;
mod load;
mod local;
mod path_infos;
mod stacks;
mod table_costs;
mod table_size;
mod transfer;

use stacks::{ALL, Built};

/// Runs a behaviour on every stack, each in a runtime of its own.
fn on_every_stack<F: Future<Output = ()>>(behaviour: impl Fn(Built) -> F) {
    for stack in ALL {
        if !stack.is_possible() {
            continue;
        }
        eprintln!("on {stack:?}");
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let mut emulator = None;
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async { behaviour(stack.build(&folders, &mut emulator)).await });
    }
}
