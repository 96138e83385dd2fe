//! Where an object lies.

use data_encoding::HEXLOWER;
use object_store::path::Path;

use crate::nix::{StorePathDigest, base32};

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A chunk, by its digest.
    Chunk,
    /// The chunks of a blob, by its digest.
    Blob,
    /// The closure of a directory, by its digest.
    Directory,
    /// A path info, by the digest of its store path.
    PathInfo,
}

impl Kind {
    /// Where all of its objects are.
    pub(super) fn folder(self, prefix: &Path) -> Path {
        let prefix = prefix.clone();
        match self {
            Kind::Chunk => prefix.join("chunks").join("b3"),
            Kind::Blob => prefix.join("blobs").join("b3"),
            Kind::Directory => prefix.join("dirs").join("b3"),
            Kind::PathInfo => prefix.join("pathinfos"),
        }
    }

    /// Where that with `key` is: 32 bytes of a digest, or 20 of a store path.
    pub(super) fn path(self, prefix: &Path, key: &[u8]) -> Path {
        let (name, shard_len) = match self {
            Kind::Chunk | Kind::Blob | Kind::Directory => (HEXLOWER.encode(key), 4),
            Kind::PathInfo => (base32::encode(key), 2),
        };
        self.folder(prefix).join(&name[..shard_len]).join(&*name)
    }
}

/// The store path whose path info lies at `path`. `None` if no path info of ours can lie there.
pub fn path_info_digest(path: &Path) -> Option<StorePathDigest> {
    let mut parts = path.as_ref().rsplit('/');
    let (name, shard) = (parts.next()?, parts.next()?);
    let digest = name.parse().ok()?;
    name.starts_with(shard).then_some(digest).filter(|_| shard.len() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::castore::Digest;

    #[test]
    fn objects_lie_where_others_look_for_them() {
        let hex = "41f8394111eb713a22165c46c90ab8f0fd9399c92028fd6d288944b23ff5bf76";
        let digest: Digest = hex.parse().expect("a digest");
        let prefix = Path::parse("some/where").expect("legal");
        for (kind, name) in
            [(Kind::Chunk, "chunks"), (Kind::Blob, "blobs"), (Kind::Directory, "dirs")]
        {
            let path = kind.path(&prefix, digest.as_bytes());
            assert_eq!(path.as_ref(), format!("some/where/{name}/b3/41f8/{hex}"));
            let path = kind.path(&Path::default(), digest.as_bytes());
            assert_eq!(path.as_ref(), format!("{name}/b3/41f8/{hex}"));
        }
    }

    #[test]
    fn a_path_info_is_found_and_its_path_understood() {
        let digest = StorePathDigest::from([7; 20]);
        let path = Kind::PathInfo.path(&Path::default(), digest.as_bytes());
        let name = base32::encode(digest.as_bytes());
        assert_eq!(path.as_ref(), format!("pathinfos/{}/{name}", &name[..2]));
        assert_eq!(path_info_digest(&path), Some(digest));
        for foreign in ["pathinfos/readme", "pathinfos/00/readme", &format!("pathinfos/zz/{name}")]
        {
            assert_eq!(path_info_digest(&Path::parse(foreign).expect("legal")), None, "{foreign}");
        }
    }
}
