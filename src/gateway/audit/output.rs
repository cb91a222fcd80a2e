//! Where lines go: a file that may be rotated under us, standard output, or a buffer in tests.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// How often the path is looked at for rotation.
const ROTATION_CHECK: Duration = Duration::from_secs(1);

/// What the writer writes to.
pub(super) enum Output {
    File(LogFile),
    /// Standard output without the line buffer of `std`, so that a batch stays one write.
    Stream(Box<dyn Write + Send>),
}

impl Output {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        LogFile::open(path).map(Self::File)
    }

    pub(super) fn stdout() -> io::Result<Self> {
        let descriptor = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::Stream(Box::new(File::from(descriptor))))
    }

    /// Follows a rotation: true if another file is open now, so that a line must not go on in its middle.
    pub(super) fn follow(&mut self) -> io::Result<bool> {
        match self {
            Self::File(file) => file.follow(),
            Self::Stream(_) => Ok(false),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.file.write(bytes),
            Self::Stream(stream) => stream.write(bytes),
        }
    }
}

/// A file that is appended to. When its path names another file (logrotate moved it away), that one is taken.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    identity: (u64, u64),
    checked: Instant,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let identity = identity(&file.metadata()?);
        Ok(Self { path: path.to_owned(), file, identity, checked: Instant::now() })
    }

    fn follow(&mut self) -> io::Result<bool> {
        if self.checked.elapsed() < ROTATION_CHECK {
            return Ok(false);
        }
        if std::fs::metadata(&self.path).is_ok_and(|there| identity(&there) == self.identity) {
            self.checked = Instant::now();
            return Ok(false);
        }
        // A path that cannot be opened is an error, though the old file still takes lines: nobody would find them.
        *self = Self::open(&self.path)?;
        tracing::info!(path = %self.path.display(), "audit log reopened");
        Ok(true)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(|error| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let cause = match parent {
            Some(parent) if !parent.is_dir() => format!("the folder {} does not exist: create it", parent.display()),
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("failed to open {}: {cause}", path.display()))
    })
}
