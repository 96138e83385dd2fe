//! The archive hashes of whichever store is there.

use async_trait::async_trait;

use super::Swap;
use crate::{
    castore::Node,
    nix::NarHash,
    service::{Result, pathinfo::NarCalculation},
};

/// Forwards everything.
#[derive(Debug)]
pub(super) struct SwapNars(pub(super) Swap);

#[async_trait]
impl NarCalculation for SwapNars {
    async fn calculate_nar(&self, node: &Node) -> Result<NarHash> {
        self.0.now().nars.calculate_nar(node).await
    }

    fn reads_contents(&self) -> bool {
        self.0.with(|stores| stores.nars.reads_contents())
    }
}
