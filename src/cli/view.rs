//! Options of what serves a view of the store: `mount` and `virtiofs`.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use clap::{ArgAction, Args};
use tracing::info;

use super::closure;
use crate::{
    nix::{StorePath, path_list::PATH_LIST_LEN_MAX},
    observe::event,
    service::Stores,
    vfs::{Options, Visible},
};

/// What is to be seen.
#[derive(Debug, Args)]
pub(super) struct ViewOptions {
    /// List everything in the store in the root, not only what has been looked up
    #[arg(short = 'l', long)]
    list_root: bool,

    /// Show digests as extended attributes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = ArgAction::Set,
          default_value_t = true, default_missing_value = "true")]
    show_xattr: bool,

    /// Show these store paths and no others: any other name is absent, and the root lists just these. Together with the
    /// next two, what any of them names is shown
    #[arg(long, value_name = "STORE-PATH", num_args = 1..)]
    only: Vec<OsString>,

    /// Show these store paths, all that they refer to, however far, and no others
    #[arg(long, value_name = "STORE-PATH", num_args = 1..)]
    closure_of: Vec<OsString>,

    /// Show the store paths in this file, one a line, and no others; - for standard input
    #[arg(long, value_name = "FILE")]
    only_from: Option<PathBuf>,
}

impl ViewOptions {
    /// What the core has to know besides names.
    pub(super) fn vfs(&self) -> Options {
        Options { list_root: self.list_root, show_xattr: self.show_xattr }
    }

    /// The options that take any number of store paths also take what follows them, like the place to mount on. If the
    /// last of one is no store path, it is that.
    pub(super) fn take_place(&mut self) -> Option<PathBuf> {
        let is_place = |path: &OsString| closure::parse(std::slice::from_ref(path)).is_err();
        let mut places = [&mut self.only, &mut self.closure_of].into_iter();
        places.find_map(|paths| paths.pop_if(|last| is_place(last))).map(PathBuf::from)
    }

    /// The names that are shown; `besides` are, too. Whether the store has them is asked only for closures.
    pub(super) async fn visible(
        &self,
        stores: &Stores,
        besides: impl IntoIterator<Item = StorePath>,
    ) -> anyhow::Result<Visible> {
        if self.only.is_empty() && self.closure_of.is_empty() && self.only_from.is_none() {
            return Ok(Visible::Everything);
        }
        let mut visible: HashSet<_> = closure::parse(&self.only)?.into_iter().collect();
        if let Some(file) = &self.only_from {
            visible.extend(read_names(file)?);
        }
        let closure = closure::path_infos(stores, &closure::parse(&self.closure_of)?).await?;
        visible.extend(closure.into_iter().map(|info| info.store_path));
        visible.extend(besides);
        info!(event = event::VIEW_RESTRICTED, store_paths = visible.len(), "nothing else is shown");
        Ok(Visible::only(visible))
    }
}

/// The store paths in a file, one a line, absolute or without the store directory. Empty lines are read over.
fn read_names(file: &Path) -> anyhow::Result<Vec<StorePath>> {
    let cannot = || format!("cannot read {}", file.display());
    let mut text = Vec::new();
    let read = match file.as_os_str() == "-" {
        true => io::stdin().take(PATH_LIST_LEN_MAX as u64 + 1).read_to_end(&mut text),
        false => File::open(file)
            .and_then(|opened| opened.take(PATH_LIST_LEN_MAX as u64 + 1).read_to_end(&mut text)),
    };
    read.with_context(cannot)?;
    ensure!(
        text.len() <= PATH_LIST_LEN_MAX,
        "{} is longer than {PATH_LIST_LEN_MAX} bytes",
        file.display()
    );
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| {
            closure::parse_one(line).with_context(|| {
                format!("{}, line {}: expected a store path", file.display(), index + 1)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const NAME: &str = "00000000000000000000000000000000-x";

    #[derive(Debug, Parser)]
    struct Command {
        place: Option<PathBuf>,
        #[command(flatten)]
        view: ViewOptions,
    }

    fn parsed(args: &[&str]) -> (Option<PathBuf>, usize, usize) {
        let args = ["command"].iter().chain(args);
        let mut command = Command::try_parse_from(args).expect("legal");
        let place = command.place.take().or_else(|| command.view.take_place());
        (place, command.view.only.len(), command.view.closure_of.len())
    }

    #[test]
    fn the_place_is_found_wherever_it_stands() {
        let place = || Some(PathBuf::from("/mnt"));
        assert_eq!(parsed(&["/mnt", "--only", NAME, NAME]), (place(), 2, 0));
        assert_eq!(parsed(&["--only", NAME, NAME, "/mnt"]), (place(), 2, 0));
        assert_eq!(parsed(&["--only", NAME, "--closure-of", NAME, "/mnt"]), (place(), 1, 1));
        assert_eq!(parsed(&["--closure-of", NAME, "--only", NAME, "--", "/mnt"]), (place(), 1, 1));
        assert_eq!(parsed(&["--only", NAME]), (None, 1, 0));
        let store = Some(PathBuf::from("/nix/store"));
        assert_eq!(parsed(&["--only", NAME, "/nix/store"]), (store, 1, 0));
    }

    #[test]
    fn names_in_a_file_are_read_and_what_is_none_is_told_by_its_line() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("names");
        std::fs::write(&file, format!("/nix/store/{NAME}\n\n  {NAME}\r\n")).expect("it writes");
        assert_eq!(read_names(&file).expect("legal").len(), 2);
        for wrong in ["x", "/etc/passwd", &format!("/nix/store/{NAME}/inner"), "/nix/store/"] {
            std::fs::write(&file, format!("{NAME}\n{wrong}\n")).expect("it writes");
            let error = format!("{:#}", read_names(&file).expect_err(wrong));
            assert!(error.contains("line 2"), "{wrong}: {error}");
        }
    }
}
