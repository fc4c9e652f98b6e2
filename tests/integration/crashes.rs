//! Sweeps that are killed, share a directory, lose parts or run out of disk: what is
//! finished in the end is what an undisturbed sweep writes.
//!
//! `VIDUR_SWEEP_CRASH_CAMPAIGN=N` kills N sweeps instead of a few.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use crate::spec_folder::{assert_same, contents};

/// Short runs, many parts, rows of requests in every one.
const SPEC: &str = "\
name: crash
seed: 7
base:
  model: llama-3-8b
  device: h100
  backend: roofline
  workload:
    requests: 40
    lengths: {type: uniform, min_tokens: 50, max_tokens: 300, prefill_to_decode_ratio: 10}
    arrivals: poisson
axes:
  replicas: [1, 2]
  qps: [4, 8, 16, 32]
  workload.lengths.max_tokens: [200, 300, 400, 500]
output: {requests: all}
";

const SWEEP: &str = "run spec.yaml";

/// Sweeps killed where nobody asks for more.
const KILLED_SWEEPS: u32 = 6;

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("spec.yaml"), SPEC).expect("a file");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vidur-sweep"));
        command
            .current_dir(self.folder.path())
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &str) -> Child {
        self.command(arguments).spawn().expect("a process")
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().expect("a process")
    }

    fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments}: {told}");
        told
    }

    fn refused(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {told}");
        assert!(output.stdout.is_empty());
        told
    }

    /// The sweep undisturbed, and how long it takes.
    fn reference(&self) -> (BTreeMap<String, Vec<u8>>, Duration) {
        let started = Instant::now();
        self.ok("run spec.yaml --threads 2 --out whole");
        (contents(&self.path("whole")), started.elapsed())
    }
}

/// Something a disk, or a hand, does to a file.
fn damage(path: &Path, random: &mut ChaCha8Rng) {
    let mut content = fs::read(path).expect("a file");
    match random.random_range(0..4) {
        0 => return fs::remove_file(path).expect("removed"),
        1 => content.truncate(content.len() / 2),
        2 if !content.is_empty() => {
            let at = random.random_range(0..content.len());
            content[at] ^= 1 << random.random_range(0..8);
        }
        _ => content.push(0),
    }
    fs::write(path, content).expect("written");
}

/// A file of an unfinished sweep that may be lost.
fn some_part(dir: &Path, random: &mut ChaCha8Rng) -> Option<PathBuf> {
    let mut parts = Vec::new();
    for folder in ["parts", "requests"] {
        for entry in fs::read_dir(dir.join(folder)).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|kind| kind == "parquet") {
                parts.push(path);
            }
        }
    }
    parts.sort();
    let chosen = random.random_range(0..parts.len().max(1));
    parts.into_iter().nth(chosen)
}

#[test]
fn killed_sweeps_end_as_if_nothing_had_happened() {
    let campaign = std::env::var("VIDUR_SWEEP_CRASH_CAMPAIGN").ok();
    let sweeps: u32 = match campaign {
        Some(count) => count.parse().expect("a number of sweeps"),
        None => KILLED_SWEEPS,
    };
    let bench = Bench::new();
    let (whole, whole_time) = bench.reference();
    let (mut kills, mut damages, mut resumed) = (0, 0, 0);
    for sweep in 0..sweeps {
        let mut random = ChaCha8Rng::seed_from_u64(u64::from(sweep));
        let out = format!("killed-{sweep}");
        let dir = bench.path(&out);
        let command = format!("run spec.yaml --threads 2 --resume --quiet --out {out}");
        for _ in 0..random.random_range(1..4) {
            let mut child = bench.start(&command);
            sleep(whole_time.mul_f64(random.random_range(0.0..1.1)));
            // SIGKILL: nothing of the program's has a say in it.
            child.kill().expect("killed");
            child.wait().expect("ended");
            kills += 1;
            let unfinished = !dir.join("manifest.json").exists();
            if unfinished
                && random.random_bool(0.5)
                && let Some(part) = some_part(&dir, &mut random)
            {
                damage(&part, &mut random);
                damages += 1;
            }
            resumed += u32::from(unfinished && dir.join("parts/layout.json").exists());
        }
        bench.ok(&command);
        assert_same(&contents(&dir), &whole);
        fs::remove_dir_all(&dir).expect("removed");
    }
    eprintln!("{sweeps} sweeps, {kills} kills, {damages} damaged parts, {resumed} resumed");
    assert!(kills >= sweeps);
}

/// A sweep killed half way: some parts are there.
fn half_done(bench: &Bench, arguments: &str, out: &str) -> PathBuf {
    let dir = bench.path(out);
    let has_part = || {
        let parts = fs::read_dir(dir.join("parts")).into_iter().flatten();
        let mut names = parts.flatten().map(|entry| entry.file_name());
        names.any(|name| name.to_string_lossy().starts_with("summary-"))
    };
    for _ in 0..20 {
        let _ = fs::remove_dir_all(&dir);
        let mut child = bench.start(&format!("{arguments} --threads 1 --out {out}"));
        while !has_part() && child.try_wait().expect("a process").is_none() {
            sleep(Duration::from_millis(1));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        if has_part() && !dir.join("manifest.json").exists() {
            return dir;
        }
    }
    panic!("no sweep could be killed half way");
}

#[test]
fn a_damaged_part_is_named_and_made_again() {
    let bench = Bench::new();
    let (whole, _) = bench.reference();
    let dir = half_done(&bench, SWEEP, "half");
    let part = dir.join("requests/part-000000.parquet");
    let mut content = fs::read(&part).expect("a part");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&part, content).expect("written");
    let told = bench.ok("run spec.yaml --threads 2 --resume --out half");
    assert!(told.contains("requests/part-000000.parquet"), "{told}");
    assert!(told.contains("made again"), "{told}");
    assert_same(&contents(&dir), &whole);

    // A summary that others may read before that.
    let dir = half_done(&bench, SWEEP, "other");
    let parts = fs::read_dir(dir.join("parts")).expect("a folder");
    let summary = parts
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("summary-"))
        .expect("a summary");
    fs::write(&summary, b"PAR1").expect("written");
    let name = summary.file_name().expect("a name").to_string_lossy();
    for command in ["pareto other", "report other"] {
        let told = bench.refused(command);
        assert!(told.contains(&*name) && told.contains("damaged"), "{told}");
    }
    bench.ok("run spec.yaml --threads 2 --resume --out other");
    assert_same(&contents(&dir), &whole);

    // What says how far it is.
    let dir = half_done(&bench, SWEEP, "third");
    let layout = dir.join("parts/layout.json");
    for damaged in ["", "{\"schema_version\": 1", "{}"] {
        fs::write(&layout, damaged).expect("written");
        if damaged.is_empty() {
            fs::remove_file(&layout).expect("removed");
        }
        for command in ["pareto third", "run spec.yaml --resume --out third"] {
            let told = bench.refused(command);
            assert!(told.contains("parts/layout.json"), "{told}");
        }
    }
    bench.ok("run spec.yaml --threads 2 --force --quiet --out third");
    assert_same(&contents(&dir), &whole);
}

#[test]
fn a_part_of_another_sweep_is_not_taken_for_its_own() {
    let bench = Bench::new();
    let (whole, _) = bench.reference();
    let mine = half_done(&bench, SWEEP, "mine");
    let theirs = half_done(&bench, &format!("{SWEEP} --seed 8"), "theirs");
    for entry in fs::read_dir(theirs.join("parts"))
        .expect("a folder")
        .flatten()
    {
        let name = entry.file_name().into_string().expect("UTF-8");
        if name.starts_with("summary-") {
            fs::copy(entry.path(), mine.join("parts").join(&name)).expect("copied");
        }
    }
    bench.ok("run spec.yaml --threads 2 --resume --quiet --out mine");
    assert_same(&contents(&mine), &whole);
}

#[test]
fn a_finished_directory_is_verified_and_the_damaged_file_named() {
    let bench = Bench::new();
    let (whole, _) = bench.reference();
    let dir = bench.path("whole");
    for name in [
        "summary.parquet",
        "pareto.parquet",
        "timing.parquet",
        "spec.yaml",
        "requests/part-000000.parquet",
        "manifest.json",
    ] {
        let path = dir.join(name);
        let good = fs::read(&path).expect("a file");
        let mut bad = good.clone();
        let digit = bad.iter().rposition(u8::is_ascii_digit).expect("a digit");
        bad[digit] = if bad[digit] == b'1' { b'2' } else { b'1' };
        fs::write(&path, bad).expect("written");
        for command in [
            "pareto whole",
            "report whole",
            "run spec.yaml --resume --out whole",
        ] {
            let told = bench.refused(command);
            assert!(told.contains(name), "{name}, {command}: {told}");
        }
        fs::remove_file(&path).expect("removed");
        if name != "manifest.json" {
            let told = bench.refused("report whole");
            assert!(told.contains(name) && told.contains("missing"), "{told}");
        }
        fs::write(&path, good).expect("written");
    }
    bench.ok("report whole");
    assert_same(&contents(&dir), &whole);
}

#[test]
fn what_a_kill_left_goes_at_the_next_resume() {
    let bench = Bench::new();
    let (whole, _) = bench.reference();
    let half = half_done(&bench, SWEEP, "half");
    let dir = bench.path("whole");
    // As if killed between the manifest and the end.
    fs::create_dir(dir.join("parts")).expect("a folder");
    for entry in fs::read_dir(half.join("parts"))
        .expect("a folder")
        .flatten()
    {
        fs::copy(entry.path(), dir.join("parts").join(entry.file_name())).expect("copied");
    }
    fs::write(dir.join(".summary.parquet.tmp"), "half").expect("written");
    fs::write(dir.join(".vidur-sweep.lock"), "process 1 on elsewhere\n").expect("written");
    bench.ok("run spec.yaml --resume --out whole");
    assert_same(&contents(&dir), &whole);
}

#[test]
fn the_page_is_the_same_whenever_and_wherever_it_is_written() {
    let bench = Bench::new();
    let (whole, _) = bench.reference();
    let page = &whole["report.html"];
    bench.ok("report whole");
    assert!(fs::read(bench.path("whole/report.html")).expect("a page") == *page);
    fs::remove_file(bench.path("whole/report.html")).expect("removed");
    fs::rename(bench.path("whole"), bench.path("elsewhere")).expect("moved");
    let absolute = bench.path("elsewhere").display().to_string();
    bench.ok(&format!("report {absolute}"));
    assert!(fs::read(bench.path("elsewhere/report.html")).expect("a page") == *page);
}

/// Waits until a sweep has claimed its directory.
fn wait_for_claim(dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let lock = dir.join(".vidur-sweep.lock");
    while !fs::read_to_string(&lock).is_ok_and(|holder| holder.ends_with('\n')) {
        assert!(
            Instant::now() < deadline,
            "nobody claimed {}",
            dir.display()
        );
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn one_sweep_at_a_time_writes_into_a_directory() {
    let bench = Bench::new();
    // Enough to do that the first is stopped before it ends.
    let sweep = "run spec.yaml --set workload.requests=600";
    bench.ok(&format!("{sweep} --threads 2 --out whole"));
    let whole = contents(&bench.path("whole"));
    let first = bench.start(&format!("{sweep} --threads 1 --quiet --out shared"));
    wait_for_claim(&bench.path("shared"));
    // While it is stopped it holds the directory, however fast the machine is.
    #[cfg(unix)]
    unix::send(&first, rustix::process::Signal::STOP);
    let holder = format!("process {}", first.id());
    for command in [
        "run spec.yaml --seed 8 --out shared",
        "run spec.yaml --seed 8 --force --out shared",
        "run spec.yaml --resume --out shared",
    ] {
        let told = bench.refused(command);
        assert!(
            told.contains(&holder) && told.contains("run spec.yaml"),
            "{told}"
        );
    }
    #[cfg(unix)]
    unix::send(&first, rustix::process::Signal::CONT);
    let first = first.wait_with_output().expect("ended");
    assert_eq!(first.status.code(), Some(0));
    assert_same(&contents(&bench.path("shared")), &whole);

    // Several at the same instant: one is first, whichever.
    let rivals: Vec<Child> = (1..=4)
        .map(|seed| {
            bench.start(&format!(
                "run spec.yaml --threads 1 --quiet --seed {seed} --out rivals"
            ))
        })
        .collect();
    let ends = rivals.into_iter().zip(1..).map(|(child, seed)| {
        let output = child.wait_with_output().expect("ended");
        (output.status.code(), seed)
    });
    let ends: Vec<(Option<i32>, u32)> = ends.collect();
    let winners: Vec<u32> = (ends.iter().filter(|end| end.0 == Some(0)))
        .map(|end| end.1)
        .collect();
    assert_eq!(winners.len(), 1, "{ends:?}");
    assert!(
        ends.iter().all(|end| matches!(end.0, Some(0 | 2))),
        "{ends:?}"
    );
    let winner = winners[0];
    bench.ok(&format!(
        "run spec.yaml --threads 2 --seed {winner} --out alone"
    ));
    assert_same(
        &contents(&bench.path("rivals")),
        &contents(&bench.path("alone")),
    );
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::symlink;
    use std::os::unix::process::ExitStatusExt;

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    pub(super) fn send(child: &Child, signal: Signal) {
        let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(process.expect("a process"), signal).expect("sent");
    }

    #[test]
    fn signals_end_a_sweep_in_order() {
        let bench = Bench::new();
        // Enough to do that a signal comes in time.
        let sweep = "run spec.yaml --set workload.requests=600";
        bench.ok(&format!("{sweep} --threads 2 --out whole"));
        let whole = contents(&bench.path("whole"));
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
            let out = format!("by-{code}");
            let child = bench.start(&format!("{sweep} --threads 1 --out {out}"));
            wait_for_claim(&bench.path(&out));
            sleep(Duration::from_millis(100));
            send(&child, signal);
            let output = child.wait_with_output().expect("ended");
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{told}");
            assert!(told.contains("--resume"), "{told}");
            bench.ok(&format!("{sweep} --threads 2 --resume --out {out}"));
            assert_same(&contents(&bench.path(&out)), &whole);
        }
    }

    #[test]
    fn a_sweep_under_nohup_outlives_its_terminal() {
        let bench = Bench::new();
        let program = env!("CARGO_BIN_EXE_vidur-sweep");
        let child = Command::new("sh")
            .args(["-c", "trap '' HUP; exec \"$@\"", "sh", program])
            .args([
                "run",
                "spec.yaml",
                "--threads",
                "2",
                "--quiet",
                "--out",
                "kept",
            ])
            .current_dir(bench.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("a process");
        wait_for_claim(&bench.path("kept"));
        send(&child, Signal::HUP);
        let output = child.wait_with_output().expect("ended");
        assert_eq!(
            (output.status.code(), output.status.signal()),
            (Some(0), None)
        );
    }

    #[test]
    fn folders_that_are_links_are_refused() {
        let bench = Bench::new();
        for folder in ["requests", "parts"] {
            let elsewhere = bench.path(&format!("elsewhere-{folder}"));
            fs::create_dir(&elsewhere).expect("a folder");
            let out = bench.path(folder).join("out");
            fs::create_dir_all(&out).expect("a folder");
            symlink(&elsewhere, out.join(folder)).expect("a link");
            let told = bench.refused(&format!("run spec.yaml --out {}", out.display()));
            assert!(told.contains(folder), "{told}");
            assert_eq!(fs::read_dir(&elsewhere).expect("a folder").count(), 0);
        }
        // Of a sweep that was there before, and would be removed.
        bench.ok("run spec.yaml --threads 2 --quiet --out done");
        let kept = bench.path("kept");
        fs::rename(bench.path("done/requests"), &kept).expect("moved");
        symlink(&kept, bench.path("done/requests")).expect("a link");
        let before = fs::read_dir(&kept).expect("a folder").count();
        let told = bench.refused("run spec.yaml --force --out done");
        assert!(told.contains("symbolic link"), "{told}");
        assert_eq!(fs::read_dir(&kept).expect("a folder").count(), before);
    }

    #[test]
    fn temporary_files_do_not_follow_links() {
        let bench = Bench::new();
        let dir = half_done(&bench, SWEEP, "half");
        let victim = bench.path("victim");
        fs::write(&victim, "mine").expect("written");
        for name in [
            ".summary.parquet.tmp",
            ".manifest.json.tmp",
            ".spec.yaml.tmp",
        ] {
            symlink(&victim, dir.join(name)).expect("a link");
        }
        bench.ok("run spec.yaml --threads 2 --resume --quiet --out half");
        assert_eq!(fs::read_to_string(&victim).expect("a file"), "mine");
    }

    /// A file system that is full after `size_kib`, or why there is none.
    fn small_disk(place: &Path, size_kib: u32) -> Result<(), String> {
        fs::create_dir(place).map_err(|error| error.to_string())?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size_kib}k"), "tmpfs"])
            .arg(place)
            .output()
            .map_err(|error| error.to_string())?;
        match mounted.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&mounted.stderr).into_owned()),
        }
    }

    struct Unmount<'a>(&'a Path);

    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0).status();
        }
    }

    #[test]
    fn a_full_disk_ends_a_sweep_that_goes_on_when_there_is_room() {
        let bench = Bench::new();
        let (whole, _) = bench.reference();
        let size: usize = whole.values().map(Vec::len).sum();
        let disk = bench.path("disk");
        if let Err(why) = small_disk(&disk, 64) {
            eprintln!("skipped: no tmpfs can be mounted here: {}", why.trim());
            return;
        }
        let _unmount = Unmount(&disk);
        assert!(size > 64 << 10, "{size}");
        let output = bench.run("run spec.yaml --threads 2 --out disk/out");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("No space left on device"), "{told}");
        assert!(!bench.path("disk/out/manifest.json").exists());
        let grown = Command::new("mount")
            .args(["-o", "remount,size=16m"])
            .arg(&disk)
            .status()
            .expect("mount");
        assert!(grown.success());
        bench.ok("run spec.yaml --threads 2 --resume --quiet --out disk/out");
        assert_same(&contents(&bench.path("disk/out")), &whole);
    }

    #[test]
    fn files_that_may_not_grow_end_a_sweep_that_goes_on_later() {
        let bench = Bench::new();
        let (whole, _) = bench.reference();
        // Without the signal a write beyond the limit is an error, as on a full disk.
        let script = "trap '' XFSZ; ulimit -f 8; exec \"$@\"";
        let output = Command::new("bash")
            .args(["-c", script, "bash", env!("CARGO_BIN_EXE_vidur-sweep")])
            .args(["run", "spec.yaml", "--threads", "2", "--out", "limited"])
            .current_dir(bench.folder.path())
            .output()
            .expect("a process");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("File too large"), "{told}");
        bench.ok("run spec.yaml --threads 2 --resume --quiet --out limited");
        assert_same(&contents(&bench.path("limited")), &whole);
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_told_of() {
        let bench = Bench::new();
        bench.ok("run spec.yaml --threads 2 --quiet --out whole");
        let dir = bench.path("whole");
        // Who may write anyway (root) needs a file system that is read-only.
        let bound = Command::new("mount")
            .args(["--bind"])
            .args([&dir, &dir])
            .status();
        let read_only = bound.is_ok_and(|status| status.success())
            && Command::new("mount")
                .args(["-o", "remount,bind,ro"])
                .arg(&dir)
                .status()
                .is_ok_and(|status| status.success());
        let _unmount = Unmount(&dir);
        if !read_only {
            eprintln!("skipped: nothing can be mounted read-only here");
            return;
        }
        let output = bench.run("report whole");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.contains("report.html") && told.contains("Read-only"),
            "{told}"
        );
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains("crash"), "{printed}");
        bench.ok("pareto whole");
    }
}
