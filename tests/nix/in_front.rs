//! A binary cache in front of another: what one serves the next fetches, keeps, and serves again.

use crate::{
    closure,
    http::Server,
    real_nix::nix,
    support::{Mounted, assert_same, can_mount, have_program, lazystore, run, walk},
};

#[test]
fn nix_takes_a_closure_through_two_caches_in_a_row() {
    if !have_program("nix") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let closure::Served { closure, server: first, public_key } = closure::serve(folder.path(), &[]);
    let public_key = public_key.trim();

    let far = format!("nix+{}?trusted-public-keys={public_key}", first.url());
    let over_it = || {
        let mut command = lazystore(&at("none"));
        command.args(["--store", &far]).env("LAZYSTORE_CACHE_DIR", at("cache"));
        command
    };
    let second = Server::start(&mut over_it(), &[]);
    let mut copy = nix("nix", &at("nix"));
    copy.args(["copy", "--from", &second.url(), &closure.root]);
    run(copy.args(["--option", "trusted-public-keys", public_key]));
    for (name, tree) in &closure.trees {
        assert_same(tree, &walk(&at("nix").join("nix/store").join(name)));
    }
    drop(second);
    if can_mount() {
        let mounted = Mounted::new(&mut over_it(), &at("mount"));
        for (name, tree) in &closure.trees {
            assert_same(tree, &walk(&mounted.path.join(name)));
        }
        mounted.unmount();
    }
}
