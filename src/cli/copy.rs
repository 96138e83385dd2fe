//! `lazystore copy`.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use indicatif::{HumanBytes, HumanCount};

use super::{Absent, GlobalOptions, Usage, closure, progress};
use crate::{
    nix::{
        STORE_DIR,
        path_list::{self, ListedPath, PATH_LIST_LEN_MAX},
    },
    transfer::{self, Progress, There, TransferError, Transferred},
};

/// Where Nix tells a build of its structured attributes.
const ATTRIBUTES: &str = "NIX_ATTRS_JSON_FILE";

/// Copy store paths and all that they refer to into the store.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nix path-info --json --recursive ./result | lazystore copy --store grpc+unix:///run/lazystore.sock -
  lazystore copy closure.json
  lazystore copy --from grpc+http://far:9000 /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src

Copies what the store lacks. A store path appears once all that it refers to is there: what was interrupted left nothing
half, and is continued by starting it again. A list is what nix path-info --json prints, the structured attributes of a
derivation with exportReferencesGraph, or a registration; its paths are read from /nix/store, and refused if their
contents are not what the list says.
Exit codes: 0 all is there now, 1 failed, 2 wrong usage, 3 a store path is absent where it should come from, 4 a store is out of reach, 78 configuration.")]
pub(super) struct Copy {
    /// A list of store paths, or - for one on standard input; with --from, store paths [default: the list in the file that
    /// $NIX_ATTRS_JSON_FILE names]
    #[arg(value_name = "LIST|STORE-PATH")]
    sources: Vec<OsString>,

    /// The store that has the store paths, in a form that --store takes
    #[arg(long, value_name = "ADDR")]
    from: Option<String>,

    /// The directory in which /nix/store is, if it is not /
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    root: Option<PathBuf>,

    /// Also copy what the store has already, to bring back what is missing of it
    #[arg(long)]
    again: bool,
}

impl Copy {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let when_there = if self.again { There::Again } else { There::LeaveOut };
        let progress = Arc::new(Progress::default());
        let show = || {
            let followed = progress.clone();
            progress::show(options.progress, "copying", move || how_far(&followed))
        };
        let (shown, transferred) = match &self.from {
            Some(from) => {
                if self.sources.is_empty() {
                    return Err(Usage("--from needs store paths").into());
                }
                let paths = closure::parse(&self.sources)?;
                let (source, target) = (options.open_other(from)?, options.open_target()?);
                let shown = show();
                let copied =
                    transfer::from_store(&source, &paths, &target, when_there, &progress).await;
                (shown, copied.map_err(|error| absent(error, from))?)
            }
            None => {
                let listed = self.list()?;
                let target = options.open_target()?;
                let root = self.root.as_deref().unwrap_or(Path::new("/"));
                let dir = root.join(STORE_DIR.trim_start_matches('/'));
                let shown = show();
                (shown, transfer::from_files(&dir, listed, &target, when_there, &progress).await?)
            }
        };
        if let Some(shown) = shown {
            shown.finish(&summary(&progress, transferred));
        }
        Ok(())
    }

    fn list(&self) -> anyhow::Result<Vec<ListedPath>> {
        let (name, text) = match &self.sources[..] {
            [] => {
                let file = attributes()?;
                (file.display().to_string(), read_file(&file)?)
            }
            [dash] if dash == "-" => {
                let text = read_bounded(io::stdin().lock()).context("cannot read the list")?;
                ("standard input".to_owned(), text)
            }
            [file] => (file.display().to_string(), read_file(Path::new(file))?),
            _ => return Err(Usage("several arguments are store paths, which need --from").into()),
        };
        let listed = path_list::read(&text);
        let listed = listed.with_context(|| format!("cannot read the list in {name}"))?;
        // Most often whoever should have written it has failed.
        anyhow::ensure!(!listed.is_empty(), "the list in {name} names no store paths");
        Ok(listed)
    }
}

/// The file with the structured attributes of the build that this is a part of.
fn attributes() -> anyhow::Result<PathBuf> {
    let Some(file) = env::var_os(ATTRIBUTES).filter(|file| !file.is_empty()) else {
        return Err(Usage("a list of store paths is needed, or --from with store paths").into());
    };
    let file = PathBuf::from(file);
    // Nix 2.8 gives it the name that it has outside of the sandbox.
    let inside = || Some(Path::new(&env::var_os("NIX_BUILD_TOP")?).join(file.file_name()?));
    Ok(match file.exists() {
        true => file,
        false => inside().filter(|inside| inside.exists()).unwrap_or(file),
    })
}

fn read_file(file: &Path) -> anyhow::Result<Vec<u8>> {
    let hint = || match is_store_path(file.as_os_str()) {
        true => format!("{} is no list; to copy a store path, give --from", file.display()),
        false => format!("cannot read {}", file.display()),
    };
    File::open(file).and_then(read_bounded).with_context(hint)
}

fn is_store_path(argument: &OsStr) -> bool {
    closure::parse(&[argument.to_owned()]).is_ok()
}

/// All of it, but hardly more than is accepted.
fn read_bounded(input: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    input.take(PATH_LIST_LEN_MAX as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

fn absent(error: TransferError, from: &str) -> anyhow::Error {
    match error {
        TransferError::Absent(name) => {
            anyhow::Error::new(Absent(name)).context(format!("cannot copy from {from}"))
        }
        other => other.into(),
    }
}

fn how_far(progress: &Progress) -> String {
    format!(
        "{} of {} store paths, {} files, {}",
        HumanCount(progress.done()),
        HumanCount(progress.paths()),
        HumanCount(progress.read.files()),
        HumanBytes(progress.read.bytes())
    )
}

fn summary(progress: &Progress, transferred: Transferred) -> String {
    format!(
        "{} store paths copied, {} read; {} were there already",
        HumanCount(transferred.done),
        HumanBytes(progress.read.bytes()),
        HumanCount(transferred.there)
    )
}
