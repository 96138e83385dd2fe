//! Path infos.

use bytes::Bytes;

use super::castore::{NodeMessageError, named_node, node_name};
use crate::{
    castore::Node,
    nix::{
        Ca, DERIVATION_SUFFIX, Details, HashAlgorithm, HashError, NarHash, NarInfo, NixHash,
        PathInfo, Signature, SignatureError, StorePath, StorePathDigest, StorePathDigestError,
        StorePathError, StorePathNameError, check_store_path_name, derivation_stem,
    },
    proto::store::{self as proto, nar_info::ca::Hash as CaType},
};

/// Why a message is no path info.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathInfoMessageError {
    /// There is no node.
    #[error("the path info has no node")]
    NoNode,
    /// The node is illegal.
    #[error("illegal root node of a path info: {0}")]
    Node(#[from] NodeMessageError),
    /// The name of the node is no store path.
    #[error("the name of the root node is no store path: {0}")]
    NodeName(#[source] StorePathError),
    /// A reference has the wrong length.
    #[error("wrong reference {index}: {source}")]
    Reference {
        /// Its place in the list.
        index: usize,
        /// What is wrong.
        source: StorePathDigestError,
    },
    /// Not as many names of references as references.
    #[error("{references} references, but {names} names of references")]
    ReferenceCount {
        /// How many references there are.
        references: usize,
        /// How many names.
        names: usize,
    },
    /// The name of a reference is no store path.
    #[error("the name of reference {index} is no store path: {source}")]
    ReferenceName {
        /// Its place in the list.
        index: usize,
        /// What is wrong.
        source: StorePathError,
    },
    /// The name of a reference has another digest than the reference.
    #[error("reference {index} is {digest}, but its name is {name}")]
    ReferenceDigest {
        /// Its place in the list.
        index: usize,
        /// The reference.
        digest: StorePathDigest,
        /// Its name.
        name: StorePath,
    },
    /// The hash of the archive is not 32 bytes.
    #[error("the SHA-256 of the archive has {0} bytes instead of 32")]
    NarHash(usize),
    /// A signature is illegal.
    #[error("illegal signature {index}: {source}")]
    Signature {
        /// Its place in the list.
        index: usize,
        /// What is wrong.
        source: SignatureError,
    },
    /// The digest of the deriver has the wrong length.
    #[error("the deriver is no store path: {0}")]
    DeriverDigest(#[source] StorePathDigestError),
    /// The name of the deriver is illegal.
    #[error("the deriver is no store path: {0}")]
    DeriverName(#[source] StorePathNameError),
    /// A type of content address that the protocol does not know.
    #[error("content addresses of type {0} are unknown")]
    CaType(i32),
    /// The digest of the content address does not fit its type.
    #[error("wrong digest of the content address: {0}")]
    CaDigest(#[source] HashError),
}

impl TryFrom<proto::PathInfo> for PathInfo {
    type Error = PathInfoMessageError;

    fn try_from(message: proto::PathInfo) -> Result<Self, PathInfoMessageError> {
        let node = message.node.ok_or(PathInfoMessageError::NoNode)?;
        let name = node_name(&node).ok_or(NodeMessageError::Missing)?;
        let store_path = StorePath::from_base_name(name).map_err(PathInfoMessageError::NodeName)?;
        let node = Node::try_from(node)?;
        let references: Vec<_> = message
            .references
            .iter()
            .enumerate()
            .map(|(index, digest)| {
                StorePathDigest::try_from(&digest[..])
                    .map_err(|source| PathInfoMessageError::Reference { index, source })
            })
            .collect::<Result<_, _>>()?;
        let details = match message.narinfo {
            None => Details::References(references),
            Some(nar_info) => Details::NarInfo(read_nar_info(nar_info, &references)?),
        };
        Ok(PathInfo { store_path, node, details })
    }
}

fn read_nar_info(
    message: proto::NarInfo,
    references: &[StorePathDigest],
) -> Result<NarInfo, PathInfoMessageError> {
    let sha256 = message.nar_sha256[..]
        .try_into()
        .map_err(|_| PathInfoMessageError::NarHash(message.nar_sha256.len()))?;
    let read_signature = |(index, signature): (usize, &proto::nar_info::Signature)| {
        Signature::new(&signature.name, &signature.data)
            .map_err(|source| PathInfoMessageError::Signature { index, source })
    };
    Ok(NarInfo {
        nar: NarHash { size: message.nar_size, sha256 },
        references: read_references(&message.reference_names, references)?,
        signatures: message
            .signatures
            .iter()
            .enumerate()
            .map(read_signature)
            .collect::<Result<_, _>>()?,
        deriver: message.deriver.map(read_deriver).transpose()?,
        ca: message.ca.map(read_ca).transpose()?,
    })
}

fn read_references(
    names: &[String],
    digests: &[StorePathDigest],
) -> Result<Vec<StorePath>, PathInfoMessageError> {
    if names.len() != digests.len() {
        return Err(PathInfoMessageError::ReferenceCount {
            references: digests.len(),
            names: names.len(),
        });
    }
    let read = |(index, (name, &digest)): (usize, (&String, &StorePathDigest))| {
        let name = StorePath::from_base_name(name.as_bytes())
            .map_err(|source| PathInfoMessageError::ReferenceName { index, source })?;
        if name.digest() == digest {
            Ok(name)
        } else {
            Err(PathInfoMessageError::ReferenceDigest { index, digest, name })
        }
    };
    names.iter().zip(digests).enumerate().map(read).collect()
}

/// Puts the suffix back that the wire leaves out.
fn read_deriver(message: proto::StorePath) -> Result<StorePath, PathInfoMessageError> {
    let digest = StorePathDigest::try_from(&message.digest[..])
        .map_err(PathInfoMessageError::DeriverDigest)?;
    // Checked without the suffix too, which would make a legal name even of an empty one.
    check_store_path_name(message.name.as_bytes())
        .and_then(|name| StorePath::new(digest, &format!("{name}{DERIVATION_SUFFIX}")))
        .map_err(PathInfoMessageError::DeriverName)
}

fn read_ca(message: proto::nar_info::Ca) -> Result<Ca, PathInfoMessageError> {
    let hash = |algorithm| {
        NixHash::new(algorithm, &message.digest).map_err(PathInfoMessageError::CaDigest)
    };
    let ca_type = CaType::try_from(message.r#type)
        .map_err(|_| PathInfoMessageError::CaType(message.r#type))?;
    match ca_type {
        CaType::NarMd5 => hash(HashAlgorithm::Md5).map(Ca::Nar),
        CaType::NarSha1 => hash(HashAlgorithm::Sha1).map(Ca::Nar),
        CaType::NarSha256 => hash(HashAlgorithm::Sha256).map(Ca::Nar),
        CaType::NarSha512 => hash(HashAlgorithm::Sha512).map(Ca::Nar),
        CaType::FlatMd5 => hash(HashAlgorithm::Md5).map(Ca::Flat),
        CaType::FlatSha1 => hash(HashAlgorithm::Sha1).map(Ca::Flat),
        CaType::FlatSha256 => hash(HashAlgorithm::Sha256).map(Ca::Flat),
        CaType::FlatSha512 => hash(HashAlgorithm::Sha512).map(Ca::Flat),
        CaType::TextSha256 => message.digest[..].try_into().map(Ca::Text).map_err(|_| {
            PathInfoMessageError::CaDigest(HashError::Length {
                algorithm: HashAlgorithm::Sha256,
                len: message.digest.len(),
            })
        }),
    }
}

impl From<&PathInfo> for proto::PathInfo {
    /// A deriver that is no derivation, which [`PathInfo::check`] refuses, is left out: whoever reads the message
    /// would take it for another path.
    fn from(path_info: &PathInfo) -> Self {
        proto::PathInfo {
            node: Some(named_node(path_info.store_path.to_string().into(), &path_info.node)),
            references: path_info
                .references()
                .map(|digest| Bytes::copy_from_slice(digest.as_bytes()))
                .collect(),
            narinfo: path_info.nar_info().map(write_nar_info),
        }
    }
}

fn write_nar_info(nar_info: &NarInfo) -> proto::NarInfo {
    let write_signature = |signature: &Signature| proto::nar_info::Signature {
        name: signature.key_name().to_owned(),
        data: Bytes::copy_from_slice(signature.as_bytes()),
    };
    let write_deriver = |deriver: &StorePath| {
        derivation_stem(deriver).map(|name| proto::StorePath {
            name: name.to_owned(),
            digest: Bytes::copy_from_slice(deriver.digest().as_bytes()),
        })
    };
    proto::NarInfo {
        nar_size: nar_info.nar.size,
        nar_sha256: Bytes::copy_from_slice(&nar_info.nar.sha256),
        signatures: nar_info.signatures.iter().map(write_signature).collect(),
        reference_names: nar_info.references.iter().map(StorePath::to_string).collect(),
        deriver: nar_info.deriver.as_ref().and_then(write_deriver),
        ca: nar_info.ca.as_ref().map(write_ca),
    }
}

fn write_ca(ca: &Ca) -> proto::nar_info::Ca {
    let ca_type = match ca {
        Ca::Text(_) => CaType::TextSha256,
        Ca::Flat(NixHash::Md5(_)) => CaType::FlatMd5,
        Ca::Flat(NixHash::Sha1(_)) => CaType::FlatSha1,
        Ca::Flat(NixHash::Sha256(_)) => CaType::FlatSha256,
        Ca::Flat(NixHash::Sha512(_)) => CaType::FlatSha512,
        Ca::Nar(NixHash::Md5(_)) => CaType::NarMd5,
        Ca::Nar(NixHash::Sha1(_)) => CaType::NarSha1,
        Ca::Nar(NixHash::Sha256(_)) => CaType::NarSha256,
        Ca::Nar(NixHash::Sha512(_)) => CaType::NarSha512,
    };
    proto::nar_info::Ca {
        r#type: ca_type.into(),
        digest: Bytes::copy_from_slice(ca.hash().as_bytes()),
    }
}

#[cfg(test)]
#[path = "path_info_tests.rs"]
mod tests;
