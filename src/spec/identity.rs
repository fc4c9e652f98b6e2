//! Identity of a run: a hash of everything that determines its result. What is read
//! from a file counts by its content; where the file lies does not.

use std::borrow::Cow;
use std::path::PathBuf;

use super::canonical::canonical_json_of_set;
use super::{EngineConfig, RunConfig};
use crate::catalog::Catalog;
use crate::execution_time::vidur::PredictorConfig;
use crate::workload::{ArrivalsConfig, LengthsConfig};

/// The identity of a resolved configuration: 32 hex digits of the blake3 hash of
/// its canonical JSON and of the (name, content hash) pairs of the data it draws
/// on, in any order. Of files that are among the pairs the configuration's names
/// are left out.
pub fn run_id(config: &RunConfig, data_fingerprints: &[(String, String)]) -> String {
    let mut hasher = blake3::Hasher::new();
    // What is not set is left out, so that a new optional key leaves identities as they
    // are.
    let nameless = without_file_names(config, data_fingerprints);
    hasher.update(canonical_json_of_set(&*nameless).as_bytes());
    let mut fingerprints: Vec<_> = data_fingerprints.iter().collect();
    fingerprints.sort();
    for (name, hash) in fingerprints {
        hasher.update(format!("\n{name}={hash}").as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The configuration without the names of files whose content is known.
fn without_file_names<'a>(
    config: &'a RunConfig,
    fingerprints: &[(String, String)],
) -> Cow<'a, RunConfig> {
    let named = names_files(config);
    let mut nameless = Cow::Borrowed(config);
    for (key, _) in fingerprints {
        let key = key.as_str();
        if named.contains(&key) {
            leave_out(nameless.to_mut(), key);
        }
    }
    nameless
}

/// Keys of `config` that name files rather than entries of the catalog, by the names
/// fingerprints have.
fn names_files(config: &RunConfig) -> Vec<&'static str> {
    let catalog = Catalog::builtin();
    let mut named = Vec::new();
    let mut add = |key, is_file: bool| named.extend(is_file.then_some(key));
    add("model", catalog.model_file(&config.model).is_some());
    for (key, device) in config.device_names() {
        add(key, catalog.device_file(device).is_some());
    }
    let engine = &config.engine;
    let from_file = |name: &String| catalog.engine_file(name).is_some();
    add(
        "engine",
        !engine.is_plain() || engine.name.as_ref().is_some_and(from_file),
    );
    for (key, file) in config.price_files() {
        add(key, file.is_some());
    }
    add("aicb_dir", config.aicb_dir.is_some());
    let workload = &config.workload;
    let lengths = matches!(
        workload.lengths,
        LengthsConfig::Trace { .. } | LengthsConfig::Histogram { .. }
    );
    add("workload.lengths.file", lengths);
    let arrivals = matches!(workload.arrivals, ArrivalsConfig::Trace { .. });
    add("workload.arrivals.file", arrivals);
    // Where one profile is found, the others are those of the same places.
    if config.has_profiles() {
        for (key, _) in config.profile_files("", "").by_key() {
            add(key, true);
        }
    }
    named
}

/// Takes a name of a file out of the configuration.
fn leave_out(config: &mut RunConfig, key: &str) {
    let network = &mut config.network;
    match key {
        "model" => config.model.clear(),
        "device" => config.device.clear(),
        "prefill.device" => config.prefill.device = None,
        "decode.device" => config.decode.device = None,
        "engine" => config.engine = EngineConfig::default(),
        "network.topology" => network.topology = None,
        "network.simai_conf" => network.simai_conf = None,
        "network.simai_binary" => network.simai_binary = None,
        "predictions_file" => config.predictions_file = None,
        "execution_times_file" => config.execution_times_file = None,
        "aicb_dir" => config.aicb_dir = None,
        "workload.lengths.file" => {
            if let LengthsConfig::Trace { file, .. } | LengthsConfig::Histogram { file, .. } =
                &mut config.workload.lengths
            {
                *file = PathBuf::new();
            }
        }
        "workload.arrivals.file" => {
            if let ArrivalsConfig::Trace { file, .. } = &mut config.workload.arrivals {
                *file = PathBuf::new();
            }
        }
        // A profile: all of them are looked for in the same places.
        _ => {
            config.profiling_dir = None;
            if let Some(predictor) = &mut config.predictor {
                let PredictorConfig {
                    compute_input_file,
                    attention_input_file,
                    all_reduce_input_file,
                    send_recv_input_file,
                    cpu_overhead_input_file,
                    ..
                } = predictor;
                for template in [
                    compute_input_file,
                    attention_input_file,
                    all_reduce_input_file,
                    send_recv_input_file,
                    cpu_overhead_input_file,
                ] {
                    template.clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::test_config;

    /// Pinned: identities are kept in result directories across versions.
    #[test]
    fn identities_are_stable_and_tell_configurations_apart() {
        let config = test_config();
        let hash = |name: &str, hash: &str| (name.to_owned(), hash.to_owned());
        let data = [hash("a", "1"), hash("b", "2")];
        let id = run_id(&config, &data);
        assert_eq!(id, "f5257d4f06084b9ee176b730c1a36a05");
        assert_eq!(id, run_id(&config, &[hash("b", "2"), hash("a", "1")]));
        assert_ne!(id, run_id(&config, &data[..1]));
        let mut other = config;
        other.seed += 1;
        assert_ne!(id, run_id(&other, &data));
    }
}
