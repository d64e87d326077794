//! Compiles the steering program (`src/port/bpf/steer.bpf.c`) for the kernel's BPF machine.
//!
//! Needs clang with the BPF target, the kernel's UAPI headers and libbpf's `bpf_helpers.h`. `CLANG` names
//! another compiler than `clang`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const SOURCE: &str = "src/port/bpf/steer.bpf.c";

/// What to install when the build stops here.
const PACKAGES: &str = "on Debian or Ubuntu: apt-get install clang libbpf-dev linux-libc-dev \
(and, for the ring library: libelf-dev zlib1g-dev m4 pkg-config make)";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CLANG");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("finwheel: cannot compile {SOURCE}: {why}");
            eprintln!("finwheel: {PACKAGES}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let out_dir = std::env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?;
    let object = PathBuf::from(out_dir).join("steer.bpf.o");
    let clang = std::env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let mut command = Command::new(&clang);
    command.args(["-O2", "-g", "-Wall", "-Wextra", "-target", "bpf", "-c", SOURCE, "-o"]);
    command.arg(&object);
    // Debian keeps the architecture's half of the UAPI headers (asm/types.h) in a folder that only the native
    // target searches.
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").map_err(|e| e.to_string())?;
    let multiarch = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&multiarch).is_dir() {
        command.arg("-I").arg(multiarch);
    }
    let output = command.output().map_err(|e| format!("running {}: {e}", clang.display()))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{} ended with {}:\n{messages}", clang.display(), output.status));
    }
    for line in messages.lines() {
        println!("cargo::warning={line}");
    }
    Ok(())
}
