//! Binary caches that lie or are damaged: each is refused with its own error, and nothing of it is visible afterwards.

use lazystore::nix::Compression;

use crate::{
    made_cache::{Made, compress, file_archive, key, words},
    refusing::{Fixture, tree},
    web::Trouble,
};

#[test]
fn damaged_files_are_refused() {
    let mut fixture = Fixture::new();
    for compression in Compression::ALL {
        let new = |name: &str, number: usize| {
            Made::new(&format!("{compression}-{name}"), &tree(number), compression)
        };
        let uncompressed = compression == Compression::None;
        for part in 0..8 {
            let mut made = new(&format!("flipped-{part}"), part);
            let at = made.file.len() * part / 8;
            made.file[at] ^= 0x10;
            let what = format!("{compression}: flipped at {at}");
            fixture.refuses_made(&what, &made, &["nar/", &made.told.store_path.to_string()]);
            // Without a hash of the file something else finds out.
            let made = Made { told: made.told, file: made.file }.without_file_hash();
            // A flag of gzip's that nobody needs, and its time, may be anything.
            if compression == Compression::Gzip && part == 0 {
                continue;
            }
            fixture.refuses_made(&what, &made, &["the archive of "]);
        }
        for part in [0, 1, 3, 7] {
            let mut made = new(&format!("cut-{part}"), 10 + part);
            made.file.truncate(made.file.len() * part / 8);
            let what = format!("{compression}: cut off at {part}/8");
            let made = made.without_file_hash();
            fixture.refuses_made(&what, &made, &["the archive of "]);
        }
        let mut made = new("followed", 20).without_file_hash();
        made.file.extend_from_slice(b"garbage");
        fixture.refuses_made(&format!("{compression}: followed"), &made, &["the archive of "]);

        let made = new("missing", 21);
        fixture.server.put(&made.narinfo_name(), made.told.to_string());
        let digest = made.told.store_path.digest();
        fixture.refuses(&format!("{compression}: missing"), &digest, &["is not there"]);

        if !uncompressed {
            let mut made = new("hash", 22);
            made.told.archive.sha256 = Some([9; 32]);
            fixture.refuses_made(&format!("{compression}: FileHash"), &made, &["not the FileHash"]);
            for (name, change) in [("longer", 1), ("shorter", -1)] {
                let mut made = new(name, 23);
                made.told.archive.sha256 = None;
                made.told.archive.size =
                    made.told.archive.size.and_then(|size| size.checked_add_signed(change));
                fixture.refuses_made(
                    &format!("{compression}: {name}"),
                    &made,
                    &["where FileSize is"],
                );
            }
        } else {
            let mut made = new("hash", 22);
            made.told.archive.sha256 = Some([9; 32]);
            fixture.refuses_made("FileHash of what is not compressed", &made, &["is not that of"]);
        }
        // Another archive than was signed.
        let other = new("other", 24);
        let made = Made { file: compress(compression, &tree(25)), ..other }.without_file_hash();
        fixture.refuses_made(&format!("{compression}: another"), &made, &["the archive"]);
        let mut same_len = tree(26);
        let len = same_len.len();
        let signed = Made::new(&format!("{compression}-same"), &same_len, compression);
        same_len[len / 2] ^= 1;
        let made = Made { file: compress(compression, &same_len), ..signed }.without_file_hash();
        fixture.refuses_made(
            &format!("{compression}: other bytes"),
            &made,
            &["the archive has", "not"],
        );
        for (name, claimed) in
            [("nar-size-more", len as u64 + 8), ("nar-size-less", len as u64 - 8)]
        {
            let mut made = new(name, 26).without_file_hash();
            made.told.info.nar.size = claimed;
            made.sign(&key());
            fixture.refuses_made(&format!("{compression}: {name}"), &made, &["the archive"]);
        }
    }
    fixture.nothing_is_visible(200);
}

/// Archives that no Nix writes, each with what is wrong with it.
fn illegal_archives() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let one = |name: &[u8]| {
        words(&[
            b"nix-archive-1",
            b"(",
            b"type",
            b"directory",
            b"entry",
            b"(",
            b"name",
            name,
            b"node",
            b"(",
            b"type",
            b"symlink",
            b"target",
            b"t",
            b")",
            b")",
            b")",
        ])
    };
    let two = |first: &[u8], second: &[u8]| {
        let link: [&[u8]; 7] = [b"node", b"(", b"type", b"symlink", b"target", b"t", b")"];
        let mut all: Vec<&[u8]> = vec![b"nix-archive-1", b"(", b"type", b"directory"];
        for name in [first, second] {
            all.extend([&b"entry"[..], b"(", b"name", name]);
            all.extend(link);
            all.push(b")");
        }
        all.push(b")");
        words(&all)
    };
    let deep = |levels: usize| {
        let mut all: Vec<&[u8]> = vec![b"nix-archive-1", b"(", b"type", b"directory"];
        for _ in 0..levels {
            all.extend([&b"entry"[..], b"(", b"name", b"d", b"node", b"(", b"type", b"directory"]);
        }
        for _ in 0..levels {
            all.extend([&b")"[..], b")"]);
        }
        all.push(b")");
        words(&all)
    };
    let long = |len: u64| {
        let mut archive = words(&[b"nix-archive-1", b"(", b"type", b"regular", b"contents"]);
        archive.extend_from_slice(&len.to_le_bytes());
        archive.extend_from_slice(&[0; 64]);
        archive
    };
    let mut padded = file_archive(b"abc");
    let at = padded.len() - 16 - 5;
    padded[at] = 1;
    vec![
        ("dotdot", one(b".."), "\"..\" is not a name"),
        ("dot", one(b"."), "\".\" is not a name"),
        ("slash", one(b"a/b"), "contains '/'"),
        ("nul", one(b"a\0b"), "contains '\\0'"),
        ("empty-name", one(b""), "must not be empty"),
        ("long-name", one(&[b'x'; 256]), "at most 255 bytes"),
        ("unsorted", two(b"b", b"a"), "out of order, or twice"),
        ("twice", two(b"a", b"a"), "out of order, or twice"),
        ("deep-65", deep(65), "more than 64 directories"),
        ("deep-10000", deep(10_000), "more than 64 directories"),
        ("long-63", long(1 << 63), "where the archive has at most"),
        ("long-64", long(u64::MAX), "where the archive has at most"),
        ("long-40", long(1 << 40), "where the archive has at most"),
        ("padding", padded, "not followed by zeros"),
        ("trailing", [file_archive(b"abc"), vec![0; 8]].concat(), "something follows"),
        ("magic", words(&[b"nix-archive-2", b"("]), "expected \"nix-archive-1\""),
        ("device", words(&[b"nix-archive-1", b"(", b"type", b"device"]), "expected \"regular\""),
        (
            "target",
            words(&[b"nix-archive-1", b"(", b"type", b"symlink", b"target", b"", b")"]),
            "must not be empty",
        ),
        ("ends", words(&[b"nix-archive-1", b"(", b"type", b"directory"]), "longer than 80 bytes"),
    ]
}

#[test]
fn archives_that_nix_would_not_write_are_refused_though_they_are_signed() {
    let mut fixture = Fixture::new();
    for compression in Compression::ALL {
        for (name, archive, reason) in illegal_archives() {
            let made = Made::new(&format!("{compression}-{name}"), &archive, compression);
            fixture.refuses_made(&format!("{compression}: {name}"), &made, &[reason]);
        }
    }
    fixture.nothing_is_visible(130);
}

#[test]
fn what_grows_without_end_costs_nothing() {
    let mut fixture = Fixture::new();
    // 1 GiB of zeros is some KiB.
    let zeros = vec![0; 64 << 20];
    let contents = file_archive(&zeros);
    for compression in [
        Compression::Zstd,
        Compression::Xz,
        Compression::Bzip2,
        Compression::Gzip,
        Compression::Lz4,
    ] {
        let bomb = compress(compression, &contents).repeat(if compression == Compression::Bzip2 {
            1
        } else {
            16
        });
        // It says that it is small.
        let mut made = Made::new(&format!("bomb-{compression}"), &file_archive(b"x"), compression);
        made.file = bomb.clone();
        let made = made.without_file_hash();
        fixture.refuses_made(&format!("{compression}: a bomb"), &made, &["the archive"]);
        // It says how large it is, and is something else behind that.
        let mut made = Made::new(&format!("tail-{compression}"), &contents, compression);
        made.file.extend_from_slice(&bomb);
        let made = made.without_file_hash();
        fixture.refuses_made(
            &format!("{compression}: a bomb behind it"),
            &made,
            &["something follows"],
        );
    }
    // Frames to be skipped, of which nothing comes, for ever.
    let skipped =
        [&[0x50, 0x2a, 0x4d, 0x18][..], &(1u32 << 16).to_le_bytes(), &[0; 1 << 16]].concat();
    let endless = [
        ("zstd", Compression::Zstd, skipped),
        ("gzip", Compression::Gzip, compress(Compression::Gzip, b"").repeat(1000)),
        ("xz", Compression::Xz, compress(Compression::Xz, b"").repeat(1000)),
        ("bzip2", Compression::Bzip2, compress(Compression::Bzip2, b"").repeat(1000)),
        ("none", Compression::None, vec![0; 1 << 16]),
    ];
    for (name, compression, piece) in endless {
        let mut made = Made::new(&format!("endless-{name}"), &file_archive(b"x"), compression);
        made.file = piece;
        let made = made.without_file_hash();
        fixture.server.trouble(made.told.archive.url.as_str(), Trouble::Endless);
        fixture.refuses_made(&format!("{name} without end"), &made, &["the archive of"]);
    }
    // Texts without end.
    let made = Made::new("endless-text", &file_archive(b"x"), Compression::None);
    fixture.server.put(&made.narinfo_name(), vec![b'x'; 1 << 16]);
    fixture.server.trouble(&made.narinfo_name(), Trouble::Endless);
    fixture.refuses("a text without end", &made.told.store_path.digest(), &["longer than"]);
    fixture.nothing_is_visible(16);
}
