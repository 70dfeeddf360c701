//! `completions` and `man`: what packages install beside the program, made from the same words that it parses.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Done, Failure, Words, letters};

/// Prints a completion script.
pub(super) fn completions(shell: Shell) -> Done {
    // Into memory first: the generator gives up on a closed pipe by a panic.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Words::command(), "dpdk-conntrack", &mut script);
    Ok(io::stdout().write_all(&script)?)
}

/// Writes `dpdk-conntrack.1`, a page for each subcommand, and one for the letters into a folder.
pub(super) fn man(folder: &Path) -> Done {
    clap_mangen::generate_to(Words::command(), folder)
        .and_then(|()| clap_mangen::generate_to(letters::words(), folder))
        .map_err(|error| {
            Failure::Failed(format!(
                "{} cannot be written to ({error}): give an existing folder that this user may write",
                folder.display()
            ))
        })
}
