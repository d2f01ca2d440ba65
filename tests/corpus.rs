//! Runs the fuzz targets of `tests/fuzz` as tests: on every file of the corpus, and on many small mutations of them.
//!
//! The mutations come from a printed seed; set `USHER_FUZZ_SEED` to repeat a run. `tests/fuzz/Cargo.toml` says how to
//! fuzz for longer.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test panics if the test fails"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the seed comes from the environment, and the test prints it"
)]

#[path = "fuzz/targets.rs"]
mod targets;

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use uuid::Uuid;

/// Mutated inputs per target. They take a few seconds without optimization.
const CHANGES: u64 = 10_000;

/// Maximum bytes of an input. A target never reads more.
const INPUT_BYTES_MAX: usize = 2_048;

/// Byte strings that a mutation can insert: keywords, and boundary values of numbers and text.
const WORDS: [&[u8]; 20] = [
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud83c",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"{}",
    b"[[[[",
    b"\"type\":",
    b"\"id\":",
    b"\"session\":",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\n",
    b"\x80\x80",
    b"\xf0\x9f\x8d\xbf",
    b"anon",
    b".",
];

#[test]
fn frames() {
    run("frames", targets::frames, CHANGES);
}

#[test]
fn framing() {
    run("framing", targets::framing, CHANGES);
}

#[test]
fn packed() {
    run("packed", targets::packed, CHANGES);
}

#[test]
fn tokens() {
    run("tokens", targets::tokens, CHANGES);
}

#[test]
fn key_sets() {
    // Each input signs dozens of tokens.
    run("key_sets", targets::key_sets, CHANGES / 10);
}

#[test]
fn notices() {
    run("notices", targets::notices, CHANGES);
}

#[test]
fn resume() {
    run("resume", targets::resume, CHANGES);
}

#[test]
fn handshake() {
    run("handshake", targets::handshake, CHANGES);
}

#[test]
fn snapshots() {
    run("snapshots", targets::snapshots, CHANGES);
}

fn run(name: &str, target: fn(&[u8]), changes: u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    paths.sort_unstable();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(corpus.len() >= 5, "the corpus of {name} is missing");
    for (path, input) in paths.iter().zip(&corpus) {
        check(target, input, &path.display().to_string());
    }
    let seed = env::var("USHER_FUZZ_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
    println!("{name}: USHER_FUZZ_SEED={seed}");
    let mut dice = Dice(seed | 1);
    for number in 0..changes {
        let input = change(&corpus, &mut dice);
        check(
            target,
            &input,
            &format!("USHER_FUZZ_SEED={seed}, change {number}"),
        );
    }
}

fn check(target: fn(&[u8]), input: &[u8], origin: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(outcome.is_ok(), "{origin}: b\"{}\"", input.escape_ascii());
}

/// Returns a file of the corpus with one to four mutations.
fn change(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = corpus[dice.below(corpus.len())].clone();
    for _ in 0..=dice.below(4) {
        let place = dice.below(input.len() + 1);
        let end = (place + 1 + dice.below(8)).min(input.len());
        match dice.below(6) {
            0 if place < input.len() => input[place] ^= 1 << dice.below(8),
            1 => drop(input.drain(place.min(end)..end)),
            2 => drop(input.splice(place..place, WORDS[dice.below(WORDS.len())].iter().copied())),
            3 => {
                let again: Vec<u8> = input[place.min(end)..end].repeat(1 + dice.below(40));
                drop(input.splice(place..place, again));
            }
            4 => {
                let other = &corpus[dice.below(corpus.len())];
                let from = dice.below(other.len() + 1);
                input.truncate(place);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.insert(place, dice.below(256).to_le_bytes()[0]),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// A xorshift generator. It is random enough for this, and gives the same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}
