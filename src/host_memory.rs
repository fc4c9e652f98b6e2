//! How much memory this machine lends to a process: what a run may need at most.

use std::fs;
use std::path::Path;

/// Bytes of memory: those of the machine, or of the control group the process is in if
/// that has fewer; none where nobody says.
pub fn host_memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| mem_total_bytes(&text));
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group.lines().flat_map(limit_files);
    let limits = limits.filter_map(|file| group_limit_bytes(&fs::read_to_string(file).ok()?));
    limits.chain(machine).min()
}

/// The line `MemTotal:       16384000 kB`.
fn mem_total_bytes(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Where the limits of a control group stand, and those of the groups around it; of
/// `hierarchy:controllers:path`, version 2 having no controllers.
fn limit_files(line: &str) -> Vec<String> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (root, name) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        other if other.split(',').any(|controller| controller == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let groups = Path::new(path).ancestors();
    groups
        .map(|group| format!("{root}{}/{name}", group.display()).replace("//", "/"))
        .collect()
}

/// A number of bytes, or `max`.
fn group_limit_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_is_understood() {
        let meminfo = "MemTotal:       16384 kB\nMemFree:  1 kB\n";
        assert_eq!(mem_total_bytes(meminfo), Some(16 << 20));
        assert_eq!(group_limit_bytes("max\n"), None);
        assert_eq!(group_limit_bytes("1073741824\n"), Some(1 << 30));
        let version_2 = [
            "/sys/fs/cgroup/a/b/memory.max",
            "/sys/fs/cgroup/a/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(limit_files("0::/a/b"), version_2);
        let version_1 = ["/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        assert_eq!(limit_files("7:cpuset,memory:/"), version_1);
        assert!(limit_files("3:cpu:/a").is_empty());
    }
}
