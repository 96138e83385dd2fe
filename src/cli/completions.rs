//! `lazystore completions`.

use std::io::{self, Write as _};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;

/// Print what a shell needs to complete commands and options.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore completions bash > /usr/share/bash-completion/completions/lazystore
  lazystore completions zsh > /usr/share/zsh/site-functions/_lazystore
  lazystore completions fish > ~/.config/fish/completions/lazystore.fish")]
pub(super) struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "lazystore", &mut script);
        Ok(io::stdout().write_all(&script)?)
    }
}
