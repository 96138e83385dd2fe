//! Many path infos in a table and in a bucket: they are listed in memory that does not grow with their number.

use std::time::Instant;

use bigtable_rs::google::bigtable::v2::{
    MutateRowsRequest, Mutation,
    mutate_rows_request::Entry,
    mutation::{Mutation as Kind, SetCell},
};
use futures::{StreamExt as _, TryStreamExt as _};
use lazystore::{
    nix::{Details, PathInfo, StorePath, StorePathDigest},
    proto,
    service::Stores,
};
use prost::Message as _;

use crate::{
    bigtable::{Vandal, hex, path_info},
    bigtable_emulator::{Emulator, FAMILY, TABLE},
    stacks,
    support::resident,
};

/// How many path infos there are, unless `LAZYSTORE_TABLE_ROWS` says otherwise.
const ROWS: u32 = 20_000;
/// The same in a bucket, where each is an object.
const OBJECTS: u32 = 5_000;
/// How many references each has, which makes it some 2 kB long.
const REFERENCES: u32 = 32;
/// How much may be held while they are listed. All of them would be 40 MB as messages, and more as path infos.
const GROWTH_BYTES_MAX: usize = 24 << 20;

fn with_references(number: u32) -> PathInfo {
    let mut info = path_info(number);
    if let Details::NarInfo(narinfo) = &mut info.details {
        narinfo.references = (0..REFERENCES)
            .map(|reference| {
                let digest = StorePathDigest::from([reference as u8; 20]);
                StorePath::new(digest, "a-reference-of-usual-length-1.2.3").expect("legal")
            })
            .collect();
        narinfo.references.sort();
    }
    info
}

async fn fill(table: &mut Vandal, rows: u32) {
    for first in (0..rows).step_by(1000) {
        let entries = (first..rows.min(first + 1000)).map(|number| {
            let info = with_references(number);
            let cell = SetCell {
                family_name: FAMILY.to_owned(),
                column_qualifier: hex(&info).into(),
                timestamp_micros: 1000,
                value: proto::store::PathInfo::from(&info).encode_to_vec(),
            };
            let mutations = vec![Mutation { mutation: Some(Kind::SetCell(cell)) }];
            Entry { row_key: hex(&info).into(), mutations, ..Entry::default() }
        });
        let request = MutateRowsRequest {
            table_name: table.0.get_full_table_name(TABLE),
            entries: entries.collect(),
            ..MutateRowsRequest::default()
        };
        let answers = table.0.mutate_rows(request).await.expect("it is written");
        answers.try_collect::<Vec<_>>().await.expect("all are written");
    }
}

/// How many there are.
fn rows(default: u32) -> u32 {
    let rows = std::env::var("LAZYSTORE_TABLE_ROWS").ok().and_then(|rows| rows.parse().ok());
    rows.unwrap_or(default)
}

/// Lists them all, each exactly once, and looks at what that takes.
async fn list(on: &str, stores: &Stores, rows: u32) {
    let mut list = stores.path_infos.list();
    let (mut seen, mut count) = (vec![false; rows as usize], 0);
    let (mut before, mut most) = (0, 0);
    let began = Instant::now();
    while let Some(info) = list.next().await {
        let digest = info.expect("it lists").store_path.digest();
        let number = u32::from_be_bytes(digest.as_bytes()[..4].try_into().expect("four"));
        let was_seen = std::mem::replace(&mut seen[number as usize], true);
        assert!(!was_seen, "{number} is listed twice");
        count += 1;
        // What the first pages take is taken again by the others.
        if count == 1000 {
            before = resident(std::process::id());
        }
        if count % 500 == 0 {
            most = most.max(resident(std::process::id()));
        }
    }
    assert_eq!(count, rows);
    let growth = most.saturating_sub(before);
    let took = began.elapsed();
    eprintln!(
        "{on}: {rows} path infos in {took:?}; {before} bytes resident, {growth} more at most"
    );
    assert!(growth < GROWTH_BYTES_MAX, "{growth} bytes more");
}

#[tokio::test]
async fn many_path_infos_of_a_table_are_listed_in_flat_memory() {
    let Some(emulator) = Emulator::start() else { return };
    let rows = rows(ROWS);
    fill(&mut Vandal::new(&emulator), rows).await;
    list("Bigtable", &stacks::bigtable(emulator.options()), rows).await;
}

#[tokio::test]
async fn many_path_infos_of_a_bucket_are_listed_in_flat_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let (stores, rows) = (&stacks::file_bucket(&folder), rows(OBJECTS));
    futures::stream::iter(0..rows)
        .map(|number| async move { stores.path_infos.put(with_references(number)).await })
        .buffer_unordered(16)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .expect("they are put");
    list("bucket", stores, rows).await;
}
