//! How much memory the process may have: what its control group says.

use std::path::Path;

/// Smallest limit that a flag may set, in bytes: with less, no message of a common size would pass.
pub const MIN_LIMIT: usize = 32 << 20;
/// Where Linux shows control groups.
const GROUPS: &str = "/sys/fs/cgroup";
/// The groups of this process.
const OWN: &str = "/proc/self/cgroup";

/// Reads a quantity of memory as Kubernetes writes it: bytes, or with `Ki`, `Mi`, `Gi`, `k`, `M`, `G`.
pub fn parse(text: &str) -> Result<usize, String> {
    let digits = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err("not a quantity of memory, as in 128Mi".to_owned()),
    };
    let number: usize = number.parse().map_err(|_| "not a quantity of memory, as in 128Mi".to_owned())?;
    match number.checked_mul(factor) {
        Some(bytes) if bytes >= MIN_LIMIT => Ok(bytes),
        Some(_) => Err(format!("must be at least {}Mi", MIN_LIMIT >> 20)),
        None => Err("too large".to_owned()),
    }
}

/// The smallest limit of the process's control group and of those that it is in; `None` where there is none.
pub(super) fn of_control_group() -> Option<usize> {
    let own = std::fs::read_to_string(OWN).unwrap_or_default();
    of(&own, Path::new(GROUPS))
}

/// `own` is the text of `/proc/self/cgroup`.
fn of(own: &str, groups: &Path) -> Option<usize> {
    let mut limits = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => (groups.to_owned(), "memory.max"),
            some if some.split(',').any(|one| one == "memory") => {
                (groups.join("memory"), "memory.limit_in_bytes") // Version 1.
            }
            _ => continue,
        };
        // Within a container the path may be one of the host, which is not visible: then the root is its own group.
        let own = root.join(path.trim_start_matches('/'));
        let within = own.ancestors().take_while(|group| group.starts_with(&root));
        limits.extend(within.filter_map(|group| limit_in(&group.join(file))));
    }
    limits.into_iter().min()
}

fn limit_in(file: &Path) -> Option<usize> {
    /// Version 1 says so where there is none: the largest multiple of a page, on any machine more than this.
    const NONE: usize = 1 << 50;
    // `max` is no number.
    let limit: usize = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < NONE).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        assert_eq!(parse("128Mi"), Ok(128 << 20));
        assert_eq!(parse("64000000"), Ok(64_000_000));
        assert_eq!(parse("1G"), Ok(1_000_000_000));
        for bad in ["", "Mi", "1.5Gi", "128MB", "-1", "31Mi", "99999999999Gi"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_smallest_limit_of_the_groups_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = folder.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        assert_eq!(of("0::/\n", folder.path()), None);
        write("memory.max", "134217728\n");
        assert_eq!(of("0::/\n", folder.path()), Some(128 << 20));
        assert_eq!(of("0::/kubepods/not/visible\n", folder.path()), Some(128 << 20));
        write("a/memory.max", "67108864\n");
        write("a/b/memory.max", "max\n");
        assert_eq!(of("0::/a/b\n", folder.path()), Some(64 << 20));
        // Version 1.
        write("memory/pod/memory.limit_in_bytes", "33554432\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(of("3:cpu:/pod\n5:memory:/pod\n", folder.path()), Some(32 << 20));
        assert_eq!(of("5:memory:/other\n", folder.path()), None);
    }
}
