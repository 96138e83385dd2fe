//! Bytes that change on their way.

use std::{fs, sync::Arc, time::Duration};

use futures::TryStreamExt as _;
use lazystore::{
    castore::{Digest, Directory, Name, Node, SizeRule},
    nix::{Details, PathInfo, StorePath},
    render::RenderNar,
    serve::grpc::{Listener, serve},
    service::{
        Stores,
        blob::{
            BlobService as _,
            backend::{GrpcBlobs, MemoryBlobs},
            layer::VerifiedBlobs,
            read_all,
        },
        directory::{
            DirectoryService as _,
            backend::{GrpcDirectories, MemoryDirectories},
        },
        grpc::{GrpcAddress, GrpcChannel, GrpcOptions},
        pathinfo::{
            PathInfoService as _,
            backend::{GrpcPathInfos, MemoryPathInfos},
        },
    },
};

use crate::{
    far::Far,
    proxy::Proxy,
    support::{can_mount, noise, write},
};

#[test]
fn a_connection_that_is_cut_at_any_byte_harms_no_reader() {
    if !can_mount() {
        return;
    }
    let (far, names) = Far::new(|sources| {
        fs::create_dir(sources.join("tree")).expect("new");
        for number in 0..40 {
            write(sources.join("tree").join(number.to_string()), noise(number, 20_000), 0o644);
        }
    });
    let mounted = far.mount("");
    let tree = mounted.path.join(&names[0]);
    for number in 0..40_u64 {
        far.proxy.cut_after(number * 600);
        let contents = fs::read(tree.join(number.to_string()));
        assert_eq!(contents.expect("what broke off is begun again"), noise(number, 20_000));
    }
    mounted.unmount();
}

/// How many bytes are damaged; `LAZYSTORE_FLIPS` says otherwise.
const FLIPS: u64 = 10_000;
/// How many readers, each behind a proxy of its own, share them.
const READERS: u64 = 50;
/// More bytes than the answers to one reader take, connection and all.
const ANSWERS_LEN: u64 = 3_000;

/// A store in memory with one path, one directory in another, and one file.
struct Truth {
    stores: Stores,
    path_info: PathInfo,
    closure: Vec<Arc<Directory>>,
    contents: Vec<u8>,
}

impl Truth {
    async fn new() -> Self {
        let blobs = Arc::new(MemoryBlobs::new());
        let directories = Arc::new(MemoryDirectories::new());
        let path_infos = Arc::new(MemoryPathInfos::new());
        let contents = noise(1, 1_500);
        let digest = blobs.put(contents.clone().into()).await.expect("it stores").digest;
        let name = |name| Name::try_from(name).expect("legal");
        let mut inner = Directory::builder();
        inner.add(name("file"), Node::File { digest, size: 1_500, executable: false });
        let inner = Arc::new(inner.build().expect("legal"));
        let mut outer = Directory::builder();
        outer.add(name("inner"), inner.node(SizeRule::Documented));
        let outer = Arc::new(outer.build().expect("legal"));
        for directory in [&inner, &outer] {
            directories.put(directory.clone()).await.expect("it stores");
        }
        let store_path = "11111111111111111111111111111111-there".as_bytes();
        let store_path = StorePath::from_base_name(store_path).expect("legal");
        let node = outer.node(SizeRule::Documented);
        let details = Details::References(vec![store_path.digest()]);
        let path_info = PathInfo { store_path, node, details };
        path_infos.put(path_info.clone()).await.expect("it stores");
        let nars = Arc::new(RenderNar { blobs: blobs.clone(), directories: directories.clone() });
        let stores = Stores { blobs, directories, path_infos, nars };
        Truth { stores, path_info, closure: vec![outer, inner], contents }
    }

    /// Reads everything over `channel`, and fails if anything is wrong that is not told to be. Tells whether all of it
    /// was right.
    async fn compare(&self, channel: GrpcChannel) -> bool {
        let path_infos = GrpcPathInfos::new(channel.clone());
        let path_info = path_infos.get(&self.path_info.store_path.digest()).await;
        if let Ok(got) = &path_info {
            assert_eq!(got.as_ref(), Some(&self.path_info));
        }
        let directories = GrpcDirectories::new(channel.clone());
        let closure = directories.get_closure(&self.closure[0].digest()).await;
        let closure = match closure {
            Ok(closure) => closure.expect("it is there").try_collect::<Vec<_>>().await,
            Err(error) => Err(error),
        };
        if let Ok(got) = &closure {
            assert_eq!(got, &self.closure);
        }
        let blobs = VerifiedBlobs::new("far", Arc::new(GrpcBlobs::new(channel)));
        let contents = read_all(&blobs, &Digest::of(&self.contents), 2_000).await;
        if let Ok(got) = &contents {
            assert_eq!(got.as_deref(), Some(&self.contents[..]));
        }
        path_info.is_ok() && closure.is_ok() && contents.is_ok()
    }
}

#[test]
fn no_byte_that_changed_on_its_way_reaches_a_reader() {
    let flips = std::env::var("LAZYSTORE_FLIPS").map_or(FLIPS, |n| n.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let truth = Arc::new(runtime.block_on(Truth::new()));
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).expect("it listens");
    let server = listener.local_address().expect("it is TCP");
    runtime.spawn(serve(listener, truth.stores.clone(), std::future::pending()));
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let (truth, proxy) = (truth.clone(), Proxy::new(server));
            runtime.spawn(async move {
                let (mut harmless, mut passed, mut seed) = (0, 0, reader);
                // A byte behind the end of the answers is none.
                while passed < flips.div_ceil(READERS) {
                    seed += READERS;
                    let random = blake3::hash(&seed.to_le_bytes());
                    let [place, place_high, bit, ..] = *random.as_bytes();
                    let place = u64::from(u16::from_le_bytes([place, place_high])) % ANSWERS_LEN;
                    proxy.flip_after(place, 1 << (bit % 8));
                    let address = GrpcAddress::Http(format!("http://{}", proxy.address));
                    let deadline = Duration::from_millis(500);
                    let options = GrpcOptions { deadline, ..GrpcOptions::default() };
                    let channel = GrpcChannel::connect(&address, options).expect("an address");
                    let all_right = truth.compare(channel).await;
                    if proxy.has_flipped() {
                        passed += 1;
                        harmless += u64::from(all_right);
                    }
                }
                (harmless, passed)
            })
        })
        .collect();
    let (mut harmless, mut passed) = (0, 0);
    for reader in readers {
        let (more_harmless, more_passed) =
            runtime.block_on(reader).expect("nothing wrong was read");
        harmless += more_harmless;
        passed += more_passed;
    }
    eprintln!(
        "{passed} of {flips} bytes were damaged; {harmless} times all was right all the same"
    );
    assert!(passed > flips * 3 / 4, "only {passed} of {flips} bytes were damaged");
}
