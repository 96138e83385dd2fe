//! `lazystore man`.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory as _};
use clap_mangen::roff::{Roff, roman};

use super::Cli;

/// Print the manual page, or write one for each command.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore man | man -l -
  lazystore man --dir /usr/local/share/man/man1")]
pub(super) struct Man {
    /// Write a page for each command into this directory, which is created if it is not there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        match &self.dir {
            Some(dir) => {
                fs::create_dir_all(dir)
                    .with_context(|| format!("cannot create the directory {}", dir.display()))?;
                write_pages(&program, dir)
            }
            None => Ok(io::stdout().write_all(&page(&program)?)?),
        }
    }
}

/// The page of a command, and those of the commands below it that are not hidden.
fn write_pages(command: &Command, dir: &Path) -> anyhow::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, dir)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let file = dir.join(format!("{name}.1"));
    fs::write(&file, page(command)?).with_context(|| format!("cannot write {}", file.display()))
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let source = concat!("lazystore ", env!("CARGO_PKG_VERSION"));
    let man = clap_mangen::Man::new(command.clone()).source(source).manual("lazystore");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(help) = command.get_after_help() {
        write_after_help(&help.to_string(), &mut page)?;
    }
    Ok(page)
}

/// What stands below the options in the help, with its lines as they are.
fn write_after_help(help: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let (first, rest) = help.split_once('\n').unwrap_or((help, ""));
    let (heading, text) = match first.trim_end_matches(':') {
        "Example" | "Examples" => ("EXAMPLES", rest),
        _ => ("NOTES", help),
    };
    let mut section = Roff::new();
    section.control("SH", [heading]).control("nf", []);
    section.text([roman(text)]).control("fi", []);
    section.to_writer(page)
}
