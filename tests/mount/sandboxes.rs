//! Sandboxes over a mount: bubblewrap, namespaces, overlays, other users.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    Mounted, assert_same, can_mount, have_program, import, lazystore, noise, run, sample_tree,
    walk, write,
};

/// A mount of one store path, and the tree that it was made of.
struct Fixture {
    dir: tempfile::TempDir,
    tree: PathBuf,
    name: String,
    mounted: Mounted,
}

impl Fixture {
    fn new(args: &[&str], make: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tree = dir.path().join("tree");
        make(&tree);
        let store = dir.path().join("store");
        let name = import(&store, &tree);
        let mounted = Mounted::with(&mut lazystore(&store), &dir.path().join("mnt"), args);
        Fixture { dir, tree, name, mounted }
    }

    fn image(&self) -> PathBuf {
        self.mounted.path.join(&self.name)
    }
}

/// A program with all its shared libraries, as a store path: `lib` and `bin/program`.
fn program_tree(program: &str, tree: &Path) {
    fs::create_dir_all(tree.join("lib")).expect("new");
    fs::create_dir_all(tree.join("bin")).expect("new");
    let program = run(Command::new("sh").args(["-c", &format!("command -v {program}")])).stdout;
    let program = String::from_utf8(program).expect("UTF-8");
    let program = program.trim_end();
    fs::copy(program, tree.join("bin/program")).expect("it copies");
    let libraries = run(Command::new("ldd").arg(program)).stdout;
    for word in String::from_utf8_lossy(&libraries).split_ascii_whitespace() {
        if word.starts_with('/') {
            let to = tree.join("lib").join(Path::new(word).file_name().expect("a file"));
            fs::copy(word, to).expect("it copies");
        }
    }
}

/// Runs the program of [`program_tree`] by its own loader, with no library from anywhere else.
fn run_program(image: &Path, args: &[&str]) -> String {
    let loader = fs::read_dir(image.join("lib")).expect("it lists").flatten().map(|e| e.path());
    let mut loaders = loader.filter(|path| path.to_string_lossy().contains("/ld-linux"));
    let mut command = Command::new(loaders.next().expect("a loader"));
    command.arg("--library-path").arg(image.join("lib")).arg(image.join("bin/program")).args(args);
    String::from_utf8_lossy(&run(&mut command).stdout).into_owned()
}

#[test]
fn bubblewrap_binds_a_mount_read_only() {
    if !can_mount() || !have_program("bwrap") {
        return;
    }
    let fixture = Fixture::new(&[], sample_tree);
    let mut command = Command::new("bwrap");
    command.args(["--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib"]);
    command.args(["--symlink", "usr/lib64", "/lib64", "--symlink", "usr/bin", "/bin"]);
    command.arg("--ro-bind").arg(&fixture.mounted.path).arg("/nix/store");
    command.args(["--unshare-all", "--dev", "/dev", "--", "sh", "-c"]);
    let image = format!("/nix/store/{}", fixture.name);
    command.arg(format!(
        "cd {image} && ls -a wide | wc -l && ./executable && ! touch new && cat file-1048576"
    ));
    let output = run(&mut command).stdout;
    let expected = [&b"3002\ntwin\n"[..], &noise(1 << 20, 1 << 20)].concat();
    assert!(output == expected, "{} bytes instead of {}", output.len(), expected.len());
}

#[test]
fn a_user_namespace_of_ones_own_sees_what_the_host_sees() {
    if !can_mount() {
        return;
    }
    let fixture = Fixture::new(&[], sample_tree);
    let list =
        format!("cd {} && find . -printf '%p %y %m %s %n\\n' | sort", fixture.image().display());
    let outside = run(Command::new("sh").args(["-c", &list])).stdout;
    // A mount namespace of its own, too: bound elsewhere, it is the same.
    let elsewhere = fixture.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("new");
    let bind = format!(
        "mount --bind {} {elsewhere} && cd {elsewhere}/{} && find . -printf '%p %y %m %s %n\\n' | sort",
        fixture.mounted.path.display(),
        fixture.name,
        elsewhere = elsewhere.display(),
    );
    let inside = run(Command::new("unshare").args(["-Urm", "sh", "-c", &bind])).stdout;
    assert!(!inside.is_empty() && inside == outside);
}

/// An overlay with `lower` as its lower layer, taken down at the end.
struct Overlay(PathBuf);

impl Overlay {
    fn new(dir: &Path, lower: &Path) -> Self {
        let place = |name: &str| {
            fs::create_dir_all(dir.join(name)).expect("new");
            dir.join(name).display().to_string()
        };
        // The upper layer must lie on a file system that is no overlay itself.
        let disk = place("disk");
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", &disk]));
        let (upper, work, merged) = (place("disk/upper"), place("disk/work"), place("merged"));
        let options =
            format!("xino=on,lowerdir={},upperdir={upper},workdir={work}", lower.display());
        let overlay = Overlay(dir.to_owned());
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options, &merged]));
        overlay
    }

    fn path(&self) -> PathBuf {
        self.0.join("merged")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        for place in ["merged", "disk"] {
            let detach = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(self.0.join(place), detach);
        }
    }
}

#[test]
fn an_overlay_over_a_mount_is_stable_and_copies_up() {
    if !can_mount() {
        return;
    }
    for mode in ["--io-mode=no-open", "--io-mode=auto"] {
        let fixture = Fixture::new(&["--list-root", mode], sample_tree);
        let overlay = Overlay::new(&fixture.dir.path().join("overlay"), &fixture.mounted.path);
        let merged = overlay.path().join(&fixture.name);
        assert_same(&walk(&fixture.tree), &walk(&merged));
        let kinds = || {
            let mut kinds: Vec<_> = fs::read_dir(&merged)
                .expect("it lists")
                .map(|entry| {
                    let entry = entry.expect("it lists");
                    let metadata = fs::symlink_metadata(entry.path()).expect("it is there");
                    assert_eq!(entry.file_type().expect("told"), metadata.file_type());
                    assert_eq!(metadata.nlink(), 1, "{:?}", entry.path());
                    (entry.file_name(), metadata.ino())
                })
                .collect();
            kinds.sort();
            kinds
        };
        let before = kinds();
        crate::support::drop_kernel_caches();
        assert_eq!(kinds(), before, "inode numbers are stable");

        // What is open below goes on as it was; the copy is the writer's.
        let file = merged.join("file-1048576");
        let original = fs::read(&file).expect("it reads");
        run(Command::new("sh")
            .arg("-c")
            .arg(format!("chmod u+w {0} && printf changed >> {0}", file.display())));
        let changed = fs::read(&file).expect("it reads");
        assert!(changed == [&original[..], b"changed"].concat());
        assert!(fs::read(fixture.image().join("file-1048576")).expect("it reads") == original);
        fs::write(merged.join("new"), "new").expect("the upper layer takes it");
        fs::remove_file(merged.join("plain")).expect("a whiteout");
        assert!(!merged.join("plain").exists() && fixture.image().join("plain").exists());
        drop(overlay);
    }
}

#[test]
fn what_is_passed_through_stays_right_below_an_overlay() {
    if !can_mount() {
        return;
    }
    // Only where the store does not lie on an overlay can files be passed through.
    let fixture = Fixture::new(&["--list-root", "--io-mode=auto"], |tree| {
        fs::create_dir(tree).expect("new");
        for number in 0..4 {
            write(tree.join(number.to_string()), noise(number, 5_000_000), 0o644);
        }
    });
    let overlay = Overlay::new(&fixture.dir.path().join("overlay"), &fixture.mounted.path);
    for round in 0..2 {
        for number in 0..4 {
            let file = overlay.path().join(&fixture.name).join(number.to_string());
            assert!(fs::read(&file).expect("it reads") == noise(number, 5_000_000), "{round}");
            let direct = fs::read(fixture.image().join(number.to_string())).expect("it reads");
            assert!(direct == noise(number, 5_000_000));
        }
        crate::support::drop_kernel_caches();
    }
    let file = overlay.path().join(&fixture.name).join("0");
    run(Command::new("chmod").arg("u+w").arg(&file));
    assert!(fs::read(&file).expect("a copy") == noise(0, 5_000_000));
}

#[test]
fn other_users_get_in_only_if_they_are_let_in() {
    if !can_mount() || !have_program("setpriv") {
        return;
    }
    for (args, gets_in) in [(&["--allow-other"][..], true), (&[][..], false)] {
        let fixture = Fixture::new(args, sample_tree);
        run(Command::new("chmod").arg("755").arg(fixture.dir.path()));
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"]);
        let output = command.arg(fixture.image().join("plain")).output().expect("it runs");
        assert_eq!(output.status.success(), gets_in, "{args:?}: {output:?}");
    }
}

#[test]
fn a_program_with_many_libraries_runs_straight_from_a_mount() {
    if !can_mount() || !have_program("nix-store") || !have_program("ldd") {
        return;
    }
    for mode in ["--io-mode=no-open", "--io-mode=auto"] {
        let fixture = Fixture::new(&[mode], |tree| program_tree("nix-store", tree));
        let libraries = fs::read_dir(fixture.image().join("lib")).expect("it lists").count();
        assert!(libraries >= 20, "{libraries}");
        let said = run_program(&fixture.image(), &["--version"]);
        assert!(said.contains("(Nix)"), "{said}");
    }
}
