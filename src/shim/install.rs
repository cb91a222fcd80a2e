//! Copies this program to where another container finds it.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Copies the running program to `to`, executable for everybody. Whoever looks sees the whole file or none.
pub fn install(to: &Path) -> io::Result<()> {
    let mut beside = to.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    std::fs::copy("/proc/self/exe", beside)?;
    std::fs::set_permissions(beside, Permissions::from_mode(0o755))?;
    File::open(beside)?.sync_all()?;
    std::fs::rename(beside, to)
}
