//! `merge`: what is united is what one machine would have written, and what does not belong
//! together is refused.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use vidur_sweep::results::{ClaimedDirectory, Existing, Merge, Merged, ResultError, ResultWriter};

use crate::results::{Synthetic, judge};
use crate::spec_folder::{self, SpecFolder, contents};
use crate::steady::QUEUE;

/// Everything that a table can hold: runs that a constraint excludes, that do not fit, that
/// reject requests; replications; labels; axes of mappings.
const SPEC: &str = "\
name: merged
seed: 3
replications: 2
base:
  model: llama-3-70b
  device: a100
  backend: roofline
  workload:
    requests: 40
    lengths: {type: uniform, min_tokens: 100, max_tokens: 3000, prefill_to_decode_ratio: 20}
    arrivals: poisson
axes:
  tensor_parallel: [1, 4, 8]
  replicas: [1, 2]
  qps: [0.5, 4]
  replica_scheduler: [{type: sarathi, chunk_size: 512}, vllm]
  device: [a100, h100]
constraints: [tensor_parallel * replicas <= 8]
slo: {ttft_p90_s: 2.0}
objectives: {minimize: [cost_usd_per_million_tokens, ttft_p90_s]}
measure: all
output: {requests: all}
";

fn assert_same(merged: &Path, whole: &Path) {
    spec_folder::assert_same(&contents(merged), &contents(whole));
}

/// Does shard `shard` of `shards` of the folder's specification; where it lies.
fn shard(folder: &SpecFolder, command: &str, shard: u32, shards: u32) -> String {
    let of = format!("{shard}/{shards}");
    folder.ok(&[command, "spec.yaml", "--out", "all", "--shard", &of, "-q"]);
    format!("all/shard-{shard}-of-{shards}")
}

/// Without the line that names the directory.
fn told(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("Results are in"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn shards_become_what_one_machine_would_have_written() {
    let folder = SpecFolder::new(SPEC);
    let whole = folder.ok(&["run", "spec.yaml", "--out", "whole", "-q"]);
    for shards in [2, 3, 7] {
        let mut directories: Vec<String> = (1..=shards)
            .map(|nth| shard(&folder, "run", nth, shards))
            .collect();
        // In any order.
        directories.reverse();
        let mut arguments = vec!["merge", "merged", "--force", "-q"];
        arguments.extend(directories.iter().map(String::as_str));
        assert_eq!(told(&folder.ok(&arguments)), told(&whole), "{shards}");
        assert_same(&folder.path("merged"), &folder.path("whole"));
        let report = folder.ok(&["report", "merged"]);
        assert_eq!(told(&report), told(&whole));
    }
    // What is there twice counts once.
    let arguments = [
        "merge",
        "again",
        "whole",
        "all/shard-1-of-2",
        "merged",
        "-q",
    ];
    folder.ok(&arguments);
    assert_same(&folder.path("again"), &folder.path("whole"));
}

#[test]
fn capacities_of_shards_are_those_of_one_machine() {
    let study = "axes: {replicas: [1, 2, 3]}\ncapacity: {tolerance: 20%}\n";
    let folder = SpecFolder::new(&format!("{QUEUE}{study}"));
    let whole = folder.ok(&["capacity", "spec.yaml", "--out", "whole", "-q"]);
    let directories = [1, 2].map(|nth| shard(&folder, "capacity", nth, 2));
    let [first, second] = directories.each_ref().map(String::as_str);
    let merged = folder.ok(&["merge", "merged", first, second, "-q"]);
    assert_eq!(told(&merged), told(&whole));
    assert_same(&folder.path("merged"), &folder.path("whole"));
    assert!(folder.path("merged/capacity.parquet").exists());
}

#[test]
fn what_does_not_belong_together_is_refused_with_the_reason() {
    let folder = SpecFolder::new(SPEC);
    let first = shard(&folder, "run", 1, 2);
    let second = shard(&folder, "run", 2, 2);
    folder.ok(&[
        "run",
        "spec.yaml",
        "--out",
        "other",
        "--shard",
        "2/2",
        "--set",
        "seed=4",
        "-q",
    ]);
    fs::create_dir(folder.path("empty")).expect("a folder");
    folder.write("notes/mine.txt", "mine");
    let refused = |arguments: &[&str], reason: &str| {
        let output = folder.output(&[&["merge"], arguments].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(reason), "{arguments:?}: {told}");
        assert!(!folder.path("out").exists(), "{arguments:?}");
    };
    refused(
        &["out", &first, "other/shard-2-of-2"],
        "does not belong together with all/shard-1-of-2: the specification (its hash) differs",
    );
    refused(&["out", &first], "shard 2 of 2 is not here");
    refused(
        &["out", &first, "nowhere"],
        "nowhere: not a result directory (it does not exist)",
    );
    refused(&["out", &first, "empty"], "it is empty");
    refused(&["out", &first, "notes"], "no manifest.json in it");
    refused(
        &[&first, &first, &second],
        "is one of the directories to unite",
    );
    folder.ok(&["merge", "there", &first, &second, "-q"]);
    refused(
        &["there", &first, &second],
        "already holds results; --force replaces them",
    );
    refused(&["notes", &first, &second], "it holds other files");
    let summary = folder.path(&second).join("summary.parquet");
    let mut damaged = fs::read(&summary).expect("a file");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&summary, damaged).expect("a file");
    refused(&["out", &first, &second], "summary.parquet: damaged");
}

/// A directory with the runs of `done`, of a sweep that is not finished.
fn unfinished(sweep: &Synthetic, dir: PathBuf, done: Range<u64>) -> PathBuf {
    let writer = sweep.create(&dir);
    for index in done {
        writer.write(sweep.run(index)).expect("written");
    }
    writer.suspend().expect("kept");
    dir
}

fn merged(dirs: &[PathBuf], out: &Path) -> Result<Merged, ResultError> {
    let claimed = ClaimedDirectory::for_sweep(out).expect("a directory");
    Merge::open(dirs)?.write(&claimed, Existing::Keep, &mut judge())
}

#[test]
fn interrupted_sessions_become_a_whole_sweep() {
    for requests in [0, 70] {
        let sweep = Synthetic {
            runs: 403,
            requests,
        };
        let folder = tempfile::tempdir().expect("a folder");
        let dir = |name: &str| folder.path().join(name);
        sweep.write(&dir("whole"), 0..403);
        let first = unfinished(&sweep, dir("first"), 0..270);
        let second = unfinished(&sweep, dir("second"), 120..403);
        let united = [first.clone(), second];
        let end = merged(&united, &dir("merged")).expect("united");
        assert!(matches!(end, Merged::Finished(_)));
        assert_same(&dir("merged"), &dir("whole"));
        // What is not whole can be gone on with.
        let third = unfinished(&sweep, dir("third"), 300..403);
        let open = Merge::open(&[first.clone(), third.clone()]).expect("they belong together");
        assert!((30..60).contains(&open.missing()), "{}", open.missing());
        assert_eq!(open.gaps().len(), 2);
        let end = merged(&[first, third], &dir("partial")).expect("united");
        let Merged::Unfinished(kept) = end else {
            panic!("runs are missing")
        };
        assert!(kept > 330 && kept < 403, "{kept}");
        let writer = ResultWriter::resume(&dir("partial"), sweep.plan()).expect("goes on");
        assert_eq!(writer.completed().len(), kept);
        sweep.write_missing(&writer, 403);
        writer.finish(&mut judge()).expect("finished");
        assert_same(&dir("partial"), &dir("whole"));
    }
}

#[test]
fn directories_that_disagree_about_a_run_are_refused() {
    let sweep = Synthetic {
        runs: 64,
        requests: 10,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let dir = |name: &str| folder.path().join(name);
    let first = unfinished(&sweep, dir("first"), 0..64);
    let writer = sweep.create(&dir("second"));
    for index in 0..64 {
        let mut run = sweep.run(index);
        if index == 41 {
            run.total_gpus = Some(99);
        }
        writer.write(run).expect("written");
    }
    writer.suspend().expect("kept");
    let error = merged(&[first, dir("second")], &dir("merged")).expect_err("they disagree");
    assert!(error.is_bad_input());
    // Nothing is left of it.
    let left = fs::read_dir(dir("merged")).expect("a folder");
    let left = left.filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        !name.to_string_lossy().starts_with('.')
    });
    assert_eq!(left.count(), 0);
    let told = error.to_string();
    assert!(told.contains("run 41 is not the same as in"), "{told}");
    assert!(told.contains("total_gpus differs"), "{told}");
}
