//! An installed SimAI simulator as what prices collectives: one run of the
//! program per size, remembered in memory and on disk.
//!
//! The program is called as Vidur-AlibabaCloud calls it: a workload of one layer
//! with one collective of a tensor group, and the total exposed communication
//! read from `ncclFlowModel_EndToEnd.csv`. Every run has a working directory of
//! its own, so that runs may go on side by side, and what is kept on disk is
//! filed under everything that matters to it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Collective;
use crate::external::{self, AllowPrograms};
use crate::input_file::{self, InputKind};
use crate::output_file;

/// File the program leaves its result in.
const RESULT_FILE: &str = "ncclFlowModel_EndToEnd.csv";

/// What Vidur-AlibabaCloud sets for the program.
const ENVIRONMENT: [(&str, &str); 2] = [("AS_SEND_LAT", "6"), ("AS_NVLS_ENABLE", "1")];

/// Threads Vidur-AlibabaCloud has the program use.
const THREADS: &str = "16";

/// Changes whenever runs are made or read in another way.
const FORMAT: &str = "vidur-sweep simai run 1";

/// Numbers working directories and unfinished files of this program.
static MADE: AtomicU64 = AtomicU64::new(0);

/// What one run answers: collective, bytes, ranks.
type Query = (Collective, u64, u32);

/// A price in microseconds, once known, or why there is none.
type Answer = Arc<OnceLock<Result<f64, String>>>;

/// A SimAI simulator with its topology and configuration. Shared by threads.
#[derive(Debug)]
pub struct SimaiBinary {
    program: PathBuf,
    topology: PathBuf,
    /// The configuration; its traces are led to the working directory.
    conf: String,
    /// Hash of program, topology and configuration.
    fingerprint: String,
    cache: Option<PathBuf>,
    leave: Option<AllowPrograms>,
    answers: Mutex<BTreeMap<Query, Answer>>,
}

impl SimaiBinary {
    /// The program over a topology. Results are kept below `cache`, if given; without
    /// leave to run the program there are no others.
    ///
    /// # Errors
    /// If a file cannot be read; one line that names it.
    pub fn new(
        program: &Path,
        topology: &Path,
        conf: &Path,
        cache: Option<&Path>,
        leave: Option<AllowPrograms>,
    ) -> Result<Self, String> {
        let read = |file: &Path, kind| {
            input_file::read(file, kind).map_err(|error| match error.kind() {
                ErrorKind::NotFound => format!("{}: no such file", file.display()),
                _ => format!("{}: {error}", file.display()),
            })
        };
        let absolute = |file: &Path| {
            fs::canonicalize(file).map_err(|error| format!("{}: {error}", file.display()))
        };
        let mut hasher = blake3::Hasher::new();
        let conf = read(conf, InputKind::SimaiConf)?;
        for content in [
            &read(program, InputKind::Program)?,
            &read(topology, InputKind::Topology)?,
            &conf,
        ] {
            hasher.update(blake3::hash(content).as_bytes());
        }
        Ok(Self {
            program: absolute(program)?,
            topology: absolute(topology)?,
            conf: String::from_utf8_lossy(&conf).into_owned(),
            fingerprint: hasher.finalize().to_hex().to_string(),
            cache: cache.map(|folder| folder.join("simai")),
            leave,
            answers: Mutex::default(),
        })
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Time of a collective of `bytes` in a tensor group of `ranks` consecutive
    /// GPUs, all such groups of the topology at once, microseconds.
    ///
    /// # Errors
    /// If the program fails or says nothing; one line.
    pub fn time_us(&self, collective: Collective, bytes: u64, ranks: u32) -> Result<f64, String> {
        let query = (collective, bytes, ranks);
        let answer = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(answers.entry(query).or_default())
        };
        // Threads that ask the same wait for one run; others go on.
        answer.get_or_init(|| self.kept_or_run(query)).clone()
    }

    fn kept_or_run(&self, query: Query) -> Result<f64, String> {
        let Some(folder) = &self.cache else {
            return self.run(query, &std::env::temp_dir()).map(|(time, _)| time);
        };
        let kept = folder.join(format!("{}.csv", self.key(query)));
        if let Some(time_us) = input_file::read_text(&kept, InputKind::LayerTimes)
            .ok()
            .as_deref()
            .and_then(exposed_us)
        {
            return Ok(time_us);
        }
        let unusable = |error: io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(unusable)?;
        let (time_us, text) = self.run(query, folder)?;
        output_file::write_whole(&kept, text.as_bytes()).map_err(unusable)?;
        Ok(time_us)
    }

    /// Hash of everything a result depends on.
    fn key(&self, (collective, bytes, ranks): Query) -> String {
        let key = format!(
            "{FORMAT}\n{}\n{ENVIRONMENT:?}\n{THREADS}\n{}",
            self.fingerprint,
            workload(collective, bytes, ranks)
        );
        blake3::hash(key.as_bytes()).to_hex()[..32].to_owned()
    }

    /// One run in a directory of its own below `folder`, and what it wrote.
    fn run(&self, query: Query, folder: &Path) -> Result<(f64, String), String> {
        let Some(leave) = self.leave else {
            return Err(format!(
                "{}: a program is run only with --allow-programs",
                self.program.display()
            ));
        };
        let place = WorkingDirectory::below(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let (collective, bytes, ranks) = query;
        let what = format!(
            "{} ({} of {bytes} bytes, {ranks} ranks)",
            self.program.display(),
            collective.simai_name()
        );
        let failed = |error: io::Error| format!("{what}: {error}");
        let write = |name: &str, text: &str| fs::write(place.0.join(name), text).map_err(failed);
        write("workload.txt", &workload(collective, bytes, ranks))?;
        write("SimAI.conf", &with_traces_in(&self.conf, &place.0))?;
        let ending = external::run(&mut self.command(&place.0), leave).map_err(failed)?;
        if let Some(failure) = ending.failure() {
            return Err(format!("{what}: {failure}"));
        }
        let result = place.0.join(RESULT_FILE);
        let text = input_file::read_text(&result, InputKind::LayerTimes).unwrap_or_default();
        match exposed_us(&text) {
            Some(time_us) => Ok((time_us, text)),
            None => Err(format!("{what}: no result in {RESULT_FILE}")),
        }
    }

    fn command(&self, place: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["-t", THREADS, "-w", "workload.txt", "-n"])
            .arg(&self.topology)
            .args(["-c", "SimAI.conf"])
            .current_dir(place);
        // Others of the caller's would change results unseen.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("AS_") || text.starts_with("SIMAI_") {
                command.env_remove(&name);
            }
        }
        command.envs(ENVIRONMENT);
        command
    }
}

/// A directory that goes away with its run.
struct WorkingDirectory(PathBuf);

impl WorkingDirectory {
    /// Makes one that nobody has.
    fn below(folder: &Path) -> io::Result<Self> {
        loop {
            let place = folder.join(unique_name("run"));
            match fs::create_dir(&place) {
                // Left by a program that had this one's number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => return made.and_then(|()| fs::canonicalize(place)).map(Self),
            }
        }
    }
}

impl Drop for WorkingDirectory {
    fn drop(&mut self) {
        // What cannot be removed harms nobody: no other run takes its name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A name no other thread or running program takes.
fn unique_name(what: &str) -> String {
    let number = MADE.fetch_add(1, Relaxed);
    format!(".vidur-sweep-{what}-{}-{number}", std::process::id())
}

/// SimAI's workload of one layer with one collective.
fn workload(collective: Collective, bytes: u64, ranks: u32) -> String {
    format!(
        "HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: {ranks} ep: 1 pp: 1 vpp: 1 \
         ga: 1 all_gpus: {ranks} checkpoints: 0 checkpoint_initiates: 0 pp_comm: 0\n1\n\
         layer0 -1 1 {} {bytes} 0 NONE 0 0 NONE 0 100\n",
        collective.simai_name()
    )
}

/// The configuration with its traces and monitors written to `folder`: SimAI's
/// own has one file for all runs of a machine.
fn with_traces_in(conf: &str, folder: &Path) -> String {
    let led = |line: &str| {
        let (key, file) = line.split_once(char::is_whitespace)?;
        let written = key.ends_with("_OUTPUT_FILE") || key.ends_with("_MON_FILE");
        let name = Path::new(file.trim()).file_name()?;
        written.then(|| format!("{key} {}", folder.join(name).display()))
    };
    let lines = conf.lines();
    let lines = lines.map(|line| led(line).unwrap_or_else(|| line.to_owned()) + "\n");
    lines.collect()
}

/// Total exposed communication of a result, microseconds: the second field of
/// its last line.
fn exposed_us(text: &str) -> Option<f64> {
    let last = text.lines().rfind(|line| !line.trim().is_empty())?;
    let mut fields = last.split(',');
    (fields.next()?.trim() == "total exposed comm").then_some(())?;
    let time_us: f64 = fields.next()?.trim().parse().ok()?;
    (time_us.is_finite() && time_us > 0.0).then_some(time_us)
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use std::process::Stdio;

    use super::*;

    #[test]
    fn the_total_is_the_second_field_of_the_last_line() {
        let row = "total exposed comm,53.061000,total comp,0.001000,total time,53.062000\n";
        let text = format!("File name, ...\nSUM,test1,0.001000\n{row}");
        assert_eq!(exposed_us(&text), Some(53.061));
        for cut in [
            "",
            "File name\nSUM,test1,0.001\n",
            "total exposed comm,-nan,",
        ] {
            assert_eq!(exposed_us(cut), None, "{cut}");
        }
    }

    #[test]
    fn traces_go_to_the_working_directory_and_inputs_stay() {
        let conf = "FLOW_FILE /etc/f.txt\nFCT_OUTPUT_FILE /etc/fct.txt\nBW_MON_FILE /etc/bw.txt\nENABLE_QCN 1\n";
        assert_eq!(
            with_traces_in(conf, Path::new("/run")),
            "FLOW_FILE /etc/f.txt\nFCT_OUTPUT_FILE /run/fct.txt\nBW_MON_FILE /run/bw.txt\nENABLE_QCN 1\n"
        );
    }

    /// A program that takes a microsecond a byte, and notes that it was called.
    #[cfg(unix)]
    const PROGRAM: &str = r#"#!/bin/sh
echo "$AS_SEND_LAT $AS_NVLS_ENABLE $*" >> "$(dirname "$0")/calls"
test -e ncclFlowModel_EndToEnd.csv && exit 9
bytes=$(sed -n 's/^layer0 -1 1 [A-Z]* \([0-9]*\) .*/\1/p' workload.txt)
test "$bytes" = 13 && { echo first >&2; echo 'no luck' >&2; exit 3; }
test "$bytes" = 14 && { : > ncclFlowModel_EndToEnd.csv; exit 0; }
sleep 0.02
echo "total exposed comm,$bytes.0,total comp,0.001" > ncclFlowModel_EndToEnd.csv
"#;

    #[cfg(unix)]
    #[test]
    fn runs_side_by_side_do_not_meet_and_are_kept() {
        use std::io::Write as _;

        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        // Written by another program: one that this has open for writing could
        // not be started while other tests start theirs.
        let mut shell = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod +x \"$0\""])
            .arg(place("program"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = shell.stdin.take().unwrap();
        input.write_all(PROGRAM.as_bytes()).unwrap();
        drop(input);
        assert!(shell.wait().unwrap().success());
        fs::write(place("topology"), "").unwrap();
        fs::write(place("conf"), "").unwrap();
        let binary = || {
            let (program, topology) = (place("program"), place("topology"));
            let leave = Some(AllowPrograms::by_option(60));
            SimaiBinary::new(
                &program,
                &topology,
                &place("conf"),
                Some(folder.path()),
                leave,
            )
            .unwrap()
        };
        let calls = || fs::read_to_string(place("calls")).unwrap();
        let price = |binary: &SimaiBinary, bytes| binary.time_us(Collective::AllReduce, bytes, 4);

        // As two programs do, each with four threads that ask the same.
        let (one, two) = (binary(), binary());
        std::thread::scope(|scope| {
            for binary in [&one, &two] {
                for _ in 0..4 {
                    scope.spawn(move || {
                        for bytes in 20..24 {
                            assert_eq!(price(binary, bytes), Ok(bytes as f64));
                        }
                    });
                }
            }
        });
        let made = calls().lines().count();
        assert!((4..=8).contains(&made), "{made}");
        assert!(calls().starts_with("6 1 -t 16 -w workload.txt -n /"));
        // A later program runs nothing.
        assert_eq!(price(&binary(), 21), Ok(21.0));
        assert_eq!(calls().lines().count(), made);

        let told = price(&one, 13).unwrap_err();
        assert!(told.ends_with("exit status: 3: no luck"), "{told}");
        let told = price(&one, 14).unwrap_err();
        assert!(
            told.ends_with("no result in ncclFlowModel_EndToEnd.csv"),
            "{told}"
        );
        // Failures are not kept, nor are working directories.
        let mut left: Vec<_> = (fs::read_dir(place("simai")).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left.len(), 4);
        assert!(left.iter().all(|name| name.ends_with(".csv")), "{left:?}");
    }

    #[test]
    fn a_run_is_filed_under_all_it_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let key = |program: &str, topology: &str, conf: &str, query: Query| {
            let program = file("program", program);
            let topology = file("topology", topology);
            let conf = file("conf", conf);
            let binary = SimaiBinary::new(&program, &topology, &conf, None, None).unwrap();
            binary.key(query)
        };
        let query = (Collective::AllReduce, 4096, 4);
        let same = key("a", "b", "c", query);
        assert_eq!(same, key("a", "b", "c", query));
        let others = [
            key("x", "b", "c", query),
            key("a", "x", "c", query),
            key("a", "b", "x", query),
            // The same bytes in other files.
            key("ab", "", "c", query),
            key("a", "b", "c", (Collective::AllGather, 4096, 4)),
            key("a", "b", "c", (Collective::AllReduce, 4097, 4)),
            key("a", "b", "c", (Collective::AllReduce, 4096, 8)),
        ];
        for (place, other) in others.iter().enumerate() {
            assert!(*other != same && !others[..place].contains(other));
        }
    }
}
