//! `lazystore verify`.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    sync::Arc,
};

use anyhow::bail;
use clap::Args;
use futures::{StreamExt as _, stream};
use indicatif::{HumanBytes, HumanCount};

use super::{GlobalOptions, Usage, closure, progress};
use crate::{
    audit::{Auditor, Problem, Progress},
    nix::PublicKey,
};

/// Read store paths to the last byte, and tell what is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore verify --all
  lazystore verify --trusted-public-keys \"$(cat cache.pub)\" /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src

Compares contents with their digests, archives with the hash that is known of them, content addresses with the contents,
and signatures, as far as keys are given, with all of it; and looks whether references are there. Prints a line for
each thing that is wrong. To repair a local store, remove what is damaged, and bring it back by lazystore copy --again
or lazystore import. What is damaged in the cache of a remote store, lazystore cache verify removes.
Exit codes: 0 all is well, 1 something is wrong, 2 wrong usage, 3 a store path is absent, 4 a store is out of reach, 78 configuration.")]
pub(super) struct Verify {
    /// Store paths
    #[arg(value_name = "STORE-PATH", required_unless_present = "all", conflicts_with = "all")]
    paths: Vec<OsString>,

    /// All that are in the store
    #[arg(long)]
    all: bool,

    /// Remove files from a local store that are not what they should be, so that they can be brought back
    #[arg(long)]
    remove_damaged: bool,

    /// Keys as <name>:<base64>, separated by spaces: what does not follow from its contents must be signed by one
    #[arg(long, value_name = "KEYS", value_delimiter = ' ')]
    trusted_public_keys: Vec<PublicKey>,
}

impl Verify {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let repairing = self.remove_damaged.then(|| options.open_local()).transpose()?;
        if matches!(repairing, Some(None)) {
            return Err(Usage("--remove-damaged is for local stores").into());
        }
        let repairing = repairing.flatten();
        let stores = options.open()?;
        let path_infos = match self.all {
            true => stores.path_infos.list(),
            false => {
                let found = closure::find(&stores, &closure::parse(&self.paths)?).await?;
                stream::iter(found.into_iter().map(Ok)).boxed()
            }
        };
        let progress = Arc::new(Progress::default());
        let auditor = Auditor::new(&stores, self.trusted_public_keys.clone(), progress.clone());
        let followed = progress.clone();
        let shown = progress::show(options.progress, "verifying", move || how_far(&followed));
        let (mut bad, mut removed, mut out) = (0, 0, io::stdout());
        let mut audited = std::pin::pin!(auditor.audit_all(path_infos));
        while let Some(audited) = audited.next().await {
            let findings = audited?.findings;
            bad += u64::from(!findings.is_empty());
            for finding in findings {
                writeln!(out, "{finding}")?;
                if let (Some(store), Problem::Blob { digest, .. }) = (&repairing, &finding.problem)
                {
                    removed += u64::from(store.remove_if_damaged(digest)?);
                }
            }
        }
        drop(shown);
        if removed > 0 {
            writeln!(out, "{} damaged files are removed", HumanCount(removed))?;
        }
        match bad {
            0 => Ok(writeln!(out, "{} are as they should be", how_far(&progress))?),
            bad => bail!(
                "{} of {} store paths are not as they should be",
                HumanCount(bad),
                HumanCount(progress.paths())
            ),
        }
    }
}

fn how_far(progress: &Progress) -> String {
    let (paths, bytes) = (HumanCount(progress.paths()), HumanBytes(progress.bytes()));
    format!("{paths} store paths with {bytes}")
}
