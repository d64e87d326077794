//! `finwheel man` and `finwheel completions`: both made of the command line's own description.

use super::{Cli, EXIT_FAILURE};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the pages go.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// The folder to write to, made if it is not there: /usr/local/share/man/man1, say.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// For which shell.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// Writes the pages.
#[must_use]
pub fn man(args: &ManArgs) -> ExitCode {
    done(write_pages(&args.out).map_err(|e| format!("cannot write to {}: {e}", args.out.display())))
}

/// Prints the script.
#[must_use]
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "finwheel", &mut script);
    let written = io::stdout().write_all(&script);
    done(written.map_err(|e| format!("cannot write to standard output: {e}")))
}

fn done(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("finwheel: {e}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn write_pages(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut root = Cli::command();
    // Gives every subcommand its full name.
    root.build();
    let shown = root.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help");
    for sub in shown {
        let name = format!("finwheel-{}", sub.get_name());
        write_page(folder, sub.clone(), &name)?;
    }
    write_page(folder, root.clone(), "finwheel")
}

fn write_page(folder: &Path, command: Command, name: &str) -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).title(name).section("1").render(&mut page)?;
    fs::write(folder.join(format!("{name}.1")), page)
}
