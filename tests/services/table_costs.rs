//! What questions to a table, a bucket and a daemon cost: the figures of `docs/scaling.md`.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use lazystore::{
    castore::{Directory, Name, SizeRule},
    serve::grpc::{Listener, serve},
    service::{
        Stores,
        directory::backend::GrpcDirectories,
        grpc::{Dialect, GrpcAddress, GrpcChannel, GrpcOptions},
        pathinfo::backend::GrpcPathInfos,
    },
};

use crate::{
    bigtable::{directory, path_info},
    bigtable_emulator::{Emulator, options},
    proxy::Proxy,
    s3::s3,
    stacks,
    toll::Toll,
};

/// How many paths the closure of paths has.
const PATHS: u32 = 1000;

/// A tree as packages have it: three levels, `2 + 8 + 8 * 4` directories. Leaves first.
pub fn tree(salt: u32) -> Vec<Arc<Directory>> {
    let mut all = Vec::new();
    let mut over = |children: Vec<Arc<Directory>>| {
        let mut builder = Directory::builder();
        for (number, child) in children.iter().enumerate() {
            let name = Name::try_from(format!("directory-{number}").as_str()).expect("legal");
            builder.add(name, child.node(SizeRule::Documented));
        }
        let parent = Arc::new(builder.build().expect("legal"));
        all.extend(children);
        parent
    };
    let leaves =
        |middle| (0..4).map(|leaf| directory(&format!("{salt}-{middle}-{leaf}"))).collect();
    let middles = (0..8).map(|middle| over(leaves(middle))).collect();
    let top = over(middles);
    let root = over(vec![top]);
    all.push(root);
    all
}

/// What counts requests, bytes that were sent, and bytes that came.
type Counter<'a> = Box<dyn Fn() -> (usize, u64, u64) + 'a>;

/// What has gone by since it was asked last.
struct Meter<'a> {
    counter: Counter<'a>,
    last: (usize, u64, u64),
}

impl<'a> Meter<'a> {
    fn new(proxy: &'a Proxy) -> Self {
        Self::of(Box::new(|| (proxy.requests(), proxy.sent(), proxy.received())))
    }

    fn of(counter: Counter<'a>) -> Self {
        Meter { last: counter(), counter }
    }

    fn paid(&mut self, on: &str, what: &str) -> usize {
        let now = (self.counter)();
        let before = std::mem::replace(&mut self.last, now);
        let requests = now.0 - before.0;
        let (sent, received) = (now.1 - before.1, now.2 - before.2);
        eprintln!("| {on} | {what} | {requests} | {sent} | {received} |");
        requests
    }
}

/// Asks as a mount does, and tells the requests of: one path that is there, one that is not, its directories, and
/// `PATHS` paths with their directories.
async fn measure(on: &str, meter: &mut Meter<'_>, stores: &Stores, root: &Directory) -> [usize; 4] {
    let lookup = |number: u32| {
        let digest = path_info(number).store_path.digest();
        async move { stores.path_infos.get(&digest).await.expect("it answers") }
    };
    let closure = || async {
        let closure = stores.directories.get_closure(&root.digest()).await.expect("it answers");
        closure.expect("it is there").try_collect::<Vec<_>>().await.expect("it is whole").len()
    };
    // Connections are made once.
    lookup(0).await.expect("it is there");
    assert_eq!(closure().await, 42);
    meter.last = (meter.counter)();
    lookup(1).await.expect("it is there");
    let one = meter.paid(on, "a path that is there");
    assert_eq!(lookup(PATHS + 1).await, None);
    let none = meter.paid(on, "a path that is absent");
    closure().await;
    let directories = meter.paid(on, "its 42 directories");
    for number in 0..PATHS {
        lookup(number).await.expect("it is there");
        closure().await;
    }
    let all = meter.paid(on, "1,000 paths, each with its 42 directories");
    [one, none, directories, all]
}

pub async fn fill(stores: &Stores, all: &[Arc<Directory>]) {
    let mut putter = stores.directories.put_closure().await.expect("it works");
    for directory in all {
        putter.put(directory.clone()).await.expect("it works");
    }
    putter.finish().await.expect("it works");
}

#[tokio::test]
async fn a_table_costs_what_the_documentation_says() {
    let Some(emulator) = Emulator::start() else { return };
    let proxy = Proxy::new(emulator.address);
    let stores = stacks::bigtable(options(proxy.address));
    let all = tree(0);
    stores.path_infos.put(path_info(0)).await.expect("it works");
    let mut meter = Meter::new(&proxy);
    fill(&stores, &all).await;
    assert_eq!(meter.paid("Bigtable", "putting 42 directories"), 1 + all.len());
    fill(&stores, &all).await;
    assert_eq!(meter.paid("Bigtable", "putting them again"), 1);
    for number in 1..PATHS {
        stores.path_infos.put(path_info(number)).await.expect("it works");
    }
    assert_eq!(meter.paid("Bigtable", "putting 999 path infos"), 999);
    let listed: Vec<_> = stores.path_infos.list().try_collect().await.expect("it lists");
    assert_eq!(listed.len(), PATHS as usize);
    assert_eq!(meter.paid("Bigtable", "listing 1,000 path infos"), 3);
    let root = all.last().expect("there is one");
    let costs = measure("Bigtable", &mut meter, &stores, root).await;
    assert_eq!(costs, [1, 1, 4, 5000], "the directories have four levels");
}

#[tokio::test]
async fn a_daemon_costs_what_the_documentation_says() {
    let below = stacks::memory();
    let all = tree(0);
    fill(&below, &all).await;
    for number in 0..PATHS {
        below.path_infos.put(path_info(number)).await.expect("it works");
    }
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).expect("it listens");
    let address = listener.local_address().expect("TCP");
    tokio::spawn(serve(listener, below.clone(), std::future::pending()));
    let proxy = Proxy::new(address);
    let url = GrpcAddress::Http(format!("http://{}", proxy.address));
    let dialect = Some(Dialect::Tvix);
    let options = GrpcOptions { dialect, ..GrpcOptions::default() };
    let channel = GrpcChannel::connect(&url, options).expect("an address");
    let path_infos = Arc::new(GrpcPathInfos::new(channel.clone()));
    let stores = Stores {
        directories: Arc::new(GrpcDirectories::new(channel)),
        path_infos: path_infos.clone(),
        nars: path_infos,
        ..below
    };
    let root = all.last().expect("there is one");
    let costs = measure("a daemon", &mut Meter::new(&proxy), &stores, root).await;
    assert_eq!(costs, [1, 1, 1, 2000]);
}

#[test]
fn a_bucket_costs_what_the_documentation_says() {
    let Some(s3) = s3() else { return };
    let toll = Toll::new(s3.address);
    let sum = std::cell::Cell::new((0, 0, 0));
    let mut meter = Meter::of(Box::new(|| {
        let (paid, before) = (toll.paid(), sum.get());
        let requests = before.0 + paid.requests() as usize;
        sum.set((requests, before.1 + paid.sent, before.2 + paid.received));
        sum.get()
    }));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let stores = stacks::s3_bucket_behind(toll.address);
        let all = tree(0);
        fill(&stores, &all).await;
        meter.paid("a bucket", "putting 42 directories");
        futures::stream::iter(0..PATHS)
            .map(|number| stores.path_infos.put(path_info(number)))
            .buffer_unordered(16)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
            .expect("they are put");
        meter.paid("a bucket", "putting 1,000 path infos");
        let listed: Vec<_> = stores.path_infos.list().try_collect().await.expect("it lists");
        assert_eq!(listed.len(), PATHS as usize);
        meter.paid("a bucket", "listing 1,000 path infos");
        let root = all.last().expect("there is one");
        let costs = measure("a bucket", &mut meter, &stores, root).await;
        assert_eq!(costs, [1, 1, 1, 2000]);
    });
}
