//! Standard output and standard error that close early or take nothing.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const SPEC: &str = "\
name: streams
base:
  model: llama-3-8b
  device: h100
  backend: roofline
  qps: 4
  workload:
    requests: 20
    lengths: {type: fixed, prefill_tokens: 100, decode_tokens: 10}
    arrivals: poisson
axes: {tensor_parallel: [1, 2]}
";

const EXPLAINED: &str = "explain --model llama-3-8b --device h100 --backend roofline";

/// A folder with a specification, its results and a topology.
fn bench() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("spec.yaml"), SPEC).expect("a file");
    for prepared in [
        "run spec.yaml --out done --quiet",
        "topology generate nvl72 --gpus 72 --out topology",
    ] {
        let output = command(folder.path(), prepared)
            .output()
            .expect("a process");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{prepared}: {told}");
    }
    folder
}

fn command(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vidur-sweep"));
    command
        .current_dir(folder)
        .args(arguments.split_whitespace())
        .stdin(Stdio::null());
    command
}

/// Every command that prints a result.
fn commands() -> Vec<String> {
    let mut commands: Vec<String> = [
        "--help",
        "run --help",
        "--version",
        "completions bash",
        "completions zsh",
        "schema",
        "validate spec.yaml",
        "plan spec.yaml --format table",
        "plan spec.yaml --format json",
        "plan spec.yaml --format csv",
        "pareto done",
        "pareto done --format json",
        "pareto done --format csv",
        "report done",
        "report done --format json",
        "run spec.yaml --force --out again",
        "run spec.yaml --force --out again --format csv --quiet",
        "catalog models",
        "catalog devices --format json",
        "catalog engines --format csv",
        "catalog schedulers",
        "profiles list",
        "profiles list --format csv",
        "topology show topology",
        "topology generate nvl72 --gpus 72 --out -",
        "simulate --synthetic_request_generator_config_num_requests 3 --quiet",
        "simulate --synthetic_request_generator_config_num_requests 3 --quiet --format json",
    ]
    .map(str::to_owned)
    .into();
    commands
        .extend(["table", "json", "csv"].map(|format| format!("{EXPLAINED} --format {format}")));
    commands
}

/// The end of a pipe that nobody reads.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn full_device() -> Stdio {
    let device = OpenOptions::new().write(true).open("/dev/full");
    device.expect("/dev/full").into()
}

fn assert_calm(arguments: &str, output: &Output, code: i32) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {told}");
    assert!(!told.contains("panicked"), "{arguments}: {told}");
}

#[test]
fn a_closed_pipe_ends_every_command_quietly() {
    let folder = bench();
    for arguments in commands() {
        let output = command(folder.path(), &arguments)
            .stdout(closed_pipe())
            .stderr(Stdio::piped())
            .output()
            .expect("a process");
        assert_calm(&arguments, &output, 0);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!told.contains("error"), "{arguments}: {told}");
    }
    // What the exit code says does not depend on who reads.
    let arguments = "pareto done --slo ttft_p90_s=1e-9 --require-feasible";
    let output = command(folder.path(), arguments)
        .stdout(closed_pipe())
        .output()
        .expect("a process");
    assert_calm(arguments, &output, 3);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_an_error_of_every_command() {
    let folder = bench();
    for arguments in commands() {
        let output = command(folder.path(), &arguments)
            .stdout(full_device())
            .stderr(Stdio::piped())
            .output()
            .expect("a process");
        assert_calm(&arguments, &output, 1);
        let told = String::from_utf8_lossy(&output.stderr);
        let expected = "standard output: No space left on device";
        assert!(told.contains(expected), "{arguments}: {told}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_broken_standard_error_stops_nothing() {
    let folder = bench();
    for arguments in commands() {
        let (mut closed, mut full) = (
            command(folder.path(), &arguments),
            command(folder.path(), &arguments),
        );
        for command in [closed.stderr(closed_pipe()), full.stderr(full_device())] {
            let output = command.stdout(Stdio::piped()).output().expect("a process");
            assert_calm(&arguments, &output, 0);
            assert!(!output.stdout.is_empty(), "{arguments}");
        }
    }
    for arguments in ["validate absent.yaml", "run absent.yaml", "no-such-command"] {
        let output = command(folder.path(), arguments)
            .stderr(closed_pipe())
            .output()
            .expect("a process");
        assert_calm(arguments, &output, 2);
    }
    let done = folder.path().join("again/manifest.json");
    assert!(done.exists());
}
