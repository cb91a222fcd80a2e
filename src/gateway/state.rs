//! Files that must outlive the process: written whole or not at all, read within a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::worker::FILES;

/// A folder of such files.
#[derive(Clone, Debug)]
pub(super) struct State {
    folder: PathBuf,
}

impl State {
    /// Makes the folder if it is not there.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// What was written last under this name; `None` if nothing was.
    pub(super) async fn read(&self, name: &str, limit: usize) -> io::Result<Option<Bytes>> {
        read(self.folder.join(name), limit).await
    }

    /// Replaces what was written. After a crash there is the old or the new, and after this returned it is the new.
    pub(super) async fn write(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let (folder, path) = (self.folder.clone(), self.folder.join(name));
        let beside = self.folder.join(format!("{name}.new"));
        blocking(move || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            File::open(folder)?.sync_all() // The new name is on the disk as well.
        })
        .await
    }
}

/// Reads a file of at most `limit` bytes; `None` if there is none. A path may be replaced while it is read: what is
/// read is one file.
pub(super) async fn read(path: PathBuf, limit: usize) -> io::Result<Option<Bytes>> {
    blocking(move || {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
        }
        Ok(Some(bytes.into()))
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    FILES.run(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_is_read_and_a_half_written_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state")).unwrap();
        assert_eq!(state.read("snapshot", 10).await.unwrap(), None);

        state.write("snapshot", Bytes::from_static(b"one")).await.unwrap();
        state.write("snapshot", Bytes::from_static(b"two")).await.unwrap();
        std::fs::write(folder.path().join("state/snapshot.new"), "thr").unwrap(); // The process ended here.

        assert_eq!(state.read("snapshot", 3).await.unwrap().unwrap(), "two");
        let error = state.read("snapshot", 2).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
