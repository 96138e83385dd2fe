//! `--otlp-endpoint`, in a build with the feature `otlp`.

use crate::observe::{
    Role,
    otlp::{self, Error, Settings},
};

/// What is to be sent, and where.
pub(super) struct Otlp(Settings);

impl Otlp {
    /// What the option and the environment say.
    pub(super) fn new(endpoint: Option<&str>) -> anyhow::Result<Self> {
        Ok(Otlp(Settings::new(endpoint)?))
    }

    /// Whether anything is to be sent.
    pub(super) fn is_wanted(&self) -> bool {
        !self.0.is_empty()
    }

    /// Begins to send it. Needs the context of the runtime.
    pub(super) fn begin(self, role: Role) -> Result<(), Error> {
        match self.0.is_empty() {
            true => Ok(()),
            false => otlp::begin(&self.0, role),
        }
    }
}

/// Sends what is left, within a bound.
pub(super) fn end() {
    otlp::end();
}
