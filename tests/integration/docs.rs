//! Every code block of README and `docs/`: commands run, files are read, columns exist.
//!
//! A block says what it is behind its fence: `sh` (commands), `console` (commands behind
//! `$ ` and what they print), `yaml` (a specification or keys of one; `yaml model`,
//! `yaml device` and `yaml engine` are files of the catalog), `json`, `jsonl`, `csv`, `sql`,
//! `python`, and `text` for what a program prints. `file=NAME` gives a block the name under
//! which commands find it. The examples of `--help` are run, too. Commands run in a scratch
//! folder that looks like a checkout, sweeps with a few requests.
//!
//! SQL and Python are run by `.ci/check_docs.py`, where their packages are installed.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use vidur_sweep::results::schema::{REQUEST_COLUMNS, summary_column_names};
use vidur_sweep::spec::keys::{run_key_paths, run_keys, sweep_keys};
use vidur_sweep::{spec, yaml};

/// Commands that cannot run here, by how they begin, and why.
const NOT_RUN: [(&str, &str); 9] = [
    (
        "vidur-sweep merge whole monday tuesday",
        "what other machines did is not here",
    ),
    ("cargo test", "it is this"),
    (
        "FULL_GRID=1 cargo test",
        "a search of hours, for its own figures",
    ),
    (
        "VIDUR_SWEEP_STATIC_ESTIMATES=",
        "needs a file of another program's estimates",
    ),
    (
        "cargo run --example derive_length_histogram",
        "a program of its own, over a trace that is not ours to ship",
    ),
    (
        "vidur-sweep simulate FLAGS",
        "FLAGS and CASE stand for those of a recorded run; `vidur_parity` runs each",
    ),
    (
        "vidur-sweep simulate --config",
        "the folder is named after the time of a run",
    ),
    (
        "vidur-sweep completions",
        "writes into the home folder; the command is tested by itself",
    ),
    (
        "vidur-sweep catalog models ./Qwen3-8B",
        "a checkpoint that everybody has to fetch for themselves",
    ),
];

/// Requests of a sweep that a document runs.
const REQUESTS: u32 = 20;

/// A fenced block.
struct Block {
    /// `docs/spec.md:12`.
    place: String,
    kind: String,
    /// Further words behind the fence.
    words: Vec<String>,
    text: String,
}

impl Block {
    fn file(&self) -> Option<&str> {
        self.words
            .iter()
            .find_map(|word| word.strip_prefix("file="))
    }

    fn is(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README, then everything below `docs`, in order.
fn documents() -> Vec<PathBuf> {
    fn add(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("docs") {
            let path = entry.expect("an entry").path();
            match path.extension() {
                Some(extension) if extension == "md" => found.push(path),
                _ if path.is_dir() => add(&path, found),
                _ => {}
            }
        }
    }
    let mut docs = Vec::new();
    add(&repository().join("docs"), &mut docs);
    docs.sort();
    std::iter::once(repository().join("README.md"))
        .chain(docs)
        .collect()
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for path in documents() {
        let name = path
            .strip_prefix(repository())
            .unwrap()
            .display()
            .to_string();
        let text = fs::read_to_string(&path).unwrap();
        let mut open: Option<Block> = None;
        for (line, number) in text.lines().zip(1..) {
            let fence = line.trim_start().strip_prefix("```");
            match (fence, &mut open) {
                (Some(info), None) => {
                    let mut words = info.split_whitespace().map(str::to_owned);
                    open = Some(Block {
                        place: format!("{name}:{number}"),
                        kind: words.next().unwrap_or_default(),
                        words: words.collect(),
                        text: String::new(),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => {
                    block.text += line;
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{name}: a block is not closed");
    }
    assert!(blocks.len() > 30, "{} blocks", blocks.len());
    blocks
}

/// A folder like a checkout, with the program on the path.
struct Checkout {
    folder: TempDir,
    /// Beginnings of [`NOT_RUN`] that were met.
    skipped: BTreeSet<&'static str>,
}

impl Checkout {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["sweeps", "data"] {
            symlink(repository().join(name), folder.path().join(name)).expect("a link");
        }
        fs::create_dir(folder.path().join("bin")).expect("a folder");
        let checkout = Self {
            folder,
            skipped: BTreeSet::new(),
        };
        // The program, with less to do.
        let program = assert_cmd::cargo::cargo_bin("vidur-sweep");
        let script = format!(
            "#!/bin/sh\n\
             case \"$1 $2\" in *-h*) exec '{0}' \"$@\";; esac\n\
             case \"$1\" in\n\
             run) case \"$*\" in *--resume*) ;; *) set -- \"$@\" --force;; esac\n\
             exec '{0}' \"$@\" --set workload.requests={REQUESTS} --set precision=null --set max_requests=null \
             --no-progress;;\n\
             capacity) exec '{0}' \"$@\" --force --shard 1/40 --set capacity.max_requests=500 \
             --no-progress;;\n\
             simulate) exec '{0}' \"$@\" --no-metrics_config_store_plots;;\n\
             *) exec '{0}' \"$@\";;\nesac\n",
            program.display()
        );
        let path = checkout.path("bin/vidur-sweep");
        fs::write(&path, script).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        checkout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    /// What a command prints on standard output; it succeeds.
    fn run(&mut self, place: &str, command: &str) -> Option<String> {
        if let Some((start, _)) = NOT_RUN.iter().find(|(start, _)| command.starts_with(start)) {
            self.skipped.insert(start);
            return None;
        }
        let command = command.replacen("cargo run --release --", "vidur-sweep", 1);
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("sh")
            .args(["-eu", "-c", &command])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .output()
            .expect("a shell");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{place}: {command}\n{told}");
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Commands of a shell block: lines, those that end in `\` joined, comments left out.
fn commands(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split("\\\n").map(str::trim).collect();
    let joined = parts.join(" ");
    let lines = joined.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Of a console block: each command with the lines it prints.
fn conversations(text: &str) -> Vec<(String, Vec<&str>)> {
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    let mut continues = false;
    for line in text.lines() {
        let begun = line.strip_prefix("$ ");
        if let Some(command) = begun {
            found.push((command.trim_end_matches('\\').to_owned(), Vec::new()));
        } else if let Some((command, printed)) = found.last_mut() {
            match continues {
                true => *command += line.trim_end_matches('\\'),
                false => printed.push(line),
            }
        }
        continues = (continues || begun.is_some()) && line.ends_with('\\');
    }
    found
}

/// Whether `printed` has the lines `told`, in order and without others between them, but
/// where a line is `...`.
fn prints(printed: &str, told: &[&str]) -> bool {
    let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
    let mut at = 0;
    let mut skips = true;
    for line in told {
        if line.trim() == "..." {
            skips = true;
            continue;
        }
        let rest = printed[at..].iter();
        let position = rest.clone().position(|other| other == line);
        match position {
            Some(0) => at += 1,
            Some(position) if skips => at += position + 1,
            _ => return false,
        }
        skips = false;
    }
    true
}

#[test]
fn commands_of_documents_and_of_help_run() {
    let mut checkout = Checkout::new();
    for block in blocks() {
        if let Some(name) = block.file() {
            checkout.write(name, &block.text);
        }
        match block.kind.as_str() {
            "sh" => {
                for command in commands(&block.text) {
                    checkout.run(&block.place, &command);
                }
            }
            "console" => {
                for (command, told) in conversations(&block.text) {
                    let printed = checkout.run(&block.place, &command);
                    let printed = printed.unwrap_or_default();
                    assert!(
                        prints(&printed, &told),
                        "{}: it prints\n{printed}",
                        block.place
                    );
                }
            }
            "yaml" => {
                let kinds = ["model", "device", "engine"];
                let kind = kinds.into_iter().find(|kind| block.is(kind));
                if let Some(kind) = kind {
                    checkout.write("entry.yaml", &block.text);
                    let command = format!("vidur-sweep catalog {kind}s ./entry.yaml");
                    checkout.run(&block.place, &command);
                }
            }
            _ => {}
        }
    }
    checkout.write(
        "requests.csv",
        "arrived_at,num_prefill_tokens,num_decode_tokens\n0,9,3\n",
    );
    checkout.write("predictions.csv", PREDICTIONS);
    for (command, example) in help_examples() {
        checkout.run(&format!("help of {command}"), &example);
    }
    for (start, reason) in NOT_RUN {
        assert!(
            checkout.skipped.contains(start),
            "nothing starts with `{start}` ({reason})"
        );
    }
}

/// Operator times for the example of `simulate`.
const PREDICTIONS: &str = "op,f0,f1,ms\n\
    attn_pre_proj,8,,0.1\nattn_post_proj,8,,0.1\nattn_rope,8,,0.1\nmlp_up_proj,8,,0.1\n\
    mlp_down_proj,8,,0.1\nmlp_act,8,,0.1\ninput_layernorm,8,,0.1\n\
    post_attention_layernorm,8,,0.1\nadd,8,,0.1\nattn_kv_cache_save,8,,0.1\n\
    attn_decode,1,64,0.1\nattn_prefill,0,81,0.1\n";

/// Commands in the help texts of all commands: whose, and which.
fn help_examples() -> Vec<(String, String)> {
    fn collect(command: &clap::Command, name: &str, found: &mut Vec<(String, String)>) {
        let texts = [
            command.get_after_help(),
            command.get_after_long_help(),
            command.get_long_about(),
        ];
        for text in texts.into_iter().flatten() {
            for line in commands(&text.to_string()) {
                // Two blanks and more: what it does.
                let example = line.split("  ").next().unwrap_or_default();
                if example.starts_with("vidur-sweep ") {
                    found.push((name.to_owned(), example.to_owned()));
                }
            }
        }
        for inner in command.get_subcommands() {
            collect(inner, &format!("{name} {}", inner.get_name()), found);
        }
    }
    let mut found = Vec::new();
    collect(&vidur_sweep::cli::command(), "vidur-sweep", &mut found);
    assert!(found.len() > 25, "{found:?}");
    found
}

#[test]
fn every_block_says_what_it_is_and_can_be_read() {
    for block in blocks() {
        let Block { place, text, .. } = &block;
        match block.kind.as_str() {
            "sh" => assert!(!text.contains("\n$ "), "{place}: `console` has prompts"),
            "console" => assert!(text.starts_with("$ "), "{place}: begins with a command"),
            "sql" | "python" => {}
            "text" => assert!(
                !text.lines().any(|line| line.starts_with("vidur-sweep ")),
                "{place}: commands are `sh`"
            ),
            "json" => {
                serde_json::from_str::<Value>(text).unwrap_or_else(|e| panic!("{place}: {e}"));
            }
            "jsonl" => {
                for line in text.lines() {
                    serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{place}: {e}"));
                }
            }
            "csv" => {
                let mut reader = csv::Reader::from_reader(text.as_bytes());
                let rows: Result<Vec<_>, _> = reader.records().collect();
                assert!(
                    !rows.unwrap_or_else(|e| panic!("{place}: {e}")).is_empty(),
                    "{place}"
                );
            }
            "yaml" => {
                yaml::parse(text, Path::new(place)).unwrap_or_else(|e| panic!("{place}: {e}"));
            }
            other => panic!("{place}: `{other}` is no kind of block that is tested"),
        }
    }
}

/// Keys that stand for a specification which a document leaves out.
fn completed(fragment: Map<String, Value>) -> Map<String, Value> {
    let base = json!({
        "model": "llama-3-8b",
        "device": "h100",
        "backend": "roofline",
        "replicas": 2,
        "workload": {
            "requests": 10,
            "lengths": {"type": "fixed", "prefill_tokens": 10, "decode_tokens": 10},
            "arrivals": {"type": "concurrency", "clients": 2},
        },
    });
    let mut spec = Map::new();
    spec.insert("name".to_owned(), "fragment".into());
    spec.insert("base".to_owned(), base);
    let is_run_key = |key: &String| {
        let first = key.split('.').next().unwrap_or(key);
        run_keys().iter().any(|run_key| run_key.name == first)
    };
    for (key, value) in fragment {
        match value {
            Value::Object(inner) if key == "base" => merge(&mut spec["base"], inner),
            value if is_run_key(&key) => merge(&mut spec["base"], Map::from_iter([(key, value)])),
            value => {
                spec.insert(key, value);
            }
        }
    }
    spec
}

fn merge(into: &mut Value, more: Map<String, Value>) {
    let map = into.as_object_mut().expect("a mapping");
    for (key, value) in more {
        match (map.get_mut(&key), value) {
            (Some(there @ Value::Object(_)), Value::Object(value)) if key == "workload" => {
                merge(there, value);
            }
            (_, value) => {
                map.insert(key, value);
            }
        }
    }
}

#[test]
fn specifications_in_documents_are_valid() {
    let checkout = Checkout::new();
    let mut checked = 0;
    for block in blocks() {
        if let Some(name) = block.file() {
            checkout.write(name, &block.text);
        }
        if block.kind != "yaml"
            || ["model", "device", "engine"]
                .iter()
                .any(|kind| block.is(kind))
        {
            continue;
        }
        let file = checkout.path("spec.yaml");
        let document = yaml::parse(&block.text, &file).expect("YAML");
        let Value::Object(map) = document.value else {
            panic!("{}: not a mapping", block.place);
        };
        let known = |key: &String| sweep_keys().iter().any(|sweep_key| sweep_key.name == *key);
        let whole = map.contains_key("name") && map.keys().all(known);
        let text = match whole {
            true => block.text.clone(),
            false => yaml::to_text(&Value::Object(completed(map))),
        };
        let found = spec::load_str(&text, &file, &[]);
        found.unwrap_or_else(|errors| panic!("{}: {errors}", block.place));
        checked += 1;
    }
    assert!(checked > 8, "{checked}");
}

/// Columns of all result tables and keys of a run.
fn columns() -> BTreeSet<String> {
    let fixed = summary_column_names().map(str::to_owned);
    let requests = REQUEST_COLUMNS.iter().map(|column| column.name.to_owned());
    fixed
        .chain(requests)
        .chain(run_key_paths().iter().cloned())
        .chain(["wall_time_s", "replication", "filename"].map(str::to_owned))
        .collect()
}

/// Words of a text, each with what stands before and after it.
fn words(text: &str) -> Vec<(&str, &str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (start, is_part(c)) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                found.push((text[..from].trim_end(), &text[from..at], &text[at..]));
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// Texts in quotes, and the text without them.
fn without_quoted(text: &str, quote: char) -> (Vec<&str>, String) {
    let parts: Vec<&str> = text.split(quote).collect();
    let quoted = parts.iter().skip(1).step_by(2).copied().collect();
    let plain: Vec<&str> = parts.iter().step_by(2).copied().collect();
    (quoted, plain.join(" '' "))
}

#[test]
fn queries_name_columns_that_exist() {
    let columns = columns();
    let mut seen = 0;
    for block in blocks().iter().filter(|block| block.kind == "sql") {
        let lines = block.text.lines();
        let text: Vec<&str> = lines.map(|line| line.split("--").next().unwrap()).collect();
        let (_, plain) = without_quoted(&text.join("\n"), '\'');
        let named = |(before, word, after): &(&str, &str, &str)| {
            // Keywords are in capitals; then functions, tables and what is named here.
            let is_keyword = !word.bytes().any(|byte| byte.is_ascii_lowercase());
            is_keyword
                || after.trim_start().starts_with('(')
                || after.starts_with('.')
                || before.ends_with(" AS")
                || before.ends_with("''")
        };
        let aliases: BTreeSet<&str> = (words(&plain).iter())
            .filter(|(before, ..)| before.ends_with(" AS"))
            .map(|(_, word, _)| *word)
            .collect();
        for found in words(&plain) {
            if !named(&found) && !aliases.contains(found.1) {
                assert!(
                    columns.contains(found.1),
                    "{}: no column `{}`",
                    block.place,
                    found.1
                );
                seen += 1;
            }
        }
    }
    for block in blocks().iter().filter(|block| block.kind == "python") {
        let lines = block
            .text
            .lines()
            .map(|line| line.split('#').next().unwrap());
        let text = lines.collect::<Vec<_>>().join("\n");
        let (quoted, plain) = without_quoted(&text, '"');
        for name in quoted {
            let is_file = name.contains('/') || name.ends_with(".parquet");
            if !is_file && !text.contains(&format!("Path(\"{name}\")")) {
                assert!(
                    columns.contains(name),
                    "{}: no column `{name}`",
                    block.place
                );
                seen += 1;
            }
        }
        // A column as an attribute of a data frame, between brackets.
        for (before, word, after) in words(&plain) {
            if before.ends_with("runs.") && after.starts_with(']') {
                assert!(
                    columns.contains(word),
                    "{}: no column `{word}`",
                    block.place
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen}");
}
