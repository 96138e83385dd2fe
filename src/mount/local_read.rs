//! Reading what lies on the local disk right into a reply.

use tracing::error;

use super::wire;
use crate::{observe::event, vfs::LocalBlob};

/// Makes `reply` the reply to `unique`: its header, and behind that as much of the file as there is room for. `false` if
/// that cannot be read, which is logged; then there is no reply.
pub(super) fn read_into(reply: &mut [u8], unique: u64, blob: &LocalBlob, offset: u64) -> bool {
    let header = wire::header(reply.len(), 0, unique);
    let (head, data) = reply.split_at_mut(wire::OUT_HEADER_LEN);
    if let Err(error) = blob.read_exact_once_at(data, offset) {
        let len = data.len();
        error!(
            event = event::DISK_FAILED,
            %error,
            offset,
            len,
            "cannot read a blob from the local disk"
        );
        return false;
    }
    head.copy_from_slice(&header);
    true
}
