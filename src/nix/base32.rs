//! Nix's base 32.
//!
//! The bytes are one little-endian number, written with the highest digit first. Where the bits do not fill the
//! digits, the first digit has bits to spare, which must be zero: so every run of bytes has exactly one spelling.

/// The digits, lowest first. `e`, `o`, `t` and `u` are missing.
pub const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Stands in [`DIGITS`] for a byte that is no digit.
const NO_DIGIT: u8 = 0xff;

/// The value of each byte as a digit.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        digits[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// Why text is not base 32.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Base32Error {
    /// Too few or too many digits.
    #[error("expected {expected} digits of base 32, not {got}")]
    Length {
        /// How many digits the bytes take.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A byte that is no digit.
    #[error("\"{}\" at position {at} is no digit of base 32", .byte.escape_ascii())]
    Digit {
        /// The byte.
        byte: u8,
        /// Its position in the text.
        at: usize,
    },
    /// The first digit has bits that belong to no byte.
    #[error("the first digit of base 32 is too large for the length")]
    Padding,
}

/// How many digits `len` bytes take.
pub const fn encoded_len(len: usize) -> usize {
    (len * 8).div_ceil(5)
}

/// Writes `bytes` in base 32.
pub fn encode(bytes: &[u8]) -> String {
    (0..encoded_len(bytes.len()))
        .rev()
        .map(|digit| {
            let (at, shift) = (digit * 5 / 8, digit * 5 % 8);
            let high = bytes.get(at + 1).copied().unwrap_or(0);
            let window = u16::from_le_bytes([bytes[at], high]);
            char::from(ALPHABET[usize::from(window >> shift) & 0x1f])
        })
        .collect()
}

/// Reads base 32 into `out`, whose length says how many digits are expected. `out` is garbage after an error.
pub fn decode_into(text: &[u8], out: &mut [u8]) -> Result<(), Base32Error> {
    let expected = encoded_len(out.len());
    if text.len() != expected {
        return Err(Base32Error::Length { expected, got: text.len() });
    }
    out.fill(0);
    for (digit, (at, &byte)) in text.iter().enumerate().rev().enumerate() {
        let value = DIGITS[usize::from(byte)];
        if value == NO_DIGIT {
            return Err(Base32Error::Digit { byte, at });
        }
        let (at, shift) = (digit * 5 / 8, digit * 5 % 8);
        let [low, high] = (u16::from(value) << shift).to_le_bytes();
        out[at] |= low;
        match out.get_mut(at + 1) {
            Some(next) => *next |= high,
            None if high != 0 => return Err(Base32Error::Padding),
            None => {}
        }
    }
    Ok(())
}

/// Reads `N` bytes written in base 32.
pub fn decode<const N: usize>(text: &[u8]) -> Result<[u8; N], Base32Error> {
    let mut out = [0; N];
    decode_into(text, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_hashes_are_spelled_as_nix_hash_does() {
        for (hex, text) in [
            ("", ""),
            ("b1946ac92492d2347c6235b4d2611184", "4425hx5d1mc9y39llj4k4nm55i"),
            ("f572d396fae9206628714fb2ce00f72e94f2258f", "iwjz551fyw0cxcjgf4l6c879zabd6wpm"),
            (
                "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
                "00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq",
            ),
        ] {
            let bytes = HEXLOWER.decode(hex.as_bytes()).expect("hex");
            assert_eq!(encode(&bytes), text);
            let mut out = vec![1; bytes.len()];
            assert_eq!(decode_into(text.as_bytes(), &mut out), Ok(()));
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn each_other_spelling_has_its_error() {
        assert_eq!(decode::<1>(b"0"), Err(Base32Error::Length { expected: 2, got: 1 }));
        assert_eq!(decode::<1>(b"000"), Err(Base32Error::Length { expected: 2, got: 3 }));
        for byte in *b"eotuA-\xff" {
            assert_eq!(decode::<1>(&[b'0', byte]), Err(Base32Error::Digit { byte, at: 1 }));
        }
        assert_eq!(decode::<1>(b"7z"), Ok([0xff]));
        assert_eq!(decode::<1>(b"80"), Err(Base32Error::Padding));
        assert_eq!(decode::<32>(&[b'z'; 52]), Err(Base32Error::Padding));
        assert_eq!(decode::<20>(&[b'z'; 32]), Ok([0xff; 20]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut out = vec![0; bytes.len()];
            prop_assert_eq!(decode_into(encode(&bytes).as_bytes(), &mut out), Ok(()));
            prop_assert_eq!(out, bytes);
        }

        #[test]
        fn every_value_has_one_spelling(text in "[0-9a-z]{26}") {
            if let Ok(bytes) = decode::<16>(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
