//! Inputs that are no files, files that speak to the terminal, and specifications
//! that name programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use tempfile::TempDir;

const WORKLOAD: &str = "workload: {requests: 5, lengths: {type: fixed, prefill_tokens: 5, \
                        decode_tokens: 5}, arrivals: poisson}";

/// Long enough for any of these commands; one that waits for a pipe never ends.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// A specification with these keys in `base`.
    fn spec(&self, name: &str, base: &str) {
        let text = format!(
            "name: s\nbase:\n  model: llama-3-8b\n  device: h100\n  qps: 1\n  {WORKLOAD}\n{base}"
        );
        self.write(name, &text);
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::cargo_bin("vidur-sweep").expect("the binary");
        command
            .current_dir(self.folder.path())
            .args(arguments.split_whitespace())
            .timeout(PATIENCE);
        command
    }

    /// What a command that is refused says.
    fn refused(&self, arguments: &str) -> String {
        let assert = self.command(arguments).assert().code(2);
        let output = assert.get_output();
        assert!(output.stdout.is_empty(), "{arguments}");
        String::from_utf8(output.stderr.clone()).expect("UTF-8")
    }
}

/// Commands that read a specification.
const OF_SPECS: [&str; 3] = ["validate", "plan", "run"];

#[cfg(target_os = "linux")]
#[test]
fn what_is_no_file_on_a_disk_is_refused_before_it_is_read() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    let bench = Bench::new();
    mknodat(
        CWD,
        bench.path("pipe"),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .expect("a pipe");
    fs::create_dir(bench.path("folder")).expect("a folder");
    let inputs = [
        (bench.path("pipe").display().to_string(), "a pipe"),
        ("/dev/zero".to_owned(), "a device"),
        ("/proc/self/environ".to_owned(), "a file of the kernel"),
        (bench.path("folder").display().to_string(), "a directory"),
    ];
    for (input, what) in &inputs {
        let lengths = format!("{{type: trace, file: {input}}}");
        let of_base = [
            format!("  network: {{topology: {input}}}\n"),
            format!(
                "  network: {{topology: topology, simai_conf: {input}}}\n  backend: simai_simulation\n"
            ),
            format!("  backend: table\n  predictions_file: {input}\n"),
            format!("  backend: recorded\n  execution_times_file: {input}\n"),
            format!("  backend: vidur\n  predictor: {{compute_input_file: {input}}}\n"),
        ];
        let mut specs = vec![
            format!(
                "name: s\nbase:\n  model: llama-3-8b\n  device: h100\n  qps: 1\n  workload: {{requests: 5, lengths: {lengths}, arrivals: poisson}}\n"
            ),
            format!(
                "name: s\nsearch: {{type: list, file: {input}}}\nbase:\n  model: llama-3-8b\n  device: h100\n  qps: 1\n  {WORKLOAD}\n"
            ),
        ];
        if *what != "a directory" {
            specs.push(format!(
                "name: s\nbase:\n  model: llama-3-8b\n  device: {input}\n  qps: 1\n  {WORKLOAD}\n"
            ));
        }
        specs.extend(of_base.map(|base| {
            format!("name: s\nbase:\n  model: llama-3-8b\n  device: h100\n  qps: 1\n  {WORKLOAD}\n{base}")
        }));
        bench
            .command("topology generate nvl72 --gpus 72 --out topology")
            .assert()
            .code(0);
        for spec in specs {
            bench.write("spec.yaml", &spec);
            for command in OF_SPECS {
                let told = bench.refused(&format!("{command} spec.yaml --set seed=1"));
                assert!(told.contains(what), "{command} of {spec}\n{told}");
                assert!(told.contains(input.as_str()), "{told}");
            }
        }
        for command in [
            format!("validate {input}"),
            format!("run {input}"),
            format!("plan {input}"),
            format!("topology show {input}"),
            format!("explain --steps {input} --out priced.csv"),
            format!("simulate --config {input}"),
            format!("simulate --requests-file {input}"),
            format!("network price --queries {input} --backend nccl --out -"),
        ] {
            let told = bench.refused(&command);
            assert!(told.contains(what), "{command}: {told}");
        }
    }
    // And what the environment holds is not told.
    let told = bench
        .command("run /proc/self/environ")
        .env("SECRET_OF_MINE", "hunter2")
        .assert()
        .code(2);
    let told = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    assert!(!told.contains("hunter2"), "{told}");
}

/// Nothing of a message does anything to a terminal, and no line is endless.
fn assert_tame(told: &str) {
    let steers = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}'));
    assert!(!told.contains(steers), "{told:?}");
    let longest = told.lines().map(|line| line.chars().count()).max();
    assert!(
        longest.is_none_or(|longest| longest <= 10_000),
        "{longest:?}"
    );
}

#[test]
fn what_files_say_is_shown_tame_and_short() {
    let bench = Bench::new();
    let rude = "\\e[31mred\\a\\r\\u202Eedoc";
    let long = "x".repeat(100_000);
    let specs = [
        format!("\"{rude}\": 1\nname: s\n"),
        format!("{long}: 1\nname: s\n"),
        format!("name: \"{rude}\"\nbase: {{}}\n"),
        format!("name: s\nbase: {{model: \"{rude}\", device: h100, qps: 1, {WORKLOAD}}}\n"),
        format!("name: s\nbase: {{model: {long}, device: h100, qps: 1, {WORKLOAD}}}\n"),
        format!("name: s\nbase: {{model: \"a\\nerror: no\", device: h100, qps: 1, {WORKLOAD}}}\n"),
        format!(
            "name: s\nbase: {{model: llama-3-8b, device: h100, backend: \"{rude}\", {WORKLOAD}}}\n"
        ),
        format!(
            "name: s\nbase: {{model: llama-3-8b, device: h100, qps: \"{rude}\", {WORKLOAD}}}\n"
        ),
        format!(
            "name: s\nbase: {{model: llama-3-8b, device: h100, qps: 1, {WORKLOAD}}}\nconstraints: [\"{rude}\"]\n"
        ),
        format!(
            "name: s\nbase: {{model: llama-3-8b, device: h100, qps: 1, {WORKLOAD}}}\nslo: {{\"{rude}\": 1}}\n"
        ),
        "\u{1b}[31m: [\n".to_owned(),
    ];
    for spec in specs {
        bench.write("spec.yaml", &spec);
        for command in OF_SPECS {
            let told = bench.refused(&format!("{command} spec.yaml"));
            assert_tame(&told);
            assert!(told.lines().count() <= 30, "{told}");
        }
    }
    // Data files, and the names of files.
    let rude = "\u{1b}[31mred\u{7}";
    bench.write("trace.csv", &format!("{rude},b\n1,{rude}\n"));
    bench.write("table.csv", &format!("op,f0,f1,ms\n{rude},1,1,1\n"));
    bench.write("topology", &format!("3 2 {rude} 0 2 H100\n"));
    bench.write("queries.csv", &format!("{rude}\n1\n"));
    bench.write(
        "lengths.yaml",
        "name: s\nbase: {model: llama-3-8b, device: h100, qps: 1, workload: {requests: 5, lengths: {type: trace, file: trace.csv}, arrivals: poisson}}\n",
    );
    bench.spec(
        "table.yaml",
        "  backend: table\n  predictions_file: table.csv\n",
    );
    bench.spec("topology.yaml", "  network: {topology: topology}\n");
    for command in [
        "validate lengths.yaml",
        "validate table.yaml",
        "validate topology.yaml",
        "topology show topology",
        "network price --queries queries.csv --backend nccl --out -",
        "simulate --requests-file trace.csv",
        "explain --steps trace.csv --out out.csv",
    ] {
        assert_tame(&bench.refused(command));
    }
    let told = bench
        .command("validate")
        .arg("a\u{1b}[31m.yaml")
        .assert()
        .code(2);
    assert_tame(&String::from_utf8_lossy(&told.get_output().stderr));
}

#[test]
fn malformed_files_of_prices_are_bad_input_with_their_place() {
    let bench = Bench::new();
    let aicb = "aicb/vidur-DeepSeek-671B-world_size8-tp8-pp1-ep8-bs1-seq1024-prefill.csv";
    bench.write(
        aicb,
        "layer_id\tlayer_name\tcomp_time\tcomm_size\n0\tattention\t5\t0\n0\tmlp\tx\t0\n",
    );
    bench.write("table.csv", "op,f0,f1,ms\nattn_rope,1,,x\n");
    bench.write(
        "times.csv",
        "batch_id,replica_id,stage_id,execution_time\n0,0,0,slow\n",
    );
    bench.write("topology", "3 2 1 0 2 H100\n2\n0 9 2880Gbps 0.000025ms 0\n");
    bench.write("SimAI.conf", "PACKET_PAYLOAD_SIZE many\n");
    bench
        .command("topology generate nvl72 --gpus 72 --out good")
        .assert()
        .code(0);
    bench.write(
        "profiles/compute/h100/llama-3-8b/mlp.csv",
        "n_head,n_kv_head,n_embd,n_expanded_embd,use_gated_mlp,num_tensor_parallel_workers,time_stats.emb.median\n32,8,4096,14336,True,1,fast\n",
    );
    bench.write("mlp.csv", "n_head\n1,2\n");
    let cases = [
        (
            "  model: deepseek-671B\n  tensor_parallel: 8\n  expert_parallel: 8\n  backend: aicb\n  aicb_dir: aicb\n",
            format!("{aicb}:3:7"),
        ),
        (
            "  backend: table\n  predictions_file: table.csv\n",
            "table.csv:2:14".to_owned(),
        ),
        (
            "  backend: recorded\n  execution_times_file: times.csv\n",
            "times.csv:2:7".to_owned(),
        ),
        (
            "  network: {topology: topology}\n",
            "topology:3:3".to_owned(),
        ),
        (
            "  backend: simai_simulation\n  network: {topology: good, simai_conf: SimAI.conf}\n",
            "SimAI.conf:1:21".to_owned(),
        ),
        (
            "  backend: vidur\n  predictor: {compute_input_file: mlp.csv}\n",
            "mlp.csv:2".to_owned(),
        ),
    ];
    for (base, place) in cases {
        let base = base.to_owned();
        let text = match base.contains("model:") {
            true => format!("name: s\nbase:\n  device: h100\n  qps: 1\n  {WORKLOAD}\n{base}"),
            false => format!(
                "name: s\nbase:\n  model: llama-3-8b\n  device: h100\n  qps: 1\n  {WORKLOAD}\n{base}"
            ),
        };
        bench.write("spec.yaml", &text);
        for command in OF_SPECS {
            let told = bench.refused(&format!("{command} spec.yaml"));
            assert!(told.contains(&place), "{command}: {place}\n{told}");
        }
        assert!(!bench.path("results").exists());
    }
}

#[test]
fn times_that_are_none_are_refused_wherever_they_are_read() {
    const PROFILE: &str = "profiles/compute/h100/llama-3-8b/mlp.csv";
    const AICB: &str = "aicb/vidur-DeepSeek-671B-world_size8-tp8-pp1-ep8-bs1-seq1024-prefill.csv";
    // The file, its text with the time in the place of TIME, the place of that and the keys
    // that name the file.
    let cases = [
        (
            "table.csv",
            "op,f0,f1,ms\nattn_rope,1,,0.5\nattn_rope,2,,TIME\n",
            "table.csv:3:14",
            "  backend: table\n  predictions_file: table.csv\n",
        ),
        (
            "times.csv",
            "batch_id,replica_id,stage_id,execution_time\n0,0,0,TIME\n",
            "times.csv:2:7",
            "  backend: recorded\n  execution_times_file: times.csv\n",
        ),
        (
            "times.csv",
            "nth_batch,replica_id,stage_id,execution_time,model_execution_time\n0,0,0,1,TIME\n",
            "times.csv:2:9",
            "  backend: recorded\n  execution_times_file: times.csv\n",
        ),
        (
            AICB,
            "layer_id\tlayer_name\tcomp_time\tcomm_size\n0\tattention\tTIME\t0\n",
            &format!("{AICB}:2:13"),
            "  model: deepseek-671B\n  tensor_parallel: 8\n  expert_parallel: 8\n  backend: aicb\n  aicb_dir: aicb\n",
        ),
        (
            AICB,
            "layer_id\tlayer_name\tcomp_time\tcomm_size\n0\tattention\t5\tTIME\n",
            &format!("{AICB}:2:15"),
            "  model: deepseek-671B\n  tensor_parallel: 8\n  expert_parallel: 8\n  backend: aicb\n  aicb_dir: aicb\n",
        ),
        (
            PROFILE,
            "n_head,n_kv_head,n_embd,n_expanded_embd,use_gated_mlp,num_tensor_parallel_workers,num_tokens,time_stats.emb.median\n32,8,4096,14336,True,1,5,TIME\n",
            &format!("{PROFILE}:2:26"),
            "  backend: vidur\n  profiling_dir: profiles\n",
        ),
    ];
    let bench = Bench::new();
    for (file, text, place, base) in cases {
        for time in ["-0.25", "nan", "inf", "-inf", "1e300", "fast"] {
            bench.write(file, &text.replace("TIME", time));
            let text = match base.contains("model:") {
                true => format!("name: s\nbase:\n  device: h100\n  qps: 1\n  {WORKLOAD}\n{base}"),
                false => format!(
                    "name: s\nbase:\n  model: llama-3-8b\n  device: h100\n  qps: 1\n  {WORKLOAD}\n{base}"
                ),
            };
            bench.write("spec.yaml", &text);
            let told = bench.refused("validate spec.yaml");
            let value = format!("`{time}`");
            let wanted = told.contains(place) && told.contains(&value);
            assert!(wanted, "{file} with {time}: {place}\n{told}");
        }
    }
    bench.write("table.csv", "op,f0,f1,ms\nattn_rope,1,,-3\n");
    let told = bench.refused("simulate --predictions_file table.csv");
    assert!(
        told.contains("table.csv:2:14: ms: `-3` is not a time from 0 to 1e9 ms"),
        "{told}"
    );
    bench.write(
        "times.csv",
        "nth_batch,replica_id,stage_id,execution_time\n0,0,0,-3\n",
    );
    let told = bench.refused("simulate --execution_times_file times.csv");
    assert!(
        told.contains("times.csv:2:7: execution_time: `-3` is not a time from 0 to 1e6 s"),
        "{told}"
    );
    // A part of a time is no more than the time.
    bench.write(
        "times.csv",
        "nth_batch,replica_id,stage_id,execution_time,model_execution_time\n0,0,0,1,2\n",
    );
    let told = bench.refused("simulate --execution_times_file times.csv");
    assert!(
        told.contains("times.csv:2:9: model_execution_time: `2`"),
        "{told}"
    );
}

#[cfg(unix)]
mod programs {
    use super::*;

    const KEYS: &str = "  backend: simai_simulation\n  tensor_parallel: 2\n";

    /// A specification whose program leaves a trace when it is run.
    fn bench(program: &str) -> Bench {
        let bench = Bench::new();
        bench
            .command("topology generate nvl72 --gpus 72 --out T")
            .assert()
            .code(0);
        bench.write("SimAI.conf", "ENABLE_QCN 1\n");
        // Written by a program that has ended: one that is open for writing cannot be
        // started.
        let made = std::process::Command::new("sh")
            .args([
                "-c",
                "printf '%s' \"$1\" > program && chmod +x program",
                "sh",
                program,
            ])
            .current_dir(bench.folder.path())
            .status()
            .expect("a shell");
        assert!(made.success());
        bench.spec(
            "s.yaml",
            &format!("{KEYS}  network: {{topology: T, simai_conf: SimAI.conf, simai_binary: ./program}}\n"),
        );
        bench
    }

    const WITNESS: &str = "#!/bin/sh\necho run >> \"$(dirname \"$0\")/executed\"\nexit 1\n";

    #[test]
    fn a_specification_runs_none_by_itself() {
        let bench = bench(WITNESS);
        for command in [
            "validate s.yaml",
            "plan s.yaml",
            "explain --spec s.yaml --run 0",
        ] {
            let _ = bench.command(command).assert().code(0);
            assert!(!bench.path("executed").exists(), "{command}");
        }
        let with_axis = format!(
            "name: s\nbase:\n  model: llama-3-8b\n  device: h100\n  qps: 1\n  {WORKLOAD}\n{KEYS}  \
             network: {{topology: T, simai_conf: SimAI.conf}}\naxes:\n  \
             network.simai_binary: [./program]\n"
        );
        bench.write("axis.yaml", &with_axis);
        bench.write("points.csv", "network.simai_binary,qps\n./program,1\n");
        let with_points = format!(
            "name: s\nsearch: {{type: list, file: points.csv}}\nbase:\n  model: llama-3-8b\n  \
             device: h100\n  {WORKLOAD}\n{KEYS}  network: {{topology: T, simai_conf: SimAI.conf}}\n"
        );
        bench.write("points.yaml", &with_points);
        bench.spec(
            "plain.yaml",
            &format!("{KEYS}  network: {{topology: T, simai_conf: SimAI.conf}}\n"),
        );
        for (command, place) in [
            ("run s.yaml", "s.yaml:9:"),
            ("run s.yaml --resume", "s.yaml:9:"),
            ("run axis.yaml", "axis.yaml:11:"),
            ("run points.yaml", "points.csv:2"),
            (
                "run plain.yaml --set network.simai_binary=./program",
                "--set network.simai_binary=./program",
            ),
        ] {
            let told = bench.refused(command);
            assert!(told.contains(place), "{command}: {told}");
            assert!(told.contains("network.simai_binary"), "{told}");
            assert!(told.contains("--allow-programs"), "{told}");
            assert!(!bench.path("executed").exists(), "{command}");
        }
        // With leave it is run, and that it fails is told.
        let told = bench.refused("run s.yaml --allow-programs");
        assert!(told.contains("exit status: 1"), "{told}");
        assert!(bench.path("executed").exists());
    }

    #[test]
    fn a_program_that_never_ends_is_ended_and_with_it_what_it_started() {
        use std::time::Instant;

        use vidur_sweep::external::AllowPrograms;
        use vidur_sweep::network::{Collective, SimaiBinary};

        let bench = bench("#!/bin/sh\nsleep 600 &\necho $! > \"$(dirname \"$0\")/child\"\nwait\n");
        let leave = AllowPrograms {
            time_limit: Duration::from_millis(500),
        };
        let [program, topology, conf] = ["program", "T", "SimAI.conf"].map(|name| bench.path(name));
        let binary = SimaiBinary::new(&program, &topology, &conf, None, Some(leave));
        let started = Instant::now();
        let told = binary
            .expect("a program")
            .time_us(Collective::AllReduce, 4096, 2)
            .expect_err("no result");
        assert!(told.contains("time limit"), "{told}");
        assert!(started.elapsed() < Duration::from_secs(20));
        let child = fs::read_to_string(bench.path("child")).expect("a child");
        let status = Path::new("/proc").join(child.trim()).join("status");
        let lives = || {
            let state = fs::read_to_string(&status).unwrap_or_default();
            !state.is_empty() && !state.contains("zombie")
        };
        // It was ended; that it is gone takes the system a moment.
        let deadline = Instant::now() + Duration::from_secs(20);
        while lives() {
            assert!(Instant::now() < deadline, "it goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
