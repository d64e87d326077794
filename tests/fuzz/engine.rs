//! The bounded run that `make test` does after the corpus: inputs from a fixed seed, half of them mutants of the corpus.
//!
//! bolero draws its own random inputs from the operating system, so a failure would not come again; here the same
//! command gives the same inputs. `FINWHEEL_FUZZ_SEED` takes another seed, `FINWHEEL_FUZZ_ROUNDS` multiplies their number.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

/// The seed unless one is given.
const SEED: u64 = 0x66_69_6e_77;

/// How much of a target is run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Inputs.
    pub inputs: u64,
    /// Longest input in bytes.
    pub len: usize,
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")),
        Err(_) => default,
    }
}

/// The corpus of a target, in a fixed order.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/__fuzz__").join(target).join("corpus");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    files.iter().map(|f| std::fs::read(f).unwrap_or_else(|e| panic!("{}: {e}", f.display()))).collect()
}

/// Runs `target` on inputs of its own seed.
pub fn seeded(name: &str, bounds: Bounds, target: fn(&[u8])) {
    let corpus = corpus(name);
    let mut rng = SmallRng::seed_from_u64(setting("FINWHEEL_FUZZ_SEED", SEED));
    for round in 0..bounds.inputs * setting("FINWHEEL_FUZZ_ROUNDS", 1) {
        let input =
            if rng.random_bool(0.5) { fresh(&mut rng, bounds.len) } else { mutant(&mut rng, &corpus) };
        let input = &input[..input.len().min(bounds.len)];
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
            let kept = keep(name, input);
            eprintln!("{name}: input {round} fails; it is in {}", kept.display());
            eprintln!("copy it to tests/fuzz/__fuzz__/{name}/corpus with a name that tells what it is");
            resume_unwind(panic);
        }
    }
}

/// Writes a failing input where it is found again.
fn keep(name: &str, input: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
    std::fs::write(&path, input).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    path
}

fn fresh(rng: &mut SmallRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..=len)];
    rng.fill(bytes.as_mut_slice());
    bytes
}

/// An entry of the corpus, changed in a few places.
fn mutant(rng: &mut SmallRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[rng.random_range(0..corpus.len())].clone();
    for _ in 0..rng.random_range(1..8) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 => bytes.insert(at, rng.random()),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            2 if at < bytes.len() => bytes[at] = rng.random(),
            3 => {
                let to = (at + rng.random_range(1..16)).min(bytes.len());
                bytes.drain(at..to);
            }
            4 => {
                let other = &corpus[rng.random_range(0..corpus.len())];
                let from = rng.random_range(0..=other.len());
                let to = (from + rng.random_range(1..64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let to = (at + rng.random_range(1..32)).min(bytes.len());
                let piece = bytes[at..to].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// Reads numbers from an input; zeros after its end.
pub struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    pub fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes([self.u8(), self.u8(), self.u8(), self.u8()])
    }
    /// A number below `n`.
    pub fn below(&mut self, n: u8) -> u8 {
        self.u8() % n
    }
}
