//! The stacks that the suite runs on. Adding one is a line in the enum, and how to build it.

use std::{net::SocketAddr, sync::Arc};

use lazystore::{
    castore::SizeRule,
    observe::spent::Phase,
    render::RenderNar,
    serve::grpc::{Listener, serve},
    service::{
        Stores,
        bigtable::{BigtableOptions, BigtableTable},
        blob::{
            backend::{BucketBlobs, GrpcBlobs, LocalBlobs, MemoryBlobs},
            layer::{
                BlobCounters, LazyBlobs, LazyOptions, MeasuredBlobs, RoutedBlobs, VerifiedBlobs,
            },
        },
        bucket::{BucketOptions, BucketUrl},
        counters::Backend,
        directory::{
            backend::{
                BigtableDirectories, BucketDirectories, GrpcDirectories, LocalDirectories,
                MemoryDirectories,
            },
            layer::{
                CachedDirectories, DirectoryCounters, LruDirectories, MeasuredDirectories,
                RoutedDirectories, VerifiedDirectories,
            },
        },
        grpc::{Dialect, GrpcAddress, GrpcChannel, GrpcOptions},
        local::LocalStore,
        pathinfo::{
            backend::{
                BigtablePathInfos, BucketPathInfos, GrpcPathInfos, LocalPathInfos, MemoryPathInfos,
            },
            layer::{
                CachedPathInfos, LruPathInfos, MeasuredPathInfos, PathInfoCounters,
                RoutedPathInfos, VerifiedPathInfos,
            },
        },
        swap::Swap,
    },
};
use tempfile::TempDir;

use crate::{
    azurite::{ACCOUNT, KEY, azurite},
    bigtable_emulator::{Emulator, have_emulator},
    s3::s3,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    Memory,
    Local,
    Verified,
    Measured,
    InMemoryFront,
    MemoryOverMemory,
    LocalOverMemory,
    GrpcTvix,
    GrpcSnix,
    CachedGrpc,
    Bucket,
    CachedBucket,
    S3Bucket,
    AzureBucket,
    Routed,
    RoutedBehindCache,
    ReadElsewhere,
    Bigtable,
    CachedBigtable,
    Swap,
}

pub const ALL: [Stack; 20] = [
    Stack::Memory,
    Stack::Local,
    Stack::Verified,
    Stack::Measured,
    Stack::InMemoryFront,
    Stack::MemoryOverMemory,
    Stack::LocalOverMemory,
    Stack::GrpcTvix,
    Stack::GrpcSnix,
    Stack::CachedGrpc,
    Stack::Bucket,
    Stack::CachedBucket,
    Stack::S3Bucket,
    Stack::AzureBucket,
    Stack::Routed,
    Stack::RoutedBehindCache,
    Stack::ReadElsewhere,
    Stack::Bigtable,
    Stack::CachedBigtable,
    Stack::Swap,
];

/// A stack that is ready to be used.
pub struct Built {
    pub stack: Stack,
    pub stores: Stores,
}

pub fn memory() -> Stores {
    let (blobs, directories) = (Arc::new(MemoryBlobs::new()), Arc::new(MemoryDirectories::new()));
    let nars = Arc::new(RenderNar { blobs: blobs.clone(), directories: directories.clone() });
    Stores { blobs, directories, path_infos: Arc::new(MemoryPathInfos::new()), nars }
}

pub fn local(store: Arc<LocalStore>) -> Stores {
    let blobs = Arc::new(LocalBlobs::new(store.clone()));
    let directories = Arc::new(LocalDirectories::new(store.clone()));
    let nars = Arc::new(RenderNar { blobs: blobs.clone(), directories: directories.clone() });
    Stores { blobs, directories, path_infos: Arc::new(LocalPathInfos::new(store)), nars }
}

pub fn cached(near: Stores, partials: Option<Arc<LocalStore>>, far: Stores) -> Stores {
    let options = LazyOptions::default();
    Stores {
        blobs: Arc::new(LazyBlobs::new(Some(near.blobs), partials, far.blobs, options)),
        directories: Arc::new(CachedDirectories::new(near.directories, far.directories)),
        path_infos: Arc::new(CachedPathInfos::new(near.path_infos, far.path_infos)),
        nars: far.nars,
    }
}

/// A bucket, whose directories are kept in memory as they are wherever it is used.
fn bucket(url: &str, options: &[(&str, &str)]) -> Stores {
    let url: BucketUrl = url.parse().expect("legal");
    let url =
        options.iter().fold(url, |url, (key, value)| url.with_option(key, value).expect("known"));
    let bucket = url.open(BucketOptions::default()).expect("it opens");
    let blobs = Arc::new(BucketBlobs::new(bucket.clone()));
    let directories = Arc::new(BucketDirectories::new(bucket.clone(), SizeRule::Documented));
    let nars = Arc::new(RenderNar { blobs: blobs.clone(), directories: directories.clone() });
    Stores { blobs, directories, path_infos: Arc::new(BucketPathInfos::new(bucket)), nars }
}

pub fn file_bucket(folder: &TempDir) -> Stores {
    bucket(&format!("file://{}/bucket", folder.path().display()), &[])
}

fn s3_bucket() -> Stores {
    s3_bucket_behind(s3().expect("it is possible").address)
}

/// A new bucket, behind what listens at `address`.
pub fn s3_bucket_behind(address: SocketAddr) -> Stores {
    let s3 = s3().expect("it is possible");
    let endpoint = format!("http://{address}");
    let options = [
        ("endpoint", &*endpoint),
        ("allow_http", "true"),
        ("region", "us-east-1"),
        ("access_key_id", "key"),
        ("secret_access_key", "secret"),
    ];
    bucket(&format!("s3://{}/some/where", s3.bucket()), &options)
}

fn azure_bucket() -> Stores {
    let azurite = azurite().expect("it is possible");
    let endpoint = azurite.endpoint();
    let options = [
        ("endpoint", &*endpoint),
        ("allow_http", "true"),
        ("account_name", ACCOUNT),
        ("account_key", KEY),
    ];
    bucket(&format!("az://{}/some/where", azurite.container()), &options)
}

fn verified(below: Stores) -> Stores {
    Stores {
        blobs: Arc::new(VerifiedBlobs::new("test", below.blobs)),
        directories: Arc::new(VerifiedDirectories::new("test", below.directories)),
        path_infos: Arc::new(VerifiedPathInfos::new("test", below.path_infos)),
        nars: below.nars,
    }
}

fn measured(below: Stores) -> Stores {
    let backend = Backend::new("test", Phase::Disk);
    let counters = Arc::<DirectoryCounters>::default();
    let directories = MeasuredDirectories::new(below.directories, counters, backend.clone());
    let blobs = Arc::<BlobCounters>::default();
    let blobs = MeasuredBlobs::new(below.blobs, blobs, backend.clone());
    Stores {
        blobs: Arc::new(blobs),
        directories: Arc::new(directories),
        path_infos: Arc::new(MeasuredPathInfos::new(
            below.path_infos,
            Arc::<PathInfoCounters>::default(),
            backend,
        )),
        nars: below.nars,
    }
}

/// Reads from several, and writes to one.
fn routed(read: &[Stores], write: Stores) -> Stores {
    let blobs = read.iter().map(|one| one.blobs.clone()).collect();
    let directories = read.iter().map(|one| one.directories.clone()).collect();
    let path_infos = read.iter().map(|one| one.path_infos.clone()).collect();
    Stores {
        blobs: Arc::new(RoutedBlobs::new("test", blobs, Some(write.blobs))),
        directories: Arc::new(RoutedDirectories::new("test", directories, Some(write.directories))),
        path_infos: Arc::new(RoutedPathInfos::new("test", path_infos, Some(write.path_infos))),
        nars: write.nars,
    }
}

/// A server over `below` in this process, and a client of it.
fn grpc(below: Stores, folder: &TempDir, dialect: Option<Dialect>) -> Stores {
    let socket = folder.path().join("socket");
    let listener = Listener::unix(&socket).expect("it listens");
    tokio::spawn(serve(listener, below, std::future::pending()));
    let options = GrpcOptions { dialect, ..GrpcOptions::default() };
    let channel = GrpcChannel::connect(&GrpcAddress::Unix(socket), options).expect("an address");
    let path_infos = Arc::new(GrpcPathInfos::new(channel.clone()));
    Stores {
        blobs: Arc::new(VerifiedBlobs::new("test", Arc::new(GrpcBlobs::new(channel.clone())))),
        directories: Arc::new(GrpcDirectories::new(channel)),
        path_infos: path_infos.clone(),
        nars: path_infos,
    }
}

/// Directories and path infos in the table of an emulator, blobs in memory.
pub fn bigtable(options: BigtableOptions) -> Stores {
    let table = BigtableTable::open(options).expect("an address");
    let directories = Arc::new(BigtableDirectories::new(table.clone()));
    let blobs = Arc::new(MemoryBlobs::new());
    let nars = Arc::new(RenderNar { blobs: blobs.clone(), directories: directories.clone() });
    Stores { blobs, directories, path_infos: Arc::new(BigtablePathInfos::new(table)), nars }
}

pub fn open(folder: &TempDir) -> Arc<LocalStore> {
    LocalStore::open(&folder.path().join("store")).expect("it opens")
}

pub fn open_cache(folder: &TempDir, size_max: u64) -> Arc<LocalStore> {
    LocalStore::open_cache(&folder.path().join("cache"), Some(size_max)).expect("it opens")
}

impl Stack {
    /// Whether what it needs is here. What is missing is said, and may be an error.
    pub fn is_possible(self) -> bool {
        match self {
            Stack::S3Bucket => s3().is_some(),
            Stack::AzureBucket => azurite().is_some(),
            Stack::Bigtable | Stack::CachedBigtable => have_emulator(),
            _ => true,
        }
    }

    /// Whether ranges of long blobs come without a proof.
    pub fn proves_nothing(self) -> bool {
        matches!(self, Stack::Bucket | Stack::CachedBucket | Stack::S3Bucket | Stack::AzureBucket)
    }

    /// Builds it in two folders, and in `emulator` if it needs one, which is started.
    pub fn build(self, [one, two]: &[TempDir; 2], emulator: &mut Option<Emulator>) -> Built {
        let mut in_emulator = || {
            let started = emulator.insert(Emulator::start().expect("it is here"));
            bigtable(started.options())
        };
        let stores = match self {
            Stack::Memory => memory(),
            Stack::Local => local(open(one)),
            Stack::Verified => verified(memory()),
            Stack::Measured => measured(memory()),
            Stack::Swap => {
                let swap = Swap::new(memory());
                let stores = swap.stores();
                swap.put(local(open(one)));
                stores
            }
            Stack::InMemoryFront => {
                let below = local(open(one));
                Stores {
                    directories: Arc::new(LruDirectories::new(below.directories, 1 << 20)),
                    path_infos: Arc::new(LruPathInfos::new(below.path_infos, 100)),
                    ..below
                }
            }
            Stack::MemoryOverMemory => cached(memory(), None, memory()),
            Stack::LocalOverMemory => {
                let near = open_cache(one, 1 << 30);
                cached(local(near.clone()), Some(near), memory())
            }
            Stack::GrpcTvix => grpc(memory(), one, Some(Dialect::Tvix)),
            Stack::GrpcSnix => grpc(local(open(two)), one, Some(Dialect::Snix)),
            Stack::CachedGrpc => {
                let near = open_cache(one, 1 << 30);
                cached(local(near.clone()), Some(near), grpc(local(open(two)), two, None))
            }
            Stack::Bucket => file_bucket(one),
            Stack::CachedBucket => {
                let near = open_cache(one, 1 << 30);
                cached(local(near.clone()), Some(near), file_bucket(two))
            }
            Stack::S3Bucket => s3_bucket(),
            Stack::AzureBucket => azure_bucket(),
            Stack::Routed => {
                let second = local(open(one));
                routed(&[memory(), second.clone(), memory()], second)
            }
            Stack::RoutedBehindCache => {
                let near = open_cache(one, 1 << 30);
                let far = grpc(local(open(two)), two, None);
                let far = routed(&[memory(), far.clone()], far);
                cached(local(near.clone()), Some(near), far)
            }
            // Two daemons over one store: one is read, the other written.
            Stack::ReadElsewhere => {
                let below = local(open(two));
                let reader = grpc(below.clone(), one, Some(Dialect::Tvix));
                routed(&[memory(), reader], grpc(below, two, Some(Dialect::Tvix)))
            }
            Stack::Bigtable => in_emulator(),
            Stack::CachedBigtable => {
                let near = open_cache(one, 1 << 30);
                cached(local(near.clone()), Some(near), in_emulator())
            }
        };
        Built { stack: self, stores }
    }
}
