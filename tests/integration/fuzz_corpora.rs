//! The corpora of the fuzz targets, and seeded mutations of them, through the same
//! functions: nothing that a file may hold makes a parser panic, overflow the stack,
//! take much memory or long.
//!
//! `FUZZ_MUTATIONS=20000` makes so many of each parser instead of a few hundred.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[path = "../../fuzz/parsers.rs"]
mod parsers;

use parsers::{PARSERS, Parser};

/// Mutations of each parser, unless the environment says otherwise.
const MUTATIONS: u64 = 250;
/// Longest input.
const LENGTH_MAX: usize = 32 << 10;
/// Most memory that one input may take.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// Longest that one input may take; generous, for builds without optimisation on busy
/// machines.
const TIME_MAX: Duration = Duration::from_secs(20);

/// What numbers are replaced by, and what is put in anywhere.
const PIECES: [&str; 36] = [
    "0",
    "-1",
    "4294967295",
    "4294967296",
    "2147483648",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e-320",
    "1e999",
    "nan",
    "-inf",
    "0.1",
    "null",
    "true",
    "\"",
    "'",
    "[",
    "]",
    "{",
    "}",
    "[[[[[[[[",
    "{a: {a: ",
    ": ",
    ",",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\0",
    "\u{feff}",
    "é",
    "#",
    "<<: *a",
    "&a ",
    "- - - - ",
];

#[test]
fn every_parser_has_a_corpus_and_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let targets = fs::read_to_string(root.join("Cargo.toml")).expect("the targets");
    for parser in PARSERS {
        assert!(!corpus(parser).is_empty(), "no corpus for {}", parser.name);
        let target = format!("fuzz_targets/{}.rs", parser.name);
        assert!(targets.contains(&target), "{target} is not in Cargo.toml");
        let text = fs::read_to_string(root.join(&target)).expect("a target");
        let call = format!("parsers::run(\"{}\", bytes)", parser.name);
        assert!(text.contains(&call), "{target}");
    }
    let folders = fs::read_dir(root.join("corpus")).expect("the corpora");
    assert_eq!(folders.count(), PARSERS.len());
}

#[test]
fn corpora_and_mutations_of_them_do_no_harm() {
    let mutations = std::env::var("FUZZ_MUTATIONS").ok();
    let mutations = mutations.and_then(|count| count.parse().ok());
    let folder = tempfile::tempdir().expect("a folder");
    for parser in PARSERS {
        let corpus = corpus(parser);
        for (name, bytes) in &corpus {
            try_input(parser, bytes, folder.path(), name);
        }
        for seed in 0..mutations.unwrap_or(MUTATIONS) {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let input = mutated(&corpus, &mut random);
            try_input(parser, &input, folder.path(), &format!("mutation {seed}"));
        }
    }
}

/// The files of a parser's corpus, in order of their names.
fn corpus(parser: &Parser) -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let entries = fs::read_dir(root.join(parser.name)).expect("a corpus");
    let mut files: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a file"))
        })
        .collect();
    files.sort();
    files
}

fn try_input(parser: &Parser, bytes: &[u8], folder: &Path, name: &str) {
    let about = || {
        let text = String::from_utf8_lossy(bytes);
        format!("{} on {name}:\n{text}", parser.name)
    };
    let start = Instant::now();
    let mut outcome = Ok(());
    let memory = allocation_counter::measure(|| {
        outcome = catch_unwind(AssertUnwindSafe(|| (parser.run)(bytes, folder)));
    });
    assert!(outcome.is_ok(), "{} panics", about());
    let time = start.elapsed();
    assert!(time < TIME_MAX, "{} takes {time:?}", about());
    let bytes = memory.bytes_max;
    assert!(bytes < MEMORY_BYTES_MAX, "{} takes {bytes} bytes", about());
}

/// A file of the corpus with some changes.
fn mutated(corpus: &[(String, Vec<u8>)], random: &mut impl Rng) -> Vec<u8> {
    let pick = |random: &mut dyn Rng| &corpus[random.random_range(0..corpus.len())].1;
    let mut input = pick(random).clone();
    for _ in 0..random.random_range(1..=6) {
        let at = random.random_range(0..=input.len());
        let piece = PIECES[random.random_range(0..PIECES.len())].as_bytes();
        let end = (at + random.random_range(0..=64)).min(input.len());
        match random.random_range(0..8) {
            0 => {
                let length = input.len();
                if let Some(byte) = input.get_mut(at.min(length.saturating_sub(1))) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
            1 => drop(input.splice(at..at, piece.iter().copied())),
            2 => drop(input.drain(at..end)),
            3 => {
                let again = input[at..end].repeat(random.random_range(1..40));
                drop(input.splice(at..at, again));
            }
            4 => input.truncate(at),
            5 => {
                let other = pick(random);
                let from = random.random_range(0..=other.len());
                let to = (from + 200).min(other.len());
                drop(input.splice(at..at, other[from..to].iter().copied()));
            }
            _ => replace_number(&mut input, at, piece),
        }
        input.truncate(LENGTH_MAX);
    }
    input
}

/// Replaces the first number from `at` on.
fn replace_number(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = input[at..].iter().position(is_digit) else {
        return;
    };
    let start = at + start;
    let length = input[start..]
        .iter()
        .take_while(|byte| is_digit(byte))
        .count();
    drop(input.splice(start..start + length, piece.iter().copied()));
}
