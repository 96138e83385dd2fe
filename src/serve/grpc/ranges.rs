//! Our own service: ranges of blobs with their proofs.

use std::sync::Arc;

use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::{Request, Response, Status, async_trait};

use super::upload;
use crate::{
    proto::ranges::{self as wire, blob_range_service_server},
    service::{
        blob::{BlobService, Proven, ProvenPiece},
        grpc::to_status,
    },
};

#[derive(Debug)]
pub(super) struct Ranges {
    pub(super) blobs: Arc<dyn BlobService>,
}

#[async_trait]
impl blob_range_service_server::BlobRangeService for Ranges {
    type ReadStream = BoxStream<'static, Result<wire::BlobRangePiece, Status>>;

    async fn read(
        &self,
        request: Request<wire::ReadBlobRangeRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let wire::ReadBlobRangeRequest { digest, start, end } = request.into_inner();
        let digest = upload::digest(&digest)?;
        if start > end {
            let message = format!("a range from {start} to {end} ends before it begins");
            return Err(Status::invalid_argument(message));
        }
        let found = self.blobs.read_proven(&digest, start..end).await;
        let found = found.map_err(|error| to_status(&error))?;
        let (head, pieces) = match found {
            None => return Err(Status::not_found(format!("no blob {digest}"))),
            Some(Proven::Lacking) => (message(0, true), stream::empty().boxed()),
            Some(Proven::Range { size, pieces }) => (message(size, false), pieces),
        };
        let pieces = pieces.map(|piece| match piece {
            Ok(ProvenPiece { nodes, data }) => {
                Ok(wire::BlobRangePiece { nodes, data, ..wire::BlobRangePiece::default() })
            }
            Err(error) => Err(to_status(&error)),
        });
        Ok(Response::new(stream::iter([Ok(head)]).chain(pieces).boxed()))
    }
}

fn message(size: u64, unproven: bool) -> wire::BlobRangePiece {
    wire::BlobRangePiece { size, unproven, nodes: Bytes::new(), data: Bytes::new() }
}
