//! Who opens and reads files: the same files in every mode, and what sets the modes apart.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lazystore::castore::Digest;

use crate::contents::{read_everywhere, walk_all};
use crate::support::{
    Mounted, Running, can_mount, have, have_program, import, lazystore, noise, sample_tree,
    wait_until, write,
};

/// Whether the kernel can pass files through.
pub fn can_pass_through() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is there");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    can_mount() && have("Linux 6.9", version >= (6, 9))
}

fn mount(store: &Path, mode: &str, path: &Path) -> Mounted {
    Mounted::with(&mut lazystore(store), path, &["--io-mode", mode])
}

/// A store with one file that is long enough to be passed through, and where that lies in the store.
struct Long {
    _temporary: tempfile::TempDir,
    dir: PathBuf,
    store: PathBuf,
    name: String,
    contents: Vec<u8>,
}

impl Long {
    fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let dir = temporary.path().to_owned();
        let contents = noise(1, 3_000_001);
        write(dir.join("file"), &contents, 0o644);
        let store = dir.join("store");
        let name = import(&store, &dir.join("file"));
        Long { _temporary: temporary, dir, store, name, contents }
    }

    fn mount(&self, mode: &str) -> Mounted {
        mount(&self.store, mode, &self.dir.join("mnt"))
    }

    /// Where the blob lies in a store or a cache, which may not have brought it to disk yet.
    fn blob(&self, store: &Path) -> PathBuf {
        let hex = Digest::of(&self.contents).to_hex();
        let sessions = fs::read_dir(store.join("staging")).expect("it is there").flatten();
        let staged = sessions.map(|session| session.path().join(&hex)).find(|path| path.exists());
        staged.unwrap_or_else(|| store.join("blobs").join(&hex[..2]).join(&hex))
    }

    /// Changes the file in the store, as nobody may, behind the back of everybody. Whoever reads that file itself sees
    /// it; whoever has a copy does not.
    fn deface(&self, store: &Path) {
        self.write(store, b"defaced");
    }

    /// Makes good what [`Long::deface`] did.
    fn restore(&self, store: &Path) {
        self.write(store, &self.contents[..7]);
    }

    fn write(&self, store: &Path, begin: &[u8]) {
        let blob = self.blob(store);
        fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).expect("ours");
        let file = OpenOptions::new().write(true).open(&blob).expect("ours");
        file.write_all_at(begin, 0).expect("it writes");
    }
}

fn begin(path: &Path) -> Vec<u8> {
    let mut begin = vec![0; 7];
    File::open(path).expect("it opens").read_exact(&mut begin).expect("it reads");
    begin
}

#[test]
fn every_mode_shows_the_same_tree() {
    if !can_pass_through() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    sample_tree(&tree);
    let name = import(&store, &tree);
    for mode in ["no-open", "passthrough", "auto"] {
        let mounted = mount(&store, mode, &dir.path().join("mnt"));
        let image = mounted.path.join(&name);
        walk_all(&tree, &image);
        let output = Command::new(image.join("executable")).output().expect("it runs");
        assert_eq!(output.stdout, b"twin\n", "{mode}");
        mounted.unmount();
    }
}

#[test]
fn only_passthrough_reads_the_file_of_the_store_itself() {
    if !can_pass_through() {
        return;
    }
    let long = Long::new();
    // All that this store holds is long.
    for (mode, is_passed_through) in [("no-open", false), ("passthrough", true), ("auto", true)] {
        fs::write(long.blob(&long.store).with_extension("copy"), &long.contents).expect("ours");
        fs::rename(long.blob(&long.store).with_extension("copy"), long.blob(&long.store))
            .expect("ours");
        let mounted = long.mount(mode);
        let path = mounted.path.join(&long.name);
        assert!(fs::read(&path).expect("it reads") == long.contents, "{mode}");
        long.deface(&long.store);
        assert_eq!(begin(&path) == b"defaced", is_passed_through, "{mode}");
        mounted.unmount();
    }
}

#[test]
fn a_store_of_small_files_is_not_passed_through_unless_asked_for() {
    if !can_pass_through() {
        return;
    }
    let long = Long::new();
    let small = long.dir.join("small");
    fs::create_dir(&small).expect("new");
    (0..10).for_each(|number| write(small.join(number.to_string()), noise(number, 10), 0o644));
    import(&long.store, &small);
    let mounted = long.mount("auto");
    let path = mounted.path.join(&long.name);
    assert!(fs::read(&path).expect("it reads") == long.contents);
    long.deface(&long.store);
    assert_eq!(begin(&path), long.contents[..7]);
    mounted.unmount();
}

/// The bytes of the file that are in the page cache.
fn in_page_cache(file: &Path) -> u64 {
    let output = Command::new("fincore").args(["-b", "-n", "-o", "RES"]).arg(file).output();
    let output = output.expect("it is part of util-linux");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// The pages of the mount are the copy that stays; those of the store's own files go.
#[test]
fn what_the_mount_keeps_is_not_kept_a_second_time() {
    if !can_mount() || !have_program("fincore") {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    fs::create_dir(&tree).expect("new");
    for number in 0..4_000 {
        write(tree.join(format!("{number:04}")), noise(number, 4_000), 0o644);
    }
    write(tree.join("long"), noise(1, 16_000_000), 0o644);
    let name = import(&store, &tree);
    let long = Digest::of(&noise(1, 16_000_000)).to_hex();
    let files =
        [store.join("packs/00000000.pack"), store.join("blobs").join(&long[..2]).join(&long)];
    for file in &files {
        let file = File::open(file).expect("it is there");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("it is on disk");
    }
    let mounted = mount(&store, "no-open", &dir.path().join("mnt"));
    for number in 0..4_000 {
        fs::read(mounted.path.join(&name).join(format!("{number:04}"))).expect("it reads");
    }
    fs::read(mounted.path.join(&name).join("long")).expect("it reads");
    for file in &files {
        let (kept, len) = (in_page_cache(file), file.metadata().expect("it is there").len());
        // Of a pack, the last 2 MiB, and what read-ahead brought back of those before.
        assert!(kept <= 4 << 20 && len > 15_000_000, "{}: {kept} of {len}", file.display());
    }
    mounted.unmount();
}

#[test]
fn passed_through_files_are_mapped_and_read_at_any_offset() {
    if !can_pass_through() {
        return;
    }
    let long = Long::new();
    let mounted = long.mount("passthrough");
    let path = mounted.path.join(&long.name);
    read_everywhere(&path, &long.contents);
    let file = File::open(&path).expect("it opens");
    let mut cmp = Command::new("cmp");
    assert!(cmp.arg(&path).arg(long.dir.join("file")).status().expect("it runs").success());
    assert!(mapped(&file) == long.contents);
    for refused in [OpenOptions::new().write(true), OpenOptions::new().read(true).write(true)] {
        let error = refused.open(&path).expect_err("it is read-only");
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }
    drop(file);
    mounted.unmount();
}

/// What a mapping of the whole file shows.
#[allow(unsafe_code)] // mmap
fn mapped(file: &File) -> Vec<u8> {
    let len = file.metadata().expect("it has some").len() as usize;
    let fd = std::os::fd::AsRawFd::as_raw_fd(file);
    // SAFETY: a fresh mapping of a file that nobody changes, unmapped after it was copied.
    unsafe {
        let address =
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
        assert_ne!(address, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let copy = std::slice::from_raw_parts(address.cast::<u8>(), len).to_vec();
        libc::munmap(address, len);
        copy
    }
}

/// A file that is open in one way stays so until nobody has it open; what is open then follows what is here.
#[test]
fn a_blob_that_arrives_is_passed_through_at_the_next_open() {
    if !can_pass_through() {
        return;
    }
    let long = Long::new();
    let socket = long.dir.join("socket");
    let mut daemon = Running::start(
        lazystore(&long.store).arg("daemon").arg(format!("--listen=unix:{}", socket.display())),
    );
    daemon.wait_for_line("listening");
    let cache = long.dir.join("cache");
    let mut command = lazystore(Path::new("/nonexistent"));
    command.env("LAZYSTORE_STORE", format!("grpc+unix://{}", socket.display()));
    command.env("LAZYSTORE_CACHE_DIR", &cache);
    let mounted = Mounted::with(&mut command, &long.dir.join("mnt"), &["--io-mode=passthrough"]);
    let path = mounted.path.join(&long.name);
    let before = File::open(&path).expect("it opens");
    assert_eq!(begin(&path), long.contents[..7]);
    wait_until("the blob arrives", || {
        let mut all = Vec::new();
        let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut all));
        assert!(read.is_ok() && all == long.contents);
        long.blob(&cache).exists()
    });
    // Still in the way of the first, whatever is here.
    let mut rest = vec![0; 1000];
    before.read_exact_at(&mut rest, 2_000_000).expect("it reads");
    assert_eq!(rest, long.contents[2_000_000..2_001_000]);
    long.deface(&cache);
    assert_eq!(begin(&path), long.contents[..7]);
    drop(before);
    // The kernel tells of the last close a moment later. What is defaced in a cache is not opened, but fetched again; so it
    // is defaced once it is open.
    wait_until("it is passed through", || {
        long.restore(&cache);
        let file = File::open(&path).expect("it opens");
        long.deface(&cache);
        let mut begin = [0; 7];
        file.read_exact_at(&mut begin, 0).expect("it reads");
        begin == *b"defaced"
    });
    mounted.unmount();
}

#[test]
fn many_files_may_be_open_and_their_ids_come_back() {
    if !can_pass_through() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    fs::create_dir(&tree).expect("new");
    // More than ids are kept for the next open.
    for number in 0..1_200 {
        write(tree.join(number.to_string()), noise(number, 66_000), 0o644);
    }
    let name = import(&store, &tree);
    let mounted = mount(&store, "passthrough", &dir.path().join("mnt"));
    let image = mounted.path.join(name);
    for _ in 0..2 {
        let open: Vec<_> = (0..1_200u64)
            .map(|number| (number, File::open(image.join(number.to_string())).expect("it opens")))
            .collect();
        for (number, mut file) in open {
            let mut contents = Vec::new();
            file.read_to_end(&mut contents).expect("it reads");
            assert!(contents == noise(number, 66_000), "{number}");
        }
    }
    // What the program itself has open is bounded, whatever was opened through it.
    let descriptors = fs::read_dir(format!("/proc/{}/fd", mounted.running.child.id()));
    assert!(descriptors.expect("it runs").count() < 400);
    mounted.unmount();
}

#[test]
fn an_overlay_over_a_mount_reads_and_copies_up() {
    if !can_pass_through() || !have("overlayfs", has_overlay()) {
        return;
    }
    let long = Long::new();
    for mode in ["no-open", "passthrough"] {
        let mounted = long.mount(mode);
        fs::metadata(mounted.path.join(&long.name)).expect("it is there");
        let merged = Overlay::new(&long.dir.join(mode), &mounted.path);
        let path = merged.path.join(&long.name);
        assert!(fs::read(&path).expect("it reads") == long.contents, "{mode}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is copied up");
        let file = OpenOptions::new().append(true).open(&path);
        file.expect("it opens").write_all(b"more").expect("it writes");
        let expected = [&long.contents[..], b"more"].concat();
        assert!(fs::read(&path).expect("it reads") == expected, "{mode}");
        assert!(
            fs::read(mounted.path.join(&long.name)).expect("it reads") == long.contents,
            "{mode}"
        );
        drop(merged);
        mounted.unmount();
    }
}

/// The kernel does not pass through to a file system that is stacked on another.
#[test]
fn a_store_on_an_overlay_is_read_without_passthrough() {
    if !can_pass_through() || !have("overlayfs", has_overlay()) {
        return;
    }
    let long = Long::new();
    let merged = Overlay::new(&long.dir.join("layers"), &long.dir.join("store"));
    let mut mounted = mount(&merged.path, "passthrough", &long.dir.join("mnt"));
    assert!(fs::read(mounted.path.join(&long.name)).expect("it reads") == long.contents);
    mounted.running.wait_for_line("the store lies on an overlay");
    mounted.unmount();
}

fn has_overlay() -> bool {
    fs::read_to_string("/proc/filesystems").is_ok_and(|all| all.contains("\toverlay\n"))
}

struct Overlay {
    path: PathBuf,
}

impl Overlay {
    fn new(dir: &Path, lower: &Path) -> Self {
        let [upper, work, path] = ["upper", "work", "merged"].map(|name| dir.join(name));
        for dir in [&upper, &work, &path] {
            fs::create_dir_all(dir).expect("new");
        }
        let (lower, upper, work) = (lower.display(), upper.display(), work.display());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let mut mount = Command::new("mount");
        crate::support::run(mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(&path));
        Overlay { path }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Runs a shell script as root of a user namespace, who may mount, but not pass through.
fn as_root_of_a_namespace(long: &Long, script: &str) -> std::process::Output {
    let mut command = Command::new("unshare");
    command.args(["-Urm", "sh", "-c", script, "sh", crate::support::PROGRAM]);
    command.arg(long.dir.join("mnt")).arg(&long.name).stdin(Stdio::null());
    let quiet = lazystore(&long.store);
    command.envs(quiet.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.output().expect("it runs")
}

#[test]
fn passthrough_without_the_right_to_it_is_refused_with_the_reason() {
    if !can_pass_through() {
        return;
    }
    let long = Long::new();
    let script =
        "\"$1\" mount --io-mode=passthrough \"$2\"; echo $?; grep -c \"$2\" /proc/self/mountinfo";
    let output = as_root_of_a_namespace(&long, script);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no passthrough here") && said.contains("CAP_SYS_ADMIN"), "{said}");
    assert_eq!(output.stdout, b"1\n0\n", "it fails, and nothing is left mounted");

    let script =
        "\"$1\" mount \"$2\" & until cat \"$2/$3\" 2>/dev/null; do sleep 0.1; done; kill $!; wait";
    let output = as_root_of_a_namespace(&long, script);
    assert!(output.stdout == long.contents, "{}", String::from_utf8_lossy(&output.stderr));
}
