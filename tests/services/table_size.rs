//! Many path infos in a table: they are listed in memory that does not grow with their number.

use bigtable_rs::google::bigtable::v2::{
    MutateRowsRequest, Mutation,
    mutate_rows_request::Entry,
    mutation::{Mutation as Kind, SetCell},
};
use futures::{StreamExt as _, TryStreamExt as _};
use lazystore::{
    nix::{Details, PathInfo, StorePath, StorePathDigest},
    proto,
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

#[tokio::test]
async fn many_path_infos_are_listed_in_flat_memory() {
    let Some(emulator) = Emulator::start() else { return };
    let rows = std::env::var("LAZYSTORE_TABLE_ROWS").ok().and_then(|rows| rows.parse().ok());
    let rows = rows.unwrap_or(ROWS);
    fill(&mut Vandal::new(&emulator), rows).await;
    let stores = stacks::bigtable(emulator.options());
    let mut list = stores.path_infos.list();
    let (mut count, mut before, mut most) = (0, 0, 0);
    let began = std::time::Instant::now();
    while let Some(info) = list.next().await {
        let info = info.expect("it lists");
        assert_eq!(hex(&info), hex(&path_info(count)), "in order, each once");
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
    eprintln!(
        "{rows} path infos in {:?}: {before} bytes resident, {growth} more at most",
        began.elapsed()
    );
    assert!(growth < GROWTH_BYTES_MAX, "{growth} bytes more");
}
