//! What `otlp.rs` is in a build without the feature `otlp`: the option is known, and refused.

use std::convert::Infallible;

use super::Usage;
use crate::observe::Role;

/// Nothing is sent.
pub(super) struct Otlp;

impl Otlp {
    /// Refuses the option. The environment may be meant for others.
    pub(super) fn new(endpoint: Option<&str>) -> anyhow::Result<Self> {
        match endpoint {
            Some(_) => Err(Usage(
                "this lazystore was built without the feature \"otlp\", which --otlp-endpoint needs: build it \
                 with --features otlp",
            )
            .into()),
            None => Ok(Otlp),
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        false
    }

    pub(super) fn begin(self, _: Role) -> Result<(), Infallible> {
        Ok(())
    }
}

/// There is nothing left.
pub(super) fn end() {}
