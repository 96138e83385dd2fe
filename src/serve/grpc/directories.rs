//! The directory service.

use std::sync::Arc;

use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::{Request, Response, Status, Streaming, async_trait, metadata::MetadataValue};

use super::upload;
use crate::{
    castore::Directory,
    proto::castore::{self as wire, directory_service_server, get_directory_request::ByWhat},
    service::{
        directory::{DirectoryService, DirectoryStream},
        grpc::{FOUND_HEADER, to_status},
    },
};

/// How many directories a closure may have that is put.
const CLOSURE_DIRECTORIES_MAX: usize = 1 << 22;

#[derive(Debug)]
pub(super) struct Directories {
    pub(super) directories: Arc<dyn DirectoryService>,
}

#[async_trait]
impl directory_service_server::DirectoryService for Directories {
    type GetStream = BoxStream<'static, Result<wire::Directory, Status>>;

    async fn get(
        &self,
        request: Request<wire::GetDirectoryRequest>,
    ) -> Result<Response<Self::GetStream>, Status> {
        let request = request.into_inner();
        let Some(ByWhat::Digest(digest)) = request.by_what else {
            return Err(Status::invalid_argument("the request names no directory"));
        };
        let digest = upload::digest(&digest)?;
        let found = if request.recursive {
            self.directories.get_closure(&digest).await
        } else {
            let found = self.directories.get(&digest).await;
            found.map(|found| found.map(|one| Box::pin(stream::iter([Ok(one)])) as DirectoryStream))
        };
        let directories = found
            .map_err(|error| to_status(&error))?
            .ok_or_else(|| Status::not_found(format!("no directory {digest}")))?;
        let message = |directory: Result<Arc<Directory>, _>| match directory {
            Ok(directory) => Ok(wire::Directory::from(&*directory)),
            Err(error) => Err(to_status(&error)),
        };
        let mut answer = Response::new(directories.map(message).boxed());
        answer.metadata_mut().insert(FOUND_HEADER, MetadataValue::from_static("1"));
        Ok(answer)
    }

    /// The order is checked by the store.
    async fn put(
        &self,
        request: Request<Streaming<wire::Directory>>,
    ) -> Result<Response<wire::PutDirectoryResponse>, Status> {
        let mut messages = request.into_inner();
        let putter = self.directories.put_closure().await;
        let mut putter = putter.map_err(|error| to_status(&error))?;
        let mut count = 0;
        while let Some(message) = upload::next(&mut messages).await? {
            count += 1;
            if count > CLOSURE_DIRECTORIES_MAX {
                let what = format!("more than {CLOSURE_DIRECTORIES_MAX} directories in a closure");
                return Err(Status::invalid_argument(what));
            }
            let directory = Directory::try_from(message)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            putter.put(Arc::new(directory)).await.map_err(|error| to_status(&error))?;
        }
        let root = putter.finish().await.map_err(|error| to_status(&error))?;
        let root_digest = Bytes::copy_from_slice(root.as_bytes());
        Ok(Response::new(wire::PutDirectoryResponse { root_digest }))
    }
}
