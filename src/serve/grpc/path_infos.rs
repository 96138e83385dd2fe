//! The path info service.

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use prost::Message as _;
use tonic::{Request, Response, Status, async_trait, metadata::MetadataValue};

use crate::{
    castore::{Digest, Node},
    nix::{PathInfo, StorePathDigest},
    proto::{
        castore as castore_wire,
        store::{self as wire, get_path_info_request::ByWhat, path_info_service_server},
    },
    service::{
        self, Stores,
        grpc::{ANSWER_DIGEST_HEADER, to_status},
    },
};

#[derive(Debug)]
pub(super) struct PathInfos {
    pub(super) stores: Stores,
}

impl PathInfos {
    /// Whether the contents are there. What a directory names need not be looked for: stores take no directory
    /// without it.
    async fn has(&self, node: &Node) -> service::Result<bool> {
        match node {
            Node::Directory { digest, .. } => {
                Ok(self.stores.directories.get(digest).await?.is_some())
            }
            Node::File { digest, .. } => self.stores.blobs.has(digest).await,
            Node::Symlink { .. } => Ok(true),
        }
    }

    /// Stores a path info once its contents are safe.
    async fn store(&self, path_info: PathInfo) -> service::Result<PathInfo> {
        self.stores.blobs.sync().await?;
        self.stores.directories.sync().await?;
        self.stores.path_infos.put(path_info).await
    }
}

/// An answer whose receiver can see whether it was damaged on its way. Directories and blobs have digests of their own.
fn with_digest(message: wire::PathInfo) -> Response<wire::PathInfo> {
    let digest = Digest::of(&message.encode_to_vec());
    let mut answer = Response::new(message);
    let value = MetadataValue::from_bytes(digest.as_bytes());
    answer.metadata_mut().insert_bin(ANSWER_DIGEST_HEADER, value);
    answer
}

#[async_trait]
impl path_info_service_server::PathInfoService for PathInfos {
    type ListStream = BoxStream<'static, Result<wire::PathInfo, Status>>;

    async fn get(
        &self,
        request: Request<wire::GetPathInfoRequest>,
    ) -> Result<Response<wire::PathInfo>, Status> {
        let Some(ByWhat::ByOutputHash(hash)) = request.into_inner().by_what else {
            return Err(Status::invalid_argument("the request names no store path"));
        };
        let digest = StorePathDigest::try_from(&hash[..])
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let found = self.stores.path_infos.get(&digest).await;
        let path_info = found
            .map_err(|error| to_status(&error))?
            .ok_or_else(|| Status::not_found(format!("no store path {digest}-…")))?;
        Ok(with_digest(wire::PathInfo::from(&path_info)))
    }

    async fn put(
        &self,
        request: Request<wire::PathInfo>,
    ) -> Result<Response<wire::PathInfo>, Status> {
        let path_info = PathInfo::try_from(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !self.has(&path_info.node).await.map_err(|error| to_status(&error))? {
            let path = &path_info.store_path;
            let what = format!("the contents of {path} are not there: put them first");
            return Err(Status::failed_precondition(what));
        }
        let stored = self.store(path_info).await.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::PathInfo::from(&stored)))
    }

    async fn calculate_nar(
        &self,
        request: Request<castore_wire::Node>,
    ) -> Result<Response<wire::CalculateNarResponse>, Status> {
        let node = Node::try_from(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !self.has(&node).await.map_err(|error| to_status(&error))? {
            return Err(Status::not_found("the contents are not there"));
        }
        let nar = self.stores.nars.calculate_nar(&node).await.map_err(|error| to_status(&error))?;
        let nar_sha256 = Bytes::copy_from_slice(&nar.sha256);
        Ok(Response::new(wire::CalculateNarResponse { nar_size: nar.size, nar_sha256 }))
    }

    async fn list(
        &self,
        _request: Request<wire::ListPathInfoRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let message = |path_info: service::Result<PathInfo>| match path_info {
            Ok(path_info) => Ok(wire::PathInfo::from(&path_info)),
            Err(error) => Err(to_status(&error)),
        };
        Ok(Response::new(self.stores.path_infos.list().map(message).boxed()))
    }
}
