//! Plans that are opened, as configuration files make them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::TryStreamExt as _;
use tempfile::TempDir;

use super::*;
use crate::{
    castore::{Node, SymlinkTarget},
    compose::{
        config::{Config, Settings},
        open_plan,
    },
    service::{blob::read_all, shelf::path_info},
};

/// A file of configuration whose `@` stands for a folder.
struct Configured {
    folder: TempDir,
    config: Config,
}

impl Configured {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = text.replace('@', &folder.path().display().to_string());
        let config = Config::parse(Path::new("c.toml"), text).expect("legal");
        Configured { folder, config }
    }

    fn open(&self, name: &str) -> Stores {
        let settings = Settings {
            cache: None,
            cache_default: None,
            cache_size_max: None,
            is_strict: false,
            whole_len_max: None,
            absent_ttl: None,
        };
        let plan = self.config.store(name, &settings).expect("it fits");
        let store_dir: PathBuf = self.folder.path().join("usual");
        let common = Common { store_dir, token_file: None, offline: false };
        open_plan(&plan, &common).expect("it opens")
    }
}

fn link() -> Node {
    Node::Symlink { target: SymlinkTarget::try_from(&b"target"[..]).expect("legal") }
}

const STACKED: &str = "[source.a]\naddress = 'local://@/a'\n[source.b]\naddress = 'local://@/b'\n\
    [cache.near]\ndir = '@/near'\nsize = '64M'\n[cache.far]\ndir = '@/far'\nsize = '64M'\n\
    [store.inner]\nread = 'a'\ncache = 'far'\n\
    [store.default]\nread = ['b', 'inner']\nwrite = 'b'\ncache = 'near'\n";

#[tokio::test]
async fn a_store_may_be_read_by_another_with_a_cache_of_its_own() {
    let configured = Configured::new(STACKED);
    let (inner, outer) = (configured.open("inner"), configured.open("default"));
    let digest = inner.blobs.put(Bytes::from_static(b"inner")).await.expect("works").digest;
    // Others see it from now on.
    inner.blobs.sync().await.expect("works");
    inner.path_infos.put(path_info(1, "x", link())).await.expect("works");
    let own = outer.blobs.put(Bytes::from_static(b"outer")).await.expect("works").digest;
    outer.path_infos.put(path_info(2, "x", link())).await.expect("works");

    let read = read_all(&*outer.blobs, &digest, 10).await.expect("works");
    assert_eq!(read.as_deref(), Some(&b"inner"[..]));
    assert!(outer.path_infos.get(&[1; 20].into()).await.expect("works").is_some());
    let listed: Vec<_> = outer.path_infos.list().try_collect().await.expect("works");
    assert_eq!(listed.len(), 2);
    assert!(!inner.blobs.has(&own).await.expect("works"), "nothing is copied inwards");
    // What came from the inner store lies in the cache before it now.
    outer.blobs.sync().await.expect("works");
    drop((inner, outer));
    let near = LocalStore::open_cache(&configured.folder.path().join("near"), None);
    let near = LocalBlobs::new(near.expect("it opens"));
    assert!(near.has(&digest).await.expect("works"));
    assert!(!near.has(&own).await.expect("works"), "what is on a disk is not copied");
}

#[tokio::test]
async fn whoever_adds_sees_only_what_is_written() {
    let configured = Configured::new(STACKED);
    let (inner, outer) = (configured.open("inner"), configured.open("default"));
    let digest = inner.blobs.put(Bytes::from_static(b"x")).await.expect("works").digest;
    inner.blobs.sync().await.expect("works");
    assert!(outer.blobs.has(&digest).await.expect("works"));
    let settings = Settings {
        cache: Some(None),
        cache_default: None,
        cache_size_max: None,
        is_strict: false,
        whole_len_max: None,
        absent_ttl: None,
    };
    let plan = configured.config.store("default", &settings).expect("it fits");
    let common = Common { store_dir: "/usual".into(), token_file: None, offline: false };
    let target = open_plan(&plan.target().expect("there is one"), &common).expect("it opens");
    assert!(!target.blobs.has(&digest).await.expect("works"));
    let put = target.blobs.put(Bytes::from_static(b"x")).await.expect("works");
    target.blobs.sync().await.expect("works");
    assert!(put.is_new && configured.open("b").blobs.has(&digest).await.expect("works"));

    let read_only = Configured::new(
        "[source.a]\naddress = 'memory:'\n[store.default]\nread = 'a'\nwrite = 'none'\n",
    );
    let plan = read_only.config.store("default", &settings).expect("it fits");
    let said = plan.target().map(drop).expect_err("it has none").to_string();
    assert!(said.contains("store default takes no blobs"), "{said}");
    let refused = read_only.open("default").blobs.put(Bytes::from_static(b"x")).await;
    assert!(refused.is_err());
}
