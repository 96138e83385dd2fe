//! Which part of a file is wanted.

use std::ops::Range;

/// What a `Range` header means for a file of `size` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: also if the header is none, of another unit, or asks for several ranges.
    All,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Only bytes that it has not.
    Nothing,
}

/// Reads a `Range` header, as in `bytes=0-99`, `bytes=100-` or `bytes=-100`.
pub(super) fn parse_range(header: &str, size: u64) -> Wanted {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|set| set.split_once('-'))
    else {
        return Wanted::All;
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else { return Wanted::All };
    let range = match (first, last) {
        (None, None) => return Wanted::All,
        (Some(first), Some(last)) if last < first => return Wanted::All,
        (Some(first), last) => first..last.map_or(size, |last| last.saturating_add(1).min(size)),
        (None, Some(len)) => size.saturating_sub(len)..size,
    };
    match range.is_empty() {
        true => Wanted::Nothing,
        false => Wanted::Part(range),
    }
}

/// Nothing, or a number, of which all beyond 64 bits are the same. `None` for what is no number.
fn number(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true if text.is_empty() => Some(None),
        true => Some(Some(text.parse().unwrap_or(u64::MAX))),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        for (header, wanted) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-5", Wanted::Part(2..6)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes= 2 - 5 ", Wanted::Part(2..6)),
            ("bytes=2-99", Wanted::Part(2..10)),
            ("bytes=9-18446744073709551615", Wanted::Part(9..10)),
            ("bytes=9-99999999999999999999", Wanted::Part(9..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-99", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=99999999999999999999-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
        ] {
            assert_eq!(parse_range(header, 10), wanted, "{header}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Wanted::Nothing);
    }

    #[test]
    fn all_else_means_all() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=0-1,3-4",
            "lines=0-1",
        ] {
            assert_eq!(parse_range(header, 10), Wanted::All, "{header}");
        }
    }
}
