//! Identity of a run: a hash of everything that determines its result.

use super::RunConfig;
use super::canonical::canonical_json_of_set;

/// The identity of a resolved configuration: 32 hex digits of the blake3 hash of
/// its canonical JSON and of the (name, content hash) pairs of the data it draws
/// on, in any order.
pub fn run_id(config: &RunConfig, data_fingerprints: &[(String, String)]) -> String {
    let mut hasher = blake3::Hasher::new();
    // What is not set is left out, so that a new optional key leaves identities as they
    // are.
    hasher.update(canonical_json_of_set(config).as_bytes());
    let mut fingerprints: Vec<_> = data_fingerprints.iter().collect();
    fingerprints.sort();
    for (name, hash) in fingerprints {
        hasher.update(format!("\n{name}={hash}").as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
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
