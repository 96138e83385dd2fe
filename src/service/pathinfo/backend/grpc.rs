//! Path infos of a peer.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    castore::Node,
    nix::{NarHash, PathInfo, StorePathDigest},
    proto::{castore as castore_wire, store as wire},
    service::{
        Error, Result,
        grpc::{
            GrpcChannel, Opened,
            method::{CALCULATE_NAR, PATH_INFO_GET, PATH_INFO_LIST, PATH_INFO_PUT},
        },
        pathinfo::{NarCalculation, PathInfoService, PathInfoStream, layer::check_path},
    },
};

/// Reads and writes the path infos of the peer at the other end of a channel, and lets it calculate archive hashes.
///
/// That an answer is for the path that was asked for is verified; its signatures are not. Peers of the older kinds
/// refuse a path info without a narinfo.
#[derive(Debug, Clone)]
pub struct GrpcPathInfos {
    channel: GrpcChannel,
}

impl GrpcPathInfos {
    /// The path infos of the peer.
    pub fn new(channel: GrpcChannel) -> Self {
        GrpcPathInfos { channel }
    }

    fn read(&self, message: wire::PathInfo) -> Result<PathInfo> {
        PathInfo::try_from(message).map_err(|error| Error::corrupt(self.channel.endpoint(), error))
    }

    async fn get_once(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        let hash = Bytes::copy_from_slice(digest.as_bytes());
        let by_what = Some(wire::get_path_info_request::ByWhat::ByOutputHash(hash));
        let request = wire::GetPathInfoRequest { by_what };
        match self.channel.unary(&PATH_INFO_GET, request).await? {
            Some(message) => {
                check_path(self.channel.endpoint(), digest, self.read(message)?).map(Some)
            }
            None => Ok(None),
        }
    }

    fn not_found(&self, what: &str) -> Error {
        let what = format!("the peer finds no {what}, although it was sent along");
        Error::unavailable(self.channel.endpoint(), what)
    }
}

#[async_trait]
impl PathInfoService for GrpcPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        self.channel.asking_others(|| self.get_once(digest)).await
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        // The wire form cannot say all that is wrong.
        path_info.check().map_err(Error::invalid)?;
        let message = wire::PathInfo::from(&path_info);
        let stored = self.channel.unary(&PATH_INFO_PUT, message).await?;
        let stored = stored.ok_or_else(|| self.not_found("path info"))?;
        check_path(self.channel.endpoint(), &path_info.store_path.digest(), self.read(stored)?)
    }

    fn list(&self) -> PathInfoStream {
        let this = self.clone();
        let opened = async move {
            let request = wire::ListPathInfoRequest {};
            let messages = match this.channel.download(&PATH_INFO_LIST, request).await? {
                Opened::NotFound | Opened::Empty => stream::empty().boxed(),
                Opened::Messages(messages) => messages,
            };
            Ok(messages.map(move |message| this.read(message?)))
        };
        Box::pin(stream::once(opened).try_flatten())
    }
}

#[async_trait]
impl NarCalculation for GrpcPathInfos {
    async fn calculate_nar(&self, node: &Node) -> Result<NarHash> {
        // Some peers want the name empty.
        let message = castore_wire::Node::from(node);
        let answer = self.channel.unary(&CALCULATE_NAR, message).await?;
        let answer: wire::CalculateNarResponse = answer.ok_or_else(|| {
            let what = "the contents whose archive hash is asked for are not there";
            Error::invalid(what)
        })?;
        let sha256 = answer.nar_sha256[..].try_into().map_err(|_| {
            let len = answer.nar_sha256.len();
            let what = format!("an archive hash of {len} bytes instead of 32");
            Error::corrupt(self.channel.endpoint(), what)
        })?;
        Ok(NarHash { size: answer.nar_size, sha256 })
    }
}
