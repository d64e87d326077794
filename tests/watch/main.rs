//! What operators see of a `finwheel run` under load, on a veth, with the kernel's TCP as its clients: looked at by the
//! programs that operators use. Needs root and these programs; says so and skips without.
//!
//! | file | what it proves |
//! |---|---|
//! | `page` | the live page, in Chromium: every state and transition, the keyboard, both colour schemes, no other host |
//! | `boards` | a Prometheus gets data for every query of every panel |
//! | `floods` | trafgen's floods harm no client, fill no memory and are not reflected |

mod boards;
mod browser;
// The process in the rig is that of the tests of `finwheel run`, which use more.
#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../run/common.rs"]
mod common;
mod floods;
mod http;
mod load;
mod page;

use finwheel::rig::Rig;

/// A rig, or the end of the test with the reason on stdout: no privileges, or one of the programs is missing.
macro_rules! rig_with {
    ($($tool:literal),*) => {{
        $(if !$crate::installed($tool) {
            println!("skipped: {} is not installed", $tool);
            return;
        })*
        $crate::common::rig_or_skip!(finwheel::rig::RigConfig::default())
    }};
}
pub(crate) use rig_with;

/// Whether a program can be run.
fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// `finwheel run` with echo and http on both IP versions, a short `TIME_WAIT`, and whatever `extra` says.
fn serve(rig: &Rig, extra: &str) -> common::Process {
    serve_with(rig, "", "", extra)
}

/// As [`serve`], with lines for two tables that the configuration has already.
fn serve_with(rig: &Rig, interface: &str, worker: &str, extra: &str) -> common::Process {
    let [v4, v6] = common::both(rig, common::HTTP);
    let http = format!(
        "[[listener]]\nname = \"web\"\naddresses = [\"{v4}\", \"{v6}\"]\nservice = \"http\"\n{extra}"
    );
    let config = common::config(rig, &http).replace("[worker]\n", &format!("{interface}[worker]\n{worker}"));
    common::Process::ready(rig, &config)
}
