//! What a binary cache says of itself: its `nix-cache-info`.

use crate::nix::STORE_DIR;

/// Where it lies in a cache.
pub(super) const CACHE_INFO_NAME: &str = "nix-cache-info";

/// The longest that is read, in bytes.
pub(super) const CACHE_INFO_LEN_MAX: usize = 64 << 10;

/// What Nix takes for the priority of a cache that names none.
const PRIORITY_DEFAULT: u32 = 50;

/// What a cache says of itself. Unknown fields are read over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheInfo {
    /// Caches with lower numbers are asked first.
    pub priority: u32,
    /// Whether it likes to be asked for many paths that it may not have.
    pub want_mass_query: bool,
}

/// Why text is no `nix-cache-info` of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheInfoError {
    /// Bytes that are no text.
    #[error("its nix-cache-info is not UTF-8")]
    NotUtf8,
    /// A line without a colon.
    #[error("line {0} of its nix-cache-info is no <field>: <value>")]
    NoField(usize),
    /// A field that stands twice.
    #[error("its nix-cache-info has the field {0} twice")]
    Duplicate(&'static str),
    /// It is for another directory than ours.
    #[error("its paths are in {0:?}, not in {STORE_DIR}: they cannot be used here")]
    StoreDir(String),
    /// A number that is none.
    #[error("its nix-cache-info says {field}: {value:?}, which is no number that fits there")]
    Number {
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
    },
}

impl CacheInfo {
    /// Reads a `nix-cache-info`.
    pub fn parse(text: &[u8]) -> Result<Self, CacheInfoError> {
        let text = std::str::from_utf8(text).map_err(|_| CacheInfoError::NotUtf8)?;
        let (mut store_dir, mut priority, mut mass_query) = (None, None, None);
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let (field, value) = line.split_once(':').ok_or(CacheInfoError::NoField(number + 1))?;
            let (name, slot) = match field.trim() {
                "StoreDir" => ("StoreDir", &mut store_dir),
                "Priority" => ("Priority", &mut priority),
                "WantMassQuery" => ("WantMassQuery", &mut mass_query),
                _ => continue,
            };
            if slot.replace(value.trim()).is_some() {
                return Err(CacheInfoError::Duplicate(name));
            }
        }
        match store_dir {
            None | Some(STORE_DIR) => {}
            Some(other) => return Err(CacheInfoError::StoreDir(other.to_owned())),
        }
        let number = |field, value: Option<&str>, default| match value {
            None => Ok(default),
            Some(value) => value
                .parse::<u32>()
                .map_err(|_| CacheInfoError::Number { field, value: value.to_owned() }),
        };
        Ok(CacheInfo {
            priority: number("Priority", priority, PRIORITY_DEFAULT)?,
            want_mass_query: number("WantMassQuery", mass_query, 0)? != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nix_writes_is_read() {
        let text = b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n";
        let info = CacheInfo { priority: 30, want_mass_query: true };
        assert_eq!(CacheInfo::parse(text), Ok(info));
        let info = CacheInfo { priority: 50, want_mass_query: false };
        for text in ["", "StoreDir: /nix/store", "Colour: red\n\nStoreDir:/nix/store\r\n"] {
            assert_eq!(CacheInfo::parse(text.as_bytes()), Ok(info), "{text:?}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        let number = |field, value: &str| CacheInfoError::Number { field, value: value.to_owned() };
        for (text, error) in [
            (&b"\xff: 1"[..], CacheInfoError::NotUtf8),
            (b"StoreDir: /nix/store\nhm", CacheInfoError::NoField(2)),
            (b"StoreDir: /gnu/store", CacheInfoError::StoreDir("/gnu/store".to_owned())),
            (b"StoreDir: /nix/store/", CacheInfoError::StoreDir("/nix/store/".to_owned())),
            (b"Priority: 1\nPriority: 1", CacheInfoError::Duplicate("Priority")),
            (b"Priority: -1", number("Priority", "-1")),
            (b"Priority: 99999999999", number("Priority", "99999999999")),
            (b"WantMassQuery: yes", number("WantMassQuery", "yes")),
        ] {
            assert_eq!(CacheInfo::parse(text), Err(error));
        }
    }
}
