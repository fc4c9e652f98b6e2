//! Opens the files that prices come from before anything runs, each of them once: a
//! file that is not there, or not what it should be, is the specification's fault and
//! not a deployment that cannot exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::RunConfig;
use super::entries::Entries;
use crate::execution_time::BackendKind;
use crate::execution_time::aicb;
use crate::execution_time::vidur::{Profile, ProfileFile, RecordedCost, TableCost};
use crate::input_file::{self, InputKind};
use crate::network::flow::SimaiConf;
use crate::network::topology::Topology;

/// What a file should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    Topology,
    SimaiConf,
    Program,
    Predictions,
    /// Recorded times of this many stages.
    StageTimes(u32),
    AicbFolder,
    Profile(Profile),
}

/// Files looked at so far, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct PriceFiles {
    seen: BTreeMap<(Content, PathBuf), Option<String>>,
    /// GPUs of a server, of the topologies among them.
    gpus_per_server: BTreeMap<PathBuf, u32>,
}

impl PriceFiles {
    /// The first file of a configuration that is not what it should be: the key it is
    /// about, and what is wrong.
    pub(super) fn problem(
        &mut self,
        config: &RunConfig,
        entries: &Entries,
    ) -> Option<(&'static str, String)> {
        self.of_network(config)
            .or_else(|| self.of_backend(config, entries))
    }

    fn of_network(&mut self, config: &RunConfig) -> Option<(&'static str, String)> {
        let network = &config.network;
        let files = [
            ("network.topology", Content::Topology, &network.topology),
            (
                "network.simai_conf",
                Content::SimaiConf,
                &network.simai_conf,
            ),
            (
                "network.simai_binary",
                Content::Program,
                &network.simai_binary,
            ),
        ];
        let problem = files.into_iter().find_map(|(key, content, file)| {
            let problem = self.look(content, file.as_deref()?)?;
            Some((key, problem))
        });
        problem.or_else(|| {
            let topology = network
                .topology
                .as_ref()
                .filter(|_| config.places_pools())?;
            let servers = *self.gpus_per_server.get(topology)?;
            let problem = config.other_servers(servers)?;
            Some((problem.key?, problem.reason))
        })
    }

    fn of_backend(
        &mut self,
        config: &RunConfig,
        entries: &Entries,
    ) -> Option<(&'static str, String)> {
        let needed = |file: &Option<PathBuf>, key: &str| match file {
            Some(file) => Ok(file.clone()),
            None => Err(("backend", format!("needs `{key}`"))),
        };
        let (key, content, file) = match config.backend {
            BackendKind::Silicon
            | BackendKind::Aiconfigurator
            | BackendKind::Roofline
            | BackendKind::SimaiAnalytical
            | BackendKind::SimaiSimulation
            | BackendKind::Formula => return None,
            BackendKind::Table => {
                let key = "predictions_file";
                match needed(&config.predictions_file, key) {
                    Ok(file) => (key, Content::Predictions, file),
                    Err(problem) => return Some(problem),
                }
            }
            BackendKind::Recorded => {
                let key = "execution_times_file";
                let stages = Content::StageTimes(config.pipeline_parallel);
                match needed(&config.execution_times_file, key) {
                    Ok(file) => (key, stages, file),
                    Err(problem) => return Some(problem),
                }
            }
            BackendKind::Aicb => ("aicb_dir", Content::AicbFolder, config.aicb_dir.clone()?),
            BackendKind::Vidur | BackendKind::Linear => return self.of_profiles(config, entries),
        };
        Some((key, self.look(content, &file)?))
    }

    fn of_profiles(
        &mut self,
        config: &RunConfig,
        entries: &Entries,
    ) -> Option<(&'static str, String)> {
        // Unknown names are told of elsewhere.
        let model = entries.model(&config.model).ok()?;
        let device = entries.device(&config.device).ok()?;
        let files = config.profile_files(&model.name, &device.name);
        let mut needed = vec![
            (Profile::Compute, &files.compute),
            (Profile::Attention, &files.attention),
        ];
        if config.tensor_parallel > 1 {
            needed.push((Profile::AllReduce, &files.all_reduce));
        }
        if config.pipeline_parallel > 1 {
            needed.push((Profile::SendRecv, &files.send_recv));
        }
        if !config.predictor().skip_cpu_overhead_modeling {
            needed.push((Profile::CpuOverhead, &files.cpu_overhead));
        }
        needed.into_iter().find_map(|(profile, file)| {
            let mut problem = self.look(Content::Profile(profile), file)?;
            if !file.exists() {
                problem += "; `profiling_dir` names the folder of profiling files, and backend \
                            silicon needs none";
            }
            Some(("backend", problem))
        })
    }

    fn look(&mut self, content: Content, path: &Path) -> Option<String> {
        let (seen, servers) = (&mut self.seen, &mut self.gpus_per_server);
        seen.entry((content, path.to_path_buf()))
            .or_insert_with(|| look(content, path, servers))
            .clone()
    }
}

/// What is wrong with a file; of a topology also how large its servers are.
fn look(content: Content, path: &Path, servers: &mut BTreeMap<PathBuf, u32>) -> Option<String> {
    if content == Content::AicbFolder {
        return match path.is_dir() {
            true => aicb::read_directory(path).err().map(|e| e.to_string()),
            false => Some(format!(
                "{}: no such folder; without one backend aicb prices operators itself",
                path.display()
            )),
        };
    }
    let kind = match content {
        Content::Topology => InputKind::Topology,
        Content::SimaiConf => InputKind::SimaiConf,
        Content::Program => InputKind::Program,
        _ => InputKind::Profile,
    };
    if let Some(why) = input_file::problem(path, kind) {
        return Some(format!("{}: {why}", path.display()));
    }
    match content {
        Content::Topology => match Topology::load(path) {
            Ok(topology) => {
                servers.insert(path.to_path_buf(), topology.gpus_per_server());
                None
            }
            Err(error) => Some(error.to_string()),
        },
        Content::SimaiConf => SimaiConf::load(path).err().map(|e| e.to_string()),
        Content::Predictions => TableCost::check(path).err().map(|e| e.to_string()),
        Content::StageTimes(stages) => RecordedCost::read(path, stages)
            .err()
            .map(|e| e.to_string()),
        Content::Profile(profile) => ProfileFile::read(path, profile)
            .and_then(|file| file.check())
            .err()
            .map(|e| e.to_string()),
        Content::AicbFolder | Content::Program => None,
    }
}
