//! Sizes, as people write them.

/// A number of bytes: digits, then nothing or one of the units of 1024, as in `64M`, `64MB` or `64MiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: &str = "KMGT";
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let mut rest = unit.trim_start().chars();
    let shift = match rest.next() {
        None => Some(0),
        Some(first) => {
            let place = UNITS.find(first.to_ascii_uppercase());
            place
                .map(|place| 10 * (place as u32 + 1))
                .filter(|_| matches!(rest.as_str(), "" | "B" | "iB"))
        }
    };
    let bytes = digits.parse::<u64>().ok().zip(shift);
    bytes.and_then(|(number, shift)| number.checked_mul(1 << shift)).ok_or_else(|| {
        "expected a number of bytes, or one with K, M, G or T, like 64GiB".to_owned()
    })
}

/// A smaller cache would hold hardly more than its own database.
const CACHE_SIZE_MIN: u64 = 16 << 20;

/// How much a cache may take of the disk, in bytes.
pub fn parse_cache_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        bytes if bytes < CACHE_SIZE_MIN => Err("a cache needs 16 MiB at least".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Up to how many bytes a blob is fetched whole.
pub fn parse_whole_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        bytes if bytes > crate::service::blob::SMALL_BLOB_LEN_MAX as u64 => {
            Err("at most 1M fits one request".to_owned())
        }
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_understood() {
        for (text, bytes) in [
            ("16777216", 16 << 20),
            ("16M", 16 << 20),
            ("16 MiB", 16 << 20),
            ("3g", 3 << 30),
            ("2TB", 2 << 40),
            ("20000KiB", 20_000 << 10),
        ] {
            assert_eq!(parse_cache_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "16Mib", "16MiBs", "16X", "99999999T", "16\u{b5}"] {
            let error = parse_cache_size(text).expect_err(text);
            assert!(error.contains("expected a number"), "{text}: {error}");
        }
        assert!(parse_cache_size("15M").expect_err("small").contains("16 MiB"));
        assert_eq!((parse_whole_size("0"), parse_whole_size("1M")), (Ok(0), Ok(1 << 20)));
        assert!(parse_whole_size("1025K").expect_err("long").contains("at most 1M"));
    }
}
