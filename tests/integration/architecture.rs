//! The module order is kept: a module uses only modules below it.
//!
//! Reads the sources, so it sees every path that starts with `crate::` (or
//! climbs out of its module with `super::`), in `use` lines and elsewhere.
//! Comments and test modules are free to look anywhere.

use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom. A total order: what runs downward only cannot close a circle.
const ORDER: &[&str] = &[
    "cli",
    "vidur",
    "report",
    "explore",
    "select",
    "results",
    "spec",
    "simulator",
    "workload",
    "execution_time",
    "network",
    "memory",
    "catalog",
    "yaml",
    "external",
    "spelling",
    "permutation",
    "host_memory",
    "output_file",
    "input_file",
    "units",
];

#[test]
fn modules_use_only_modules_below_them() {
    let source_root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    let mut uses_seen = 0;
    for file in rust_files(&source_root) {
        let relative = file.strip_prefix(&source_root).expect("found below src");
        let path = module_path(relative);
        let Some(module) = path.first() else {
            continue; // lib.rs and main.rs hold the modules together.
        };
        let rank = rank(module).unwrap_or_else(|| {
            panic!("module `{module}` has no place in the order: add it to tests/integration/architecture.rs")
        });
        let text = fs::read_to_string(&file).expect("a source file");
        for (line, used) in used_modules(&text, path.len()) {
            uses_seen += 1;
            match self::rank(&used) {
                Some(used_rank) if used_rank < rank => violations.push(format!(
                    "src/{}:{line}: `{module}` uses `{used}`, which stands above it",
                    relative.display()
                )),
                _ => {}
            }
        }
    }
    assert!(
        uses_seen > 10,
        "only {uses_seen} uses found: is the scan broken?"
    );
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn every_module_of_the_order_exists() {
    let lib = include_str!("../../src/lib.rs");
    for module in ORDER {
        let declared = lib
            .lines()
            .any(|line| line.trim_end().ends_with(&format!("mod {module};")));
        assert!(declared, "src/lib.rs does not declare `{module}`");
    }
}

/// What only certain files may do, so that it is done in one way: the words of it, the
/// files (or folders) that may, and what the others use instead.
const RESERVED: &[(&[&str], &[&str], &str)] = &[
    (
        &[
            "println!",
            "print!",
            "eprintln!",
            "eprint!",
            "io::stdout(",
            "io::stderr(",
        ],
        &["cli/output.rs"],
        "cli/output.rs, which survives closed pipes and full disks",
    ),
    (
        &["fs::read(", "read_to_string(", "File::open(", "from_path("],
        // A directory that is synced, and what the kernel says of the process: its
        // ignored signals, its memory.
        &[
            "input_file.rs",
            "results/durable.rs",
            "cli/interrupt.rs",
            "host_memory.rs",
        ],
        "input_file.rs, which refuses pipes, devices and what is too large",
    ),
    (
        &["fs::write(", "File::create(", "OpenOptions::new("],
        // Folders that one simulation makes for itself; a pipe or device the user named.
        &[
            "output_file.rs",
            "input_file.rs",
            "vidur/",
            "network/simai_binary.rs",
        ],
        "output_file.rs, which follows no links and leaves no halves",
    ),
    (
        &[".spawn()", ".output()", "process::Command"],
        // Who puts the command together.
        &[
            "external.rs",
            "network/simai_binary.rs",
            "execution_time/aicb/program.rs",
        ],
        "external.rs, which needs leave and has a time limit",
    ),
];

#[test]
fn what_is_done_in_one_way_is_done_in_one_place() {
    let source_root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    for file in rust_files(&source_root) {
        let name = file.strip_prefix(&source_root).expect("found below src");
        let name = name.to_string_lossy().replace('\\', "/");
        if name.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        for (number, line) in program_lines(&text) {
            let code = line.split("//").next().unwrap_or_default();
            for (words, places, instead) in RESERVED {
                let allowed = places.iter().any(|place| name.starts_with(place));
                let word = words.iter().find(|word| starts_word(code, word));
                if let Some(word) = word.filter(|_| !allowed) {
                    violations.push(format!("src/{name}:{number}: `{word}`: use {instead}"));
                }
            }
        }
    }
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// Lines before the test module, which closes a file, numbered from 1.
fn program_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut lines = (1..).zip(text.lines()).peekable();
    std::iter::from_fn(move || {
        let (number, line) = lines.next()?;
        let next = lines.peek().map_or("", |(_, line)| line);
        let tests = line.starts_with("#[cfg(test)]") && next.starts_with("mod ");
        (!tests).then_some((number, line))
    })
}

/// Whether `word` stands in `code` and is not the end of another word.
fn starts_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        word.starts_with('.') || !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn the_scan_finds_every_spelling_of_a_use() {
    let text = "\
use crate::units::DType;
use crate::{catalog, memory::{Plan, x}, network};
use super::super::results::Row;
use super::sibling::Thing;
//! a [`crate::cli`] link in a comment
fn f() { crate::report::table() }
#[cfg(test)]
mod tests {
    use crate::explore::Plan;
}
";
    let found: Vec<(usize, String)> = used_modules(text, 2);
    let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(
        names,
        ["units", "catalog", "memory", "network", "results", "report"]
    );
    assert_eq!(found[4].0, 3);
}

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|&name| name == module)
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// `spec/config.rs` is `[spec, config]`, `spec/mod.rs` is `[spec]`, `lib.rs` is `[]`.
fn module_path(relative: &Path) -> Vec<String> {
    let mut path: Vec<String> = relative
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if path.last().is_some_and(|last| last == "mod") || path == ["lib"] || path == ["main"] {
        path.pop();
    }
    path
}

/// Top-level modules that `text` names, with line numbers. `depth`: how many
/// `super::` lead from this file to the crate root.
fn used_modules(text: &str, depth: usize) -> Vec<(usize, String)> {
    let root_by_super = "super::".repeat(depth);
    let mut found = Vec::new();
    // `use` lists may span lines: text from a brace that is still open.
    let mut open_list: Option<(usize, String)> = None;
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate().map(|(i, l)| (i + 1, l)) {
        let next = lines.get(number).copied().unwrap_or_default();
        if line.starts_with("#[cfg(test)]") && next.starts_with("mod ") {
            break; // A test module closes its file.
        }
        let code = line.split("//").next().unwrap_or_default();
        if let Some((start, list)) = &mut open_list {
            list.push_str(code);
            if code.contains(';') {
                found.extend(names_in_list(list).map(|name| (*start, name)));
                open_list = None;
            }
            continue;
        }
        for prefix in ["crate::", &root_by_super] {
            for (at, _) in code.match_indices(prefix) {
                let before = code[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                let rest = &code[at + prefix.len()..];
                match rest.strip_prefix('{') {
                    Some(list) if rest.contains(';') => {
                        found.extend(names_in_list(list).map(|name| (number, name)));
                    }
                    Some(list) => open_list = Some((number, list.to_owned())),
                    None => found.push((number, identifier(rest).to_owned())),
                }
            }
        }
    }
    found
}

/// First segments of the items of `a, b::{c, d}, e};`.
fn names_in_list(list: &str) -> impl Iterator<Item = String> {
    let mut depth = 0;
    let mut names = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            _ if depth == 0 => names.last_mut().expect("never empty").push(c),
            _ => {}
        }
    }
    names
        .into_iter()
        .map(|item| identifier(item.trim()).to_owned())
        .filter(|name| !name.is_empty())
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}
