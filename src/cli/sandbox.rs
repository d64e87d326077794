//! `finwheel sandbox`, hidden: enters the sandbox of `finwheel run` and tries what must fail there. For the tests.

use super::EXIT_FAILURE;
use crate::control::sandbox::{self, Role};
use crate::rig::forbidden;
use std::process::ExitCode;

/// How it is tried.
#[derive(Clone, Debug, clap::Args)]
pub struct SandboxArgs {
    /// Do not enter: shows what would be allowed.
    #[arg(long)]
    pub without: bool,
    /// Start a thread that keeps its capabilities: entering must fail.
    #[arg(long)]
    pub careless: bool,
}

/// Enters, tries, prints a line for each attempt.
#[must_use]
pub fn execute(args: &SandboxArgs) -> ExitCode {
    if args.careless {
        let careless = std::thread::Builder::new().name("careless".into());
        if let Err(e) = careless.spawn(|| std::thread::sleep(std::time::Duration::from_secs(60))) {
            eprintln!("finwheel: no thread: {e}");
            return ExitCode::from(EXIT_FAILURE);
        }
    }
    if !args.without {
        sandbox::ask();
        // A thread that is there before the filter meets it as well.
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let before = std::thread::spawn(move || {
            sandbox::begin(Role::Other);
            // An error is what comes when the other end is gone, and that is the sign.
            let _ = wait.recv();
            forbidden::report().for_each(|line| println!("thread {line}"));
        });
        if let Err(e) = sandbox::enter() {
            eprintln!("finwheel: {e}");
            return ExitCode::from(EXIT_FAILURE);
        }
        drop(go);
        if let Err(panic) = before.join() {
            std::panic::resume_unwind(panic);
        }
    }
    forbidden::report().for_each(|line| println!("main {line}"));
    ExitCode::SUCCESS
}
