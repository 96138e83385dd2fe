//! Binary caches that the real Nix wrote, mounted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    real_nix::{nix, shapes},
    support::{
        Mounted, assert_same, base_name, can_mount, drop_kernel_caches, have_program, lazystore,
        noise, run, sample_tree, walk, write,
    },
    web::HttpServer,
};

/// Trees of all shapes, in a store of Nix, and a key that signs them.
struct Built {
    folder: tempfile::TempDir,
    /// Each tree with its store path's base name.
    trees: Vec<(PathBuf, String)>,
    public_key: String,
}

impl Built {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let inputs = folder.path().join("inputs");
        fs::create_dir(&inputs).expect("new");
        let mut trees = shapes(&inputs);
        let sample = inputs.join("sample");
        sample_tree(&sample);
        // Nix limits the depth of archives.
        fs::remove_dir_all(sample.join("deep")).expect("ours");
        trees.push(sample);
        let large = inputs.join("large");
        fs::create_dir(&large).expect("new");
        for number in 0..4 {
            write(large.join(number.to_string()), noise(number, 3 << 20), 0o644);
        }
        trees.push(large);
        let mut add = nix("nix-store", &folder.path().join("nix"));
        let printed = run(add.arg("--add").args(&trees)).stdout;
        let printed = String::from_utf8(printed).expect("store paths are ASCII");
        let trees = trees.into_iter().zip(printed.lines().map(base_name)).collect();
        let secret = folder.path().join("secret");
        let public = folder.path().join("public");
        run(nix("nix-store", &folder.path().join("nix"))
            .args(["--generate-binary-cache-key", "test-1"])
            .args([&secret, &public]));
        let public_key = fs::read_to_string(public).expect("it was written").trim().to_owned();
        Built { folder, trees, public_key }
    }

    /// A cache with all of the trees, in a folder of its own.
    fn cache(&self, compression: &str) -> PathBuf {
        let cache = self.folder.path().join(format!("cache-{compression}"));
        let secret = self.folder.path().join("secret");
        let to = format!(
            "file://{}?compression={compression}&secret-key={}",
            cache.display(),
            secret.display()
        );
        let mut copy = nix("nix", &self.folder.path().join("nix"));
        let paths = self.trees.iter().map(|(_, name)| format!("/nix/store/{name}"));
        run(copy.args(["copy", "--to", &to]).args(paths));
        cache
    }

    fn address(&self, server: &HttpServer) -> String {
        format!("nix+{}?trusted-public-keys={}", server.url(), self.public_key)
    }

    fn compare(&self, mount: &Path) {
        for (tree, name) in &self.trees {
            assert_same(&walk(tree), &walk(&mount.join(name)));
        }
    }
}

#[test]
fn what_nix_wrote_in_any_compression_is_mounted() {
    if !can_mount() || !have_program("nix") || !have_program("nix-store") {
        return;
    }
    let built = Built::new();
    let mut archives = 0;
    for compression in ["none", "xz", "zstd", "bzip2", "gzip", "br", "lz4"] {
        let cache = built.cache(compression);
        if compression == "none" {
            // Trees that are equal have one archive. Compressed, it may be another file each time.
            archives = fs::read_dir(cache.join("nar")).expect("it is there").count();
        }
        let server = HttpServer::of(cache);
        let folder = tempfile::tempdir().expect("a folder");
        let address = built.address(&server);
        let mounted = mount(&folder, &address);
        built.compare(&mounted.path);
        assert_eq!(server.asked("nar/"), archives, "{compression}");
        mounted.unmount();
        if compression != "xz" {
            continue;
        }
        // All is here now, also for a new process: whatever the compression was.
        drop_kernel_caches();
        let mounted = mount(&folder, &address);
        built.compare(&mounted.path);
        assert_eq!(server.asked("nar/"), archives, "{compression}");
        assert!(!mounted.path.join(format!("{}-missing", "0".repeat(32))).exists());
        mounted.unmount();
    }
}

/// What is at `address`, with the cache in `folder`.
fn mount(folder: &tempfile::TempDir, address: &str) -> Mounted {
    let mut command = lazystore(&folder.path().join("store"));
    command.env("LAZYSTORE_CACHE_DIR", folder.path().join("cache"));
    command.args(["--store", address]);
    Mounted::new(&mut command, &folder.path().join("mount"))
}
