//! Compiles `protos/` without needing `protoc`.
//!
//! Both dialects carry the same bytes, so the messages are generated once, from the `tvix` files, and the `snix`
//! services are generated over those same Rust types.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

/// Message names in the `tvix.castore.v1` package, and what the `snix.castore.v1` package calls them.
const CASTORE_MESSAGES: [(&str, &str); 12] = [
    ("Directory", "Directory"),
    ("DirectoryNode", "DirectoryEntry"),
    ("FileNode", "FileEntry"),
    ("SymlinkNode", "SymlinkEntry"),
    ("Node", "Entry"),
    ("StatBlobRequest", "StatBlobRequest"),
    ("StatBlobResponse", "StatBlobResponse"),
    ("ReadBlobRequest", "ReadBlobRequest"),
    ("BlobChunk", "BlobChunk"),
    ("PutBlobResponse", "PutBlobResponse"),
    ("GetDirectoryRequest", "GetDirectoryRequest"),
    ("PutDirectoryResponse", "PutDirectoryResponse"),
];

/// Message names in the two `store.v1` packages, and what Rust calls them.
const STORE_MESSAGES: [(&str, &str); 6] = [
    ("PathInfo", "PathInfo"),
    ("StorePath", "StorePath"),
    ("NARInfo", "NarInfo"),
    ("GetPathInfoRequest", "GetPathInfoRequest"),
    ("ListPathInfoRequest", "ListPathInfoRequest"),
    ("CalculateNARResponse", "CalculateNarResponse"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=protos");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let files = |dialect: &str| {
        [
            format!("{dialect}/castore/v1/rpc_blobstore.proto"),
            format!("{dialect}/castore/v1/rpc_directory.proto"),
            format!("{dialect}/store/v1/rpc_pathinfo.proto"),
        ]
    };

    let tvix = protox::compile(files("tvix"), ["protos"])?;
    let snix = protox::compile(files("snix"), ["protos"])?;
    let own = protox::compile(["lazystore/v1/rpc_blobrange.proto"], ["protos"])?;
    fs::write(out.join("lazystore.descriptors"), own.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(own)?;
    fs::write(out.join("tvix.descriptors"), tvix.encode_to_vec())?;
    fs::write(out.join("snix.descriptors"), snix.encode_to_vec())?;

    tonic_prost_build::configure().bytes(".").compile_fds(tvix)?;

    let mut builder = tonic_prost_build::configure().bytes(".");
    for (rust, message) in CASTORE_MESSAGES {
        builder = builder.extern_path(
            format!(".snix.castore.v1.{message}"),
            format!("crate::proto::castore::{rust}"),
        );
    }
    for (message, rust) in STORE_MESSAGES {
        builder = builder.extern_path(
            format!(".snix.store.v1.{message}"),
            format!("crate::proto::store::{rust}"),
        );
    }
    builder.compile_fds(snix)?;
    Ok(())
}
