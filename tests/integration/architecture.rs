//! The module order is kept: a module uses only modules below it.
//!
//! Reads the sources, so it sees every path that starts with `crate::` (or
//! climbs out of its module with `super::`), in `use` lines and elsewhere.
//! Comments and test modules are free to look anywhere.
//!
//! Within a module files may be in any order, but not in circles other than those listed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom. A total order: what runs downward only cannot close a circle.
const ORDER: &[&str] = &[
    "cli",
    "vidur",
    "report",
    "explore",
    "select",
    "search",
    "results",
    "spec",
    "measurement",
    "simulator",
    "statistics",
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
    "number",
    "limits",
];

/// Files that use one another in a circle. This list may only become shorter: what is
/// in none of its circles must not get into one, and a circle that is broken, or that a
/// file has left, is to be taken from the list.
const CIRCLES: &[&[&str]] = &[
    &["catalog/hugging_face", "catalog/hugging_face/layers"],
    &["cli", "cli/completions", "cli/man"],
    &[
        "cli/explain",
        "cli/explain/deployment",
        "cli/explain/placement",
        "cli/explain/steps",
        "cli/explain/table",
    ],
    &[
        "execution_time/silicon",
        "execution_time/silicon/aiconfigurator_experts",
        "execution_time/silicon/attention",
        "execution_time/silicon/collectives",
        "execution_time/silicon/curve",
        "execution_time/silicon/delta_net",
        "execution_time/silicon/exchange",
        "execution_time/silicon/experts",
        "execution_time/silicon/frame",
        "execution_time/silicon/gemm",
        "execution_time/silicon/grid",
        "execution_time/silicon/manifest",
        "execution_time/silicon/mla",
        "execution_time/silicon/sites",
        "execution_time/silicon/store",
    ],
    &[
        "execution_time/step_cost",
        "execution_time/step_cost/stages",
    ],
    &["network/cost", "network/flow"],
    &["network/deepep", "network/nccl"],
    &[
        "results/column_chunk",
        "results/column_chunk/integers",
        "results/column_chunk/numbers",
        "results/parquet_io",
        "results/requests",
        "results/row_table",
        "results/schema",
    ],
    &["results/layout", "results/manifest"],
    &[
        "simulator/cluster",
        "simulator/cluster/apart",
        "simulator/cluster/hand_over",
        "simulator/pipeline",
        "simulator/pipeline/lane",
        "simulator/pipeline/way",
        "simulator/replica",
        "simulator/scheduler/replica",
        "simulator/scheduler/replica/faster_transformer",
        "simulator/scheduler/replica/lightllm",
        "simulator/scheduler/replica/orca",
        "simulator/scheduler/replica/sarathi",
        "simulator/scheduler/replica/split_wise",
        "simulator/scheduler/replica/vidur",
        "simulator/scheduler/replica/vllm",
    ],
    &["simulator/cohort", "simulator/cohort/ends"],
    &["simulator/pipeline/rounds", "simulator/pipeline/turns"],
    &[
        "spec/assumptions",
        "spec/check",
        "spec/config",
        "spec/default_types",
        "spec/deployment",
        "spec/dotted",
        "spec/entries",
        "spec/expand",
        "spec/keys",
        "spec/overrides",
        "spec/placement",
        "spec/points",
        "spec/pricing",
        "spec/resolve",
        "spec/step_options",
    ],
    &["spec/data_files", "spec/load", "spec/trial"],
    &["vidur/measure", "vidur/prepare"],
    &["workload/generate", "workload/outline"],
    &[
        "workload/histogram",
        "workload/limits",
        "workload/trace",
        "workload/trace/csv",
        "workload/trace/json_lines",
    ],
];

#[test]
fn files_use_one_another_in_no_new_circles() {
    let sources = Sources::read();
    let found = sources.circles();
    let listed: BTreeSet<BTreeSet<String>> = CIRCLES
        .iter()
        .map(|files| files.iter().map(|file| (*file).to_owned()).collect())
        .collect();
    let text = |circle: &BTreeSet<String>| {
        let files: Vec<String> = circle.iter().map(|file| format!("{file:?}")).collect();
        format!("    &[{}],", files.join(", "))
    };
    let lines = |circles: Vec<&BTreeSet<String>>| {
        circles.into_iter().map(text).collect::<Vec<_>>().join("\n")
    };
    let new = lines(found.difference(&listed).collect());
    let gone = lines(listed.difference(&found).collect());
    assert!(
        new.is_empty() && gone.is_empty(),
        "circles that are not in the list:\n{new}\nno longer there, or not as listed:\n{gone}"
    );
}

#[test]
fn circles_are_found_through_what_modules_pass_on() {
    let sources = Sources {
        texts: [
            (
                "a",
                "mod b;\nmod c;\nmod d;\npub use b::{B, other::X as Y};\npub use c::C;",
            ),
            ("a::b", "use super::C;\n"),
            ("a::c", "fn f(b: crate::a::B) {} // super::d::D\n"),
            (
                "a::d",
                "use super::{B, c::C};\n#[cfg(test)]\nmod tests { use super::super::e::E; }",
            ),
            ("e", "mod f;\nfn g() { f::h() }"),
            ("e::f", "use super::g;\npub fn h() { g() }"),
        ]
        .into_iter()
        .map(|(path, text)| {
            (
                path.split("::").map(str::to_owned).collect(),
                text.to_owned(),
            )
        })
        .collect(),
    };
    let circles: Vec<Vec<String>> = sources
        .circles()
        .into_iter()
        .map(|circle| circle.into_iter().collect())
        .collect();
    assert_eq!(circles, [vec!["a/b", "a/c"], vec!["e", "e/f"]]);
}

/// A module by the names that lead to it.
type ModulePath = Vec<String>;

/// The files of the crate, each a module.
struct Sources {
    texts: BTreeMap<ModulePath, String>,
}

impl Sources {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let texts = rust_files(&root).into_iter().filter_map(|file| {
            let path = module_path(file.strip_prefix(&root).expect("found below src"));
            let is_test = path.last().is_none_or(|name| name == "tests");
            (!is_test).then(|| (path, fs::read_to_string(file).expect("a source file")))
        });
        Self {
            texts: texts.collect(),
        }
    }

    /// Sets of files of which each leads to each other.
    fn circles(&self) -> BTreeSet<BTreeSet<String>> {
        let uses = self.uses();
        let reached: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = uses
            .keys()
            .map(|start| {
                let mut reached = BTreeSet::new();
                let mut ahead = vec![start];
                while let Some(file) = ahead.pop() {
                    let next = uses.get(file).into_iter().flatten();
                    ahead.extend(next.filter(|next| reached.insert(*next)));
                }
                (start, reached)
            })
            .collect();
        let in_circles = reached
            .iter()
            .filter(|(file, reached)| reached.contains(*file));
        in_circles
            .map(|(file, reached_from_it)| {
                let back = |other: &&&ModulePath| reached[**other].contains(file);
                let files = reached_from_it
                    .iter()
                    .filter(|other| reached.contains_key(**other));
                files.filter(back).map(|other| other.join("/")).collect()
            })
            .collect()
    }

    /// Files that each file uses.
    fn uses(&self) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
        let named: BTreeMap<&ModulePath, Vec<Named>> = self
            .texts
            .iter()
            .map(|(file, text)| (file, self.named_in(file, text)))
            .collect();
        let passed_on = |module: &ModulePath, name: &str| {
            let named = named.get(module)?.iter();
            let mut passed = named.filter(|named| named.is_passed_on);
            let found = passed.find(|named| named.path.last().is_some_and(|last| last == name))?;
            Some(found.path.clone())
        };
        let of_file = |file: &ModulePath, named: &Named| {
            let found = self.file_of(&named.path, &passed_on, 0);
            found.filter(|found| found != file && !named.is_passed_on)
        };
        self.texts
            .keys()
            .map(|file| {
                let used = named[file].iter();
                let used = used.filter_map(|named| of_file(file, named)).collect();
                (file.clone(), used)
            })
            .collect()
    }

    /// The file in which what `path` leads to is written.
    fn file_of(
        &self,
        path: &[String],
        passed_on: &dyn Fn(&ModulePath, &str) -> Option<ModulePath>,
        depth: usize,
    ) -> Option<ModulePath> {
        let known = (1..=path.len())
            .rev()
            .find(|&length| self.texts.contains_key(&path[..length]))?;
        let module = path[..known].to_vec();
        match path.get(known).and_then(|name| passed_on(&module, name)) {
            Some(mut there) if depth < 10 => {
                there.extend_from_slice(&path[known + 1..]);
                self.file_of(&there, passed_on, depth + 1)
            }
            _ => Some(module),
        }
    }

    /// Everything of the crate that a file names.
    fn named_in(&self, file: &ModulePath, text: &str) -> Vec<Named> {
        let code = code_of(text);
        let children = self
            .texts
            .keys()
            .filter(|path| path.len() == file.len() + 1 && path.starts_with(file));
        let mut starts: Vec<(String, ModulePath)> = children
            .map(|path| (format!("{}::", path[file.len()]), path.clone()))
            .collect();
        starts.push(("crate::".to_owned(), Vec::new()));
        starts.push(("self::".to_owned(), file.clone()));
        for levels in 1..=file.len() {
            let above = file[..file.len() - levels].to_vec();
            starts.push(("super::".repeat(levels), above));
        }
        let mut named = Vec::new();
        for (prefix, module) in &starts {
            for (at, _) in code.match_indices(prefix.as_str()) {
                let before = code[..at].chars().next_back();
                let rest = &code[at + prefix.len()..];
                let is_start = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
                if !is_start || rest.starts_with("super::") {
                    continue;
                }
                let statement = code[..at].rfind([';', '}', '{']).map_or(0, |end| end + 1);
                let statement = code[statement..at].trim_start();
                let is_passed_on = statement.starts_with("pub") && statement.contains("use ");
                let paths = paths_in(rest);
                named.extend(paths.into_iter().map(|rest| Named {
                    path: module.iter().cloned().chain(rest).collect(),
                    is_passed_on,
                }));
            }
        }
        named
    }
}

/// Something of the crate that a file names.
struct Named {
    path: ModulePath,
    /// Whether that is only for others to use.
    is_passed_on: bool,
}

/// A file without comments and tests.
fn code_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let end = lines
        .windows(2)
        .position(|pair| pair[0].starts_with("#[cfg(test)]") && pair[1].starts_with("mod "));
    let code = lines[..end.unwrap_or(lines.len())].iter();
    code.map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The paths of `a::{b, c::d as e}`.
fn paths_in(tree: &str) -> Vec<ModulePath> {
    let tree = tree.trim_start();
    if let Some(list) = tree.strip_prefix('{') {
        return items_of(list)
            .iter()
            .flat_map(|item| paths_in(item))
            .collect();
    }
    let name = identifier(tree).to_owned();
    match tree[name.len()..].strip_prefix("::") {
        _ if name.is_empty() => vec![Vec::new()],
        Some(rest) => paths_in(rest)
            .into_iter()
            .map(|path| std::iter::once(name.clone()).chain(path).collect())
            .collect(),
        None => vec![vec![name]],
    }
}

/// The items of `a, b::{c, d}, e}`.
fn items_of(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut items = vec![String::new()];
    for c in list.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(String::new()),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                items.last_mut().expect("never empty").push(c);
            }
        }
    }
    items.retain(|item| !item.trim().is_empty());
    items
}

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
    items_of(list)
        .into_iter()
        .map(|item| identifier(item.trim()).to_owned())
        .filter(|name| !name.is_empty())
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}
