//! The command line: one file a subcommand. Here alone errors lose their types and become sentences.
//!
//! Exit codes: see `exit`.

mod access;
#[cfg(any(feature = "fuse", feature = "virtiofs"))]
mod access_log;
#[cfg(feature = "fuse")]
mod ask;
mod cache;
mod cat;
mod closure;
mod completions;
mod config;
mod control;
mod copy;
mod daemon;
mod exit;
mod eyes;
mod fetch;
mod import;
mod listed;
mod listen;
mod look;
mod ls;
mod man;
#[cfg_attr(not(feature = "fuse"), path = "no_mount.rs")]
mod mount;
mod nar;
mod options;
#[cfg_attr(not(feature = "otlp"), path = "no_otlp.rs")]
mod otlp;
mod path_info;
mod progress;
mod registration;
mod serve;
mod sign;
mod signals;
mod stack;
mod stat;
mod status;
mod supervised;
mod verify;
#[cfg(any(feature = "fuse", feature = "virtiofs"))]
mod view;
#[cfg_attr(not(feature = "virtiofs"), path = "no_virtiofs.rs")]
mod virtiofs;
#[cfg(feature = "fuse")]
mod watchdog;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::{
    observe::{
        journal::{PRIORITY_ERROR, with_priority},
        log::{self, LogFormat},
    },
    service::Cause,
};

pub use options::{GlobalOptions, ProgressWhen};

/// Mount a Nix store that is somewhere else, and download only what is touched.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(after_help = exit::HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: GlobalOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mount(mount::Mount),
    Virtiofs(virtiofs::Virtiofs),
    Daemon(daemon::Daemon),
    Serve(serve::Serve),
    Import(import::Import),
    Copy(copy::Copy),
    Ls(ls::Ls),
    Cat(cat::Cat),
    Stat(stat::Stat),
    Status(status::Status),
    PathInfo(path_info::PathInfo),
    Closure(registration::Closure),
    Registration(registration::Registration),
    AccessReport(access::AccessReport),
    Nar(nar::Nar),
    Verify(verify::Verify),
    Sign(sign::Sign),
    Fetch(fetch::Fetch),
    Cache(cache::Cache),
    Config(config::Config),
    Completions(completions::Completions),
    Man(man::Man),
    #[cfg(feature = "fuse")]
    #[command(name = watchdog::COMMAND, hide = true)]
    Watchdog(watchdog::Watchdog),
    #[cfg(feature = "fuse")]
    #[command(name = ask::COMMAND, hide = true)]
    Ask(ask::Ask),
}

/// Something that was asked for is not in the store.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not in the store")]
struct Absent(String);

/// The arguments do not go together, or something that they leave out is not set either.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(&'static str);

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let log_format = cli.options.log_format.unwrap_or_else(LogFormat::fitting);
    match run(cli, log_format) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let code = exit::code(&error);
            // Each cause is told once, also where an error's own words name it.
            let mut text = format!("error: {}\n", log::harmless(&Cause::new(error).to_string()));
            if log_format == LogFormat::Journal {
                text = with_priority(PRIORITY_ERROR, &text);
            }
            let _ = io::stderr().write_all(text.as_bytes());
            ExitCode::from(code)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<io::Error>();
    io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(cli: Cli, log_format: LogFormat) -> anyhow::Result<()> {
    let Cli { command, options } = cli;
    // What needs neither a store nor a runtime.
    match &command {
        #[cfg(feature = "fuse")]
        Command::Watchdog(command) => return command.run(),
        #[cfg(feature = "fuse")]
        Command::Ask(command) => return command.run(),
        Command::Completions(command) => return command.run(),
        Command::Man(command) => return command.run(),
        _ => {}
    }
    // What runs for long tells what it does; what answers a question only tells what went wrong.
    let default_level = match command {
        Command::Mount(_) | Command::Virtiofs(_) | Command::Daemon(_) | Command::Serve(_) => "info",
        _ => "warn",
    };
    log::init(options.log_level.as_deref(), default_level, log_format)?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = match command {
        Command::Mount(command) => command.run(&options, &runtime),
        Command::Virtiofs(command) => command.run(&options, &runtime),
        Command::Daemon(command) => runtime.block_on(command.run(&options)),
        Command::Serve(command) => runtime.block_on(command.run(&options)),
        Command::Import(command) => command.run(&options, &runtime),
        Command::Copy(command) => runtime.block_on(command.run(&options)),
        Command::Ls(command) => runtime.block_on(command.run(&options)),
        Command::Cat(command) => runtime.block_on(command.run(&options)),
        Command::Stat(command) => runtime.block_on(command.run(&options)),
        Command::Status(command) => runtime.block_on(command.run(&options)),
        Command::Nar(command) => runtime.block_on(command.run(&options)),
        Command::Verify(command) => runtime.block_on(command.run(&options)),
        Command::Sign(command) => runtime.block_on(command.run(&options)),
        Command::Fetch(command) => runtime.block_on(command.run(&options)),
        Command::Cache(command) => runtime.block_on(command.run(&options)),
        Command::Config(command) => runtime.block_on(command.run(&options)),
        Command::PathInfo(command) => runtime.block_on(command.run(&options)),
        Command::Closure(command) => runtime.block_on(command.run(&options)),
        Command::AccessReport(command) => command.run(),
        Command::Registration(command) => runtime.block_on(command.run(&options)),
        Command::Completions(_) | Command::Man(_) => {
            unreachable!("it ran above, without a runtime")
        }
        #[cfg(feature = "fuse")]
        Command::Watchdog(_) | Command::Ask(_) => unreachable!("it ran above, without a runtime"),
    };
    otlp::end();
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

/// A store keeps many files open. The soft limit is low only for the sake of `select(2)`, which nothing here uses.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With less, there are just fewer files kept open.
    let _ = setrlimit(Resource::Nofile, limit);
}
