//! `lazystore copy` of what the real Nix made.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use futures::TryStreamExt as _;
use lazystore::{
    nix::PathInfo,
    service::{
        local::LocalStore,
        pathinfo::{PathInfoService as _, backend::LocalPathInfos},
    },
};
use serde_json::Value;

use crate::{
    http::Server,
    real_nix::nix,
    support::{PROGRAM, Running, have, have_program, lazystore, noise, run, write},
};

/// Nix that builds, with the programs of this machine.
pub fn building_nix(program: &str, root: &Path, more: &Path) -> Command {
    let mut command = nix(program, root);
    command.env(
        "NIX_CONFIG",
        format!(
            "build-users-group =\nsandbox = false\nsubstituters =\n\
             experimental-features = nix-command ca-derivations\n\
             sandbox-paths = /bin /usr /lib /lib64 {PROGRAM} {}",
            more.display()
        ),
    );
    command
}

pub fn can_build() -> bool {
    have_program("nix-store")
        && have("the right to build (root)", rustix::process::geteuid().is_root())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8").trim().to_owned()
}

/// A store of the real Nix with some chains of references: texts that name each other, trees, and a path that names
/// itself.
struct NixStore {
    dir: tempfile::TempDir,
    /// Of everything, the last.
    top: String,
}

impl NixStore {
    fn new(chains: usize, length: usize) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let trees = dir.path().join("trees");
        fs::create_dir(&trees).expect("new");
        for chain in 0..chains {
            let tree = trees.join(format!("tree-{chain}"));
            fs::create_dir_all(tree.join("inner")).expect("new");
            for number in 0..20 {
                let contents = noise((chain * 100 + number) as u64, number * 3000);
                write(tree.join("inner").join(number.to_string()), contents, 0o644);
            }
            write(tree.join("large"), noise(chain as u64, 1_500_000), 0o755);
        }
        let expression = format!(
            "let chain = c: n: builtins.toFile \"c${{toString c}}-${{toString n}}\" (if n == 0
               then \"${{builtins.path {{ path = {trees}/tree-${{toString c}}; name = \"tree\"; }}}}\"
               else \"see ${{chain c (n - 1)}} and ${{chain c (n / 2)}}\");
             in builtins.toFile \"top\" (builtins.concatStringsSep \" \"
               (builtins.genList (c: chain c {last}) {chains}))",
            trees = trees.display(),
            last = length - 1,
        );
        let root = dir.path().join("nix");
        let mut command = nix("nix-instantiate", &root);
        command.args(["--eval", "--read-write-mode", "--expr", &expression]);
        let top = text(&run(&mut command).stdout).trim_matches('"').to_owned();
        NixStore { dir, top }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("nix")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `nix path-info --json` of everything.
    fn list(&self) -> Vec<u8> {
        run(nix("nix", &self.root()).args(["path-info", "--json", "--all"])).stdout
    }

    fn copy(&self, store: &Path, list: &Path) -> Command {
        let mut command = lazystore(store);
        command.arg("copy").arg("--root").arg(self.root()).arg(list);
        command
    }
}

/// The store paths in a list of Nix 2.8.
fn paths(list: &[u8]) -> Vec<String> {
    let list: Value = serde_json::from_slice(list).expect("JSON");
    let path = |entry: &Value| entry["path"].as_str().expect("a path").to_owned();
    list.as_array().expect("a list").iter().map(path).collect()
}

/// What the store has, without asking the program.
fn visible(store: &Path) -> Vec<PathInfo> {
    let store = LocalStore::open(store).expect("it was made");
    let all = LocalPathInfos::new(store).list().try_collect();
    tokio::runtime::Runtime::new().expect("a runtime").block_on(all).expect("it lists")
}

/// Checks that the store knows the same of each path as Nix does.
fn check_infos(store: &Path, list: &[u8]) {
    let list: Value = serde_json::from_slice(list).expect("JSON");
    for expected in list.as_array().expect("a list") {
        let path = expected["path"].as_str().expect("a path");
        let output = run(lazystore(store).args(["path-info", "--json", path]));
        let got: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        for key in ["narHash", "narSize", "references", "deriver", "ca"] {
            assert_eq!(got[path][key], expected[key], "{key} of {path}");
        }
        let hash = run(lazystore(store).args(["nar", "hash", path])).stdout;
        let expected = expected["narHash"].as_str().expect("a hash");
        assert!(text(&hash).contains(expected), "{path}: {} instead of {expected}", text(&hash));
    }
}

#[test]
fn a_closure_of_real_nix_is_copied_from_every_form_of_list() {
    if !have_program("nix-store") {
        return;
    }
    let source = NixStore::new(3, 10);
    let list = source.list();
    assert_eq!(paths(&list).len(), 34, "three trees, thirty texts and the top");
    let file = source.path("list.json");
    fs::write(&file, &list).expect("new");
    let store = source.path("from-list");
    let output = run(&mut source.copy(&store, &file));
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "silence in a pipe");
    check_infos(&store, &list);
    // A second time there is nothing to do: the files are not even looked at.
    run(lazystore(&store).args(["copy", "--root", "/nowhere"]).arg(&file));

    let registration = run(nix("nix-store", &source.root()).arg("--dump-db")).stdout;
    let store = source.path("from-registration");
    let mut child =
        source.copy(&store, Path::new("-")).stdin(Stdio::piped()).spawn().expect("runs");
    child.stdin.take().expect("a pipe").write_all(&registration).expect("it reads");
    assert!(child.wait().expect("ours").success());
    let output = run(lazystore(&store).args(["path-info", "--json", &source.top]));
    let got: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(got[&source.top]["references"].as_array().expect("a list").len(), 3);

    // What lazystore prints is a list, too.
    let mut command = lazystore(&store);
    let ours = run(command.args(["path-info", "--json"]).args(paths(&list))).stdout;
    fs::write(&file, ours).expect("ours");
    let (again, onwards) = (source.path("from-ours"), source.path("from-store"));
    run(&mut source.copy(&again, &file));
    // And from there on to another store.
    let from = format!("local://{}", again.display());
    run(lazystore(&onwards).args(["copy", "--from", &from, &source.top]));
    let mut command = lazystore(&onwards);
    let list = run(command.args(["path-info", "--json"]).args(paths(&list))).stdout;
    assert_eq!(list, fs::read(&file).expect("it is there"));
}

#[test]
fn what_has_changed_since_the_list_was_made_is_refused() {
    if !have_program("nix-store") {
        return;
    }
    let source = NixStore::new(1, 3);
    let list = source.list();
    let file = source.path("list.json");
    fs::write(&file, &list).expect("new");
    let tree = paths(&list).into_iter().find(|path| path.ends_with("-tree")).expect("a tree");
    let inside = source.root().join(tree.trim_start_matches('/')).join("inner/7");
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o644)).expect("ours");
    let mut contents = fs::read(&inside).expect("it is there");
    contents[100] ^= 1;
    write(&inside, contents, 0o444);

    let store = source.path("store");
    let output = source.copy(&store, &file).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    let base_name = tree.trim_start_matches("/nix/store/");
    assert!(error.contains(base_name) && error.contains("but the list says"), "{error}");
    // Neither it nor what refers to it is there: here that is everything.
    for path in paths(&list) {
        let output = lazystore(&store).args(["path-info", &path]).output().expect("it runs");
        assert_eq!(output.status.code(), Some(3), "{path}");
    }
    fs::remove_dir_all(source.root().join(tree.trim_start_matches('/'))).expect("ours");
    let output = source.copy(&store, &file).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("No such file"), "{}", text(&output.stderr));
}

#[test]
fn a_reference_outside_of_the_list_must_be_in_the_store() {
    if !have_program("nix-store") {
        return;
    }
    let source = NixStore::new(1, 2);
    let list: Vec<Value> = serde_json::from_slice(&source.list()).expect("JSON");
    let (trees, others): (Vec<_>, Vec<_>) = list
        .into_iter()
        .partition(|entry| entry["path"].as_str().is_some_and(|path| path.ends_with("-tree")));
    let file = |name: &str, list: Vec<Value>| {
        fs::write(source.path(name), Value::Array(list).to_string()).expect("new");
        source.path(name)
    };
    let (trees, others) = (file("trees.json", trees), file("others.json", others));
    let store = source.path("store");
    let output = source.copy(&store, &others).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("-tree, which is neither among what is to be copied nor"), "{error}");
    run(&mut source.copy(&store, &trees));
    run(&mut source.copy(&store, &others));
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    let path = "/nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo";
    let from = format!("local://{}", dir.path().join("other").display());
    for (args, code, words) in [
        (vec![], 2, "a list of store paths is needed"),
        (vec![path, path], 2, "need --from"),
        (vec!["--from", &from], 2, "--from needs store paths"),
        (vec!["--from", &from, "--root", "/", path], 2, "cannot be used with"),
        (vec![path], 1, "is no list; to copy a store path, give --from"),
        (vec!["--from", &from, path], 3, "is not in the store"),
        (vec!["--from", "x:", path], 78, "x:"),
        (vec!["/dev/null/x"], 1, "cannot read /dev/null/x"),
        (vec!["/etc/passwd"], 1, "neither JSON nor a registration"),
    ] {
        let mut command = lazystore(&store);
        command.env_remove("NIX_ATTRS_JSON_FILE").arg("copy").args(&args);
        let output = command.output().expect("it runs");
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(words), "{args:?}: {error}");
    }
}

#[test]
fn a_build_copies_the_graph_of_its_structured_attributes() {
    if !can_build() {
        return;
    }
    let source = NixStore::new(2, 4);
    let store = source.path("store");
    fs::create_dir(&store).expect("new");
    let script = "set -e; source .attrs.sh; export HOME=/build PATH=/bin:/usr/bin; \
                  $program copy --store-dir $store --cache-dir none; echo done > ${outputs[out]}";
    let expression = format!(
        "derivation {{ name = \"copied\"; system = builtins.currentSystem; builder = \"/bin/bash\";
           __structuredAttrs = true; program = \"{PROGRAM}\"; store = \"{store}\";
           exportReferencesGraph.closure = [ (builtins.storePath \"{top}\") ];
           args = [ \"-c\" ''{script}'' ]; }}",
        store = store.display(),
        top = source.top,
        script = script.replace("${", "''${"),
    );
    let mut command = building_nix("nix-build", &source.root(), &store);
    run(command.args(["--no-out-link", "--expr", &expression]));
    let list =
        run(nix("nix", &source.root()).args(["path-info", "--json", "-r", &source.top])).stdout;
    assert_eq!(paths(&list).len(), 11);
    check_infos(&store, &list);
}

/// From a daemon, in the dialect whose sizes of directories are others, and from a binary cache that signs.
#[test]
fn a_closure_is_copied_from_servers_of_both_kinds() {
    if !have_program("nix-store") {
        return;
    }
    let source = NixStore::new(3, 5);
    let list = source.list();
    let file = source.path("list.json");
    fs::write(&file, &list).expect("new");
    let far = source.path("far");
    run(&mut source.copy(&far, &file));

    let mut command = lazystore(&far);
    let mut daemon = Running::start(command.args(["daemon", "--listen", "127.0.0.1:0"]));
    let line = daemon.wait_for_line("listening address=");
    let address = line.rsplit('=').next().expect("the address is last");
    for dialect in ["tvix", "snix"] {
        let (near, from) =
            (source.path(dialect), format!("grpc+http://{address}?dialect={dialect}"));
        run(lazystore(&near).args(["copy", "--from", &from, &source.top]));
        check_infos(&near, &list);
        run(lazystore(&near).args(["verify", "--all"]));
        // And back, into the server.
        run(lazystore(&near)
            .args(["copy", "--again", "--store", &from, "--from"])
            .args([&format!("local://{}", near.display()), &source.top]));
    }
    run(lazystore(&far).args(["verify", "--all"]));

    let (secret, public) = (source.path("secret"), source.path("public"));
    let mut command = nix("nix-store", &source.root());
    let command = command.args(["--generate-binary-cache-key", "test-1"]);
    run(command.arg(&secret).arg(&public));
    let public = fs::read_to_string(public).expect("it was made");
    let key = secret.display().to_string();
    let server = Server::start(&mut lazystore(&far), &["--sign-key", &key]);
    let from = |key: &str| {
        let key = key.trim().replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        format!("nix+{}?trusted-public-keys={key}", server.url())
    };
    let near = source.path("from-cache");
    let copy = |from: &str| {
        let mut command = lazystore(&near);
        command.arg("--cache-dir").arg(source.path("cache"));
        command.args(["copy", "--from", from, &source.top]);
        command
    };
    run(&mut copy(&from(&public)));
    check_infos(&near, &list);
    // The signatures came along.
    run(lazystore(&near).args(["verify", "--all", "--trusted-public-keys", public.trim()]));
    let output = run(lazystore(&near).args(["path-info", &source.top]));
    assert!(text(&output.stdout).contains("signature:  test-1:"), "{}", text(&output.stdout));
}

/// Killed at random moments again and again, it gets to the end, and never shows a path without its references.
#[test]
fn a_copy_that_is_killed_goes_on_where_it_was() {
    if !have_program("nix-store") {
        return;
    }
    let source = NixStore::new(12, 12);
    let list = source.list();
    let file = source.path("list.json");
    fs::write(&file, &list).expect("new");
    let store = source.path("store");
    let mut seen = Vec::new();
    for round in 0_u64.. {
        let mut child = source.copy(&store, &file).stderr(Stdio::null()).spawn().expect("it runs");
        // Longer each time, so that it ends.
        thread::sleep(Duration::from_millis(10 + round * 15));
        child.kill().expect("ours");
        let done = child.wait().expect("ours").success();
        let visible = visible(&store);
        for path_info in &visible {
            let references = &path_info.nar_info().expect("it was copied").references;
            let missing =
                references.iter().find(|path| visible.iter().all(|v| v.store_path != **path));
            assert_eq!(missing, None, "of {}", path_info.store_path);
        }
        seen.push(visible.len());
        if done {
            break;
        }
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.last(), Some(&paths(&list).len()), "{seen:?}");
    assert!(seen[0] < paths(&list).len(), "it was never interrupted: {seen:?}");
    run(lazystore(&store).args(["verify", "--all"]));
}
