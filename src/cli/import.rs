//! `lazystore import`.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use indicatif::{HumanBytes, HumanCount};
use tokio::runtime::Runtime;
use tracing::info;

use super::{GlobalOptions, progress};
use crate::{
    ingest::{self, Counts, Import as Imported, Progress, import_tree},
    observe::event,
    service::Stores,
};

/// How many imports become visible together. Bringing data to the disk is waited for once for all of them.
const COMMIT_IMPORTS: usize = 256;

/// Put files and directories into the store, as nix-store --add does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore import ./result
  lazystore import --name source-1.0 .

Prints one store path a line, once it would survive a power cut.")]
pub(super) struct Import {
    /// Files, symbolic links or directories
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// The name of the store path, if it is not to be that of the file
    #[arg(long)]
    name: Option<String>,
}

impl Import {
    pub(super) fn run(&self, options: &GlobalOptions, runtime: &Runtime) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.name.is_none() || self.paths.len() == 1,
            "--name can name one path only, and {} were given",
            self.paths.len()
        );
        let stores = {
            let _context = runtime.enter();
            options.open_target()?
        };
        import_all(&self.paths, self.name.as_deref(), &stores, options, runtime, |imported| {
            let mut out = io::stdout().lock();
            writeln!(out, "{}", imported.path_info.store_path.absolute())?;
            Ok(out.flush()?)
        })
    }
}

fn summary(counts: &Counts) -> String {
    let Counts { files, bytes, new_files, new_bytes } = *counts;
    format!(
        "{} files, {}: {} new with {}, {} were there already",
        HumanCount(files),
        HumanBytes(bytes),
        HumanCount(new_files),
        HumanBytes(new_bytes),
        HumanCount(files - new_files)
    )
}

/// Imports `paths`, and hands each to `done` once it is visible and durable.
pub(super) fn import_all(
    paths: &[PathBuf],
    name: Option<&str>,
    stores: &Stores,
    options: &GlobalOptions,
    runtime: &Runtime,
    mut done: impl FnMut(&Imported) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let progress = Arc::new(Progress::default());
    let mut total = Counts::default();
    let followed = progress.clone();
    let shown = progress::show(options.progress, "importing", move || {
        let (files, bytes) = (HumanCount(followed.files()), HumanBytes(followed.bytes()));
        format!("{files} files, {bytes}")
    });
    for paths in paths.chunks(COMMIT_IMPORTS) {
        let mut imports = Vec::new();
        for path in paths {
            imports.push(import_tree(path, name, stores, runtime.handle(), &progress)?);
        }
        runtime.block_on(ingest::commit(stores, &imports))?;
        for import in &imports {
            info!(
                event = event::IMPORTED,
                path = %import.path_info.store_path.absolute(),
                files = import.counts.files,
                bytes = import.counts.bytes,
                new_files = import.counts.new_files,
                new_bytes = import.counts.new_bytes,
                "imported"
            );
            done(import)?;
            total += import.counts;
        }
    }
    if let Some(shown) = shown {
        shown.finish(&summary(&total));
    }
    Ok(())
}
