//! The `lazystore` program. Everything is in the library; see [`lazystore::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    lazystore::cli::main()
}
