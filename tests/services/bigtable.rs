//! Directories and path infos in a Bigtable: its layout, wrong rows, missing tables, bad networks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bigtable_rs::{
    bigtable::{BigTable, BigTableConnection},
    google::bigtable::v2::{MutateRowRequest, Mutation, mutation},
};
use futures::TryStreamExt as _;
use lazystore::{
    castore::{Digest, Directory, Name, Node, SizeRule, SymlinkTarget},
    nix::{Details, NarHash, NarInfo, PathInfo, StorePath, StorePathDigest},
    service::{
        Error,
        bigtable::{BigtableOptions, CELL_LEN_MAX},
    },
};

use crate::{
    bigtable_emulator::{Emulator, FAMILY, TABLE, options},
    proxy::{Proxy, Weather},
    stacks,
    support::SOON,
};

pub fn directory(name: &str) -> Arc<Directory> {
    let mut builder = Directory::builder();
    let node = Node::File { digest: Digest::of(name.as_bytes()), size: 1, executable: false };
    builder.add(Name::try_from(name).expect("legal"), node);
    Arc::new(builder.build().expect("legal"))
}

pub fn path_info(number: u32) -> PathInfo {
    let mut digest = [0; 20];
    digest[..4].copy_from_slice(&number.to_be_bytes());
    let store_path = StorePath::new(StorePathDigest::from(digest), "name").expect("a legal name");
    let node = Node::File { digest: Digest::EMPTY, size: 0, executable: false };
    let info = NarInfo {
        nar: NarHash { size: 120, sha256: [7; 32] },
        references: Vec::new(),
        signatures: Vec::new(),
        deriver: None,
        ca: None,
    };
    PathInfo { store_path, node, details: Details::NarInfo(info) }
}

pub fn hex(info: &PathInfo) -> String {
    data_encoding::HEXLOWER.encode(info.store_path.digest().as_bytes())
}

/// A directory of about `len` bytes, other ones for other names.
fn long(name: &str, len: usize) -> Arc<Directory> {
    let mut builder = Directory::builder();
    let target = SymlinkTarget::try_from(&[b't'; 4095][..]).expect("legal");
    for number in 0..len / 4110 {
        let name = Name::try_from(format!("{name}-{number:04}").as_str()).expect("legal");
        builder.add(name, Node::Symlink { target: target.clone() });
    }
    Arc::new(builder.build().expect("legal"))
}

/// Writes cells as they should not be.
pub struct Vandal(pub BigTable);

impl Vandal {
    pub fn new(emulator: &Emulator) -> Self {
        let BigtableOptions { project, instance, .. } = emulator.options();
        let host = emulator.address.to_string();
        let connection =
            BigTableConnection::new_with_emulator(&host, &project, &instance, false, 1, None);
        Vandal(connection.expect("an address").client())
    }

    async fn set(&mut self, row: &str, qualifier: &str, timestamp_micros: i64, value: &[u8]) {
        let cell = mutation::SetCell {
            family_name: FAMILY.to_owned(),
            column_qualifier: qualifier.into(),
            timestamp_micros,
            value: value.to_vec(),
        };
        let request = MutateRowRequest {
            table_name: self.0.get_full_table_name(TABLE),
            row_key: row.into(),
            mutations: vec![Mutation { mutation: Some(mutation::Mutation::SetCell(cell)) }],
            ..MutateRowRequest::default()
        };
        self.0.mutate_row(request).await.expect("it is written");
    }
}

#[tokio::test]
async fn a_row_is_laid_out_as_the_community_does() {
    let Some(emulator) = Emulator::start() else { return };
    let stores = stacks::bigtable(emulator.options());
    let (directory, info) = (directory("a"), path_info(1));
    for _ in 0..2 {
        stores.directories.put(directory.clone()).await.expect("it works");
        stores.path_infos.put(info.clone()).await.expect("it works");
    }
    let rows = emulator.cbt(&["read", TABLE]);
    for key in [directory.digest().to_hex(), hex(&info)] {
        let column = format!("{FAMILY}:{key}");
        assert_eq!(rows.matches(&column).count(), 1, "one row, one cell: {rows}");
    }
    assert_eq!(rows.lines().filter(|line| line.contains(" @ ")).count(), 2, "{rows}");
}

#[tokio::test]
async fn wrong_rows_are_corrupt_and_are_never_taken_for_absent() {
    let Some(emulator) = Emulator::start() else { return };
    let (stores, mut vandal) = (stacks::bigtable(emulator.options()), Vandal::new(&emulator));
    let (right, other) = (directory("right"), directory("other"));
    let (digest, key) = (right.digest(), right.digest().to_hex());
    let info = path_info(1);
    let info_key = hex(&info);
    for (what, qualifier, values) in [
        ("more than one cell", &key, vec![&right.encoded()[..], right.encoded()]),
        ("instead of its key", &info_key, vec![&right.encoded()[..]]),
        ("its value is", &key, vec![&other.encoded()[..]]),
        ("no directory", &key, vec![&b"nonsense"[..]]),
    ] {
        for (version, value) in values.into_iter().enumerate() {
            vandal.set(&key, qualifier, version as i64 * 1000, value).await;
        }
        let read = stores.directories.get(&digest).await.expect_err(what);
        let closure = stores.directories.get_closure(&digest).await.err().expect(what);
        let put = stores.directories.put(right.clone()).await.expect_err(what);
        for error in [read, closure, put] {
            assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error}");
            let told = error.to_string();
            assert!(told.contains(what) && told.contains(&key), "{what}: {told}");
        }
        emulator.cbt(&["deleterow", TABLE, &key]);
    }
    assert_eq!(stores.directories.get(&digest).await.expect("mended"), None);

    stores.path_infos.put(path_info(2)).await.expect("it works");
    let stored = emulator.cbt(&["read", TABLE]);
    assert!(stored.contains(&hex(&path_info(2))), "{stored}");
    for (what, value) in [("no path info", &b"nonsense"[..]), ("no path info", b"")] {
        vandal.set(&info_key, &info_key, 0, value).await;
        let digest = info.store_path.digest();
        let read = stores.path_infos.get(&digest).await.expect_err(what);
        let put = stores.path_infos.put(info.clone()).await.expect_err(what);
        let list = stores.path_infos.list().try_collect::<Vec<_>>().await.expect_err(what);
        for error in [read, put, list] {
            assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error}");
            assert!(error.to_string().contains(&info_key), "{what}: {error}");
        }
    }
}

#[tokio::test]
async fn a_closure_that_lacks_a_directory_is_corrupt() {
    let Some(emulator) = Emulator::start() else { return };
    let stores = stacks::bigtable(emulator.options());
    let leaf = directory("leaf");
    let mut builder = Directory::builder();
    builder.add(Name::try_from("leaf").expect("legal"), leaf.node(SizeRule::Documented));
    let root = Arc::new(builder.build().expect("legal"));
    stores.directories.put(root.clone()).await.expect("it works");
    let closure = stores.directories.get_closure(&root.digest()).await.expect("the root is there");
    let error = closure.expect("it is there").try_collect::<Vec<_>>().await.expect_err("cut short");
    let told = error.to_string();
    assert!(
        matches!(error, Error::Corrupt { .. }) && told.contains(&leaf.digest().to_hex()),
        "{told}"
    );
}

#[tokio::test]
async fn what_is_too_long_for_a_cell_is_refused_before_it_is_sent() {
    let Some(emulator) = Emulator::start() else { return };
    let proxy = Proxy::new(emulator.address);
    let stores = stacks::bigtable(options(proxy.address));
    let long = long("a", CELL_LEN_MAX + 10_000);
    assert!(long.encoded().len() > CELL_LEN_MAX);
    let error = stores.directories.put(long.clone()).await.expect_err("it is too long");
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    assert!(error.to_string().contains("10485760 at most"), "{error}");
    let mut putter = stores.directories.put_closure().await.expect("it works");
    let error = putter.put(long).await.expect_err("it is too long");
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    assert!(proxy.sent() < 10_000, "{} bytes were sent", proxy.sent());
}

#[tokio::test]
async fn the_longest_cells_come_and_go_and_many_of_them_do_not_pile_up() {
    let Some(emulator) = Emulator::start() else { return };
    let stores = stacks::bigtable(emulator.options());
    let mut all = Vec::new();
    let mut root = Directory::builder();
    for child in 0..3 {
        let directory = long(&child.to_string(), CELL_LEN_MAX - 10_000);
        let name = Name::try_from(child.to_string().as_str()).expect("legal");
        root.add(name, directory.node(SizeRule::Documented));
        all.push(directory);
    }
    all.push(Arc::new(root.build().expect("legal")));
    let mut putter = stores.directories.put_closure().await.expect("it works");
    for directory in &all {
        putter.put(directory.clone()).await.expect("it works");
    }
    let root = putter.finish().await.expect("it works");
    let closure = stores.directories.get_closure(&root).await.expect("it works");
    let closure: Vec<_> = closure.expect("there").try_collect().await.expect("whole");
    assert_eq!(closure.len(), all.len());
}

#[tokio::test]
async fn a_missing_table_or_family_is_an_error_that_says_what_to_do() {
    let Some(emulator) = Emulator::start() else { return };
    let here = emulator.options();
    stacks::bigtable(here.clone()).path_infos.put(path_info(1)).await.expect("it works");
    let no_table = BigtableOptions { table: "none".to_owned(), ..here.clone() };
    let no_family = BigtableOptions { family: "none".to_owned(), ..here };
    for (options, advice) in [(no_table, "createtable none"), (no_family, "family")] {
        for is_read_only in [false, true] {
            let stores = stacks::bigtable(BigtableOptions { is_read_only, ..options.clone() });
            let info = path_info(2);
            let digest = Digest::of(b"x");
            let mut errors = vec![
                stores.path_infos.get(&info.store_path.digest()).await.expect_err("get"),
                stores.path_infos.list().try_collect::<Vec<_>>().await.expect_err("list"),
                stores.directories.get(&digest).await.expect_err("get"),
                stores.directories.get_closure(&digest).await.err().expect("get"),
            ];
            if !is_read_only {
                errors.push(stores.path_infos.put(info).await.expect_err("put"));
            }
            for error in errors {
                assert!(matches!(error, Error::Unavailable { .. }), "{error}");
                assert!(error.to_string().contains(advice), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_written_where_the_address_says_so() {
    let Some(emulator) = Emulator::start() else { return };
    let info = path_info(1);
    let digest = info.store_path.digest();
    let may_write = stacks::bigtable(emulator.options());
    let stores = stacks::bigtable(BigtableOptions { is_read_only: true, ..emulator.options() });
    assert_eq!(stores.path_infos.get(&digest).await.expect("an empty table"), None);
    let refused = [
        stores.path_infos.put(info.clone()).await.expect_err("it may not"),
        stores.directories.put(directory("a")).await.expect_err("it may not"),
        stores.directories.put_closure().await.err().expect("it may not"),
    ];
    for error in refused {
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("is_read_only"), "{error}");
    }
    assert_eq!(emulator.cbt(&["count", TABLE]).trim(), "0");
    may_write.path_infos.put(info.clone()).await.expect("it works");
    assert_eq!(stores.path_infos.get(&digest).await.expect("it reads"), Some(info));
}

#[tokio::test]
async fn directories_and_path_infos_may_share_a_table() {
    let Some(emulator) = Emulator::start() else { return };
    let stores = stacks::bigtable(emulator.options());
    for number in 0..700 {
        stores.directories.put(directory(&number.to_string())).await.expect("it works");
        stores.path_infos.put(path_info(number * 1_000_000)).await.expect("it works");
    }
    let listed: Vec<_> = stores.path_infos.list().try_collect().await.expect("it lists");
    let expected: Vec<_> = (0..700).map(|number| path_info(number * 1_000_000)).collect();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn writers_of_one_path_info_leave_one_cell_which_one_of_them_wrote() {
    let Some(emulator) = Emulator::start() else { return };
    let with_size = |size| {
        let mut info = path_info(1);
        if let Details::NarInfo(narinfo) = &mut info.details {
            narinfo.nar.size = size;
        }
        info
    };
    let writers = (1..=8).map(|size| {
        let stores = stacks::bigtable(emulator.options());
        tokio::spawn(async move {
            for _ in 0..20 {
                // Giving up against the others is all right, if it is said.
                match stores.path_infos.put(with_size(size)).await {
                    Ok(_) => {}
                    Err(error) => assert!(error.to_string().contains("by others"), "{error}"),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no writer fails");
    }
    let rows = emulator.cbt(&["read", TABLE]);
    assert_eq!(rows.lines().filter(|line| line.contains(" @ ")).count(), 1, "{rows}");
    let stores = stacks::bigtable(emulator.options());
    let found = stores.path_infos.get(&path_info(1).store_path.digest()).await.expect("it reads");
    assert!((1..=8).map(with_size).any(|info| found.as_ref() == Some(&info)), "{found:?}");
}

#[tokio::test]
async fn a_bad_network_is_unavailable_in_bounded_time_and_heals() {
    let Some(emulator) = Emulator::start() else { return };
    let proxy = Proxy::new(emulator.address);
    let deadline = Duration::from_secs(2);
    let stores = stacks::bigtable(BigtableOptions { deadline, ..options(proxy.address) });
    let info = path_info(1);
    let digest = info.store_path.digest();
    stores.path_infos.put(info.clone()).await.expect("it works");
    for weather in [Weather::Down, Weather::Stalled] {
        proxy.weather(weather);
        for _ in 0..3 {
            let began = Instant::now();
            let read = stores.path_infos.get(&digest).await.expect_err("nobody answers");
            let absent = stores.directories.get(&Digest::of(b"x")).await.expect_err("as before");
            let list =
                stores.path_infos.list().try_collect::<Vec<_>>().await.expect_err("as before");
            assert!(began.elapsed() < deadline * 4, "{weather:?}: {:?}", began.elapsed());
            for error in [read, absent, list] {
                let is_told = matches!(error, Error::Unavailable { .. } | Error::TimedOut { .. });
                assert!(is_told, "{weather:?}: {error}");
            }
        }
        proxy.weather(Weather::Fair);
        proxy.cut();
        let began = Instant::now();
        while !stores.path_infos.get(&digest).await.is_ok_and(|found| found.is_some()) {
            assert!(began.elapsed() < SOON, "{weather:?}: it does not heal");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn every_cut_of_an_answer_is_an_error_or_made_good() {
    let Some(emulator) = Emulator::start() else { return };
    let proxy = Proxy::new(emulator.address);
    let deadline = Duration::from_secs(3);
    let stores = stacks::bigtable(BigtableOptions { deadline, ..options(proxy.address) });
    let expected: Vec<_> = (0..600).map(path_info).collect();
    for info in &expected {
        stores.path_infos.put(info.clone()).await.expect("it works");
    }
    for cut_after in [0, 1, 9, 100, 1000, 10_000, 50_000, 80_000] {
        proxy.cut_after(cut_after);
        let listed = stores.path_infos.list().try_collect::<Vec<_>>().await;
        assert_eq!(listed.expect("a cut is made good"), expected, "after {cut_after} bytes");
    }
}
