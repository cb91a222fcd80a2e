//! The socket: one process for each connection, within a bound, until the container is told to stop.

use std::ffi::OsString;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::reaper::Reaper;
use super::relay::{Started, relay};

/// Connections at a time, those that are ending included. More than a gateway ever opens.
const CONNECTIONS: usize = 64;
/// Time between two looks whether everything has ended.
const STEP: Duration = Duration::from_millis(20);

/// What to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub socket: PathBuf,
    /// Program and arguments of each connection's process. No shell is involved.
    pub command: Vec<OsString>,
    /// Time for each step of ending a process.
    pub grace: Duration,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The program is not in this image.
    #[error("failed to find {0:?} in this image: name an executable file, or a program in PATH")]
    NoProgram(OsString),
    /// The socket cannot be made.
    #[error("failed to listen on {0}")]
    Listen(PathBuf, #[source] io::Error),
    /// The system refused what a supervisor needs.
    #[error("failed to supervise processes")]
    System(#[from] io::Error),
}

struct Shared {
    options: Options,
    reaper: Arc<Reaper>,
    open: AtomicUsize,
    is_stopping: AtomicBool,
}

/// Serves until SIGTERM or SIGINT; then every process ends, and what is served ends with it.
pub fn serve(options: Options) -> Result<(), ServeError> {
    let program = options.command.first().cloned().unwrap_or_default();
    if !exists(&program) {
        return Err(ServeError::NoProgram(program));
    }
    // The first process of a container gets no signal that it does not handle.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let listener = listen(&options.socket).map_err(|error| ServeError::Listen(options.socket.clone(), error))?;
    let shared = Arc::new(Shared {
        reaper: Reaper::begin()?,
        options,
        open: AtomicUsize::new(0),
        is_stopping: AtomicBool::new(false),
    });
    let accepting = shared.clone();
    thread::Builder::new().name("accept".to_owned()).spawn(move || accepting.accept(&listener))?;
    signals.forever().next();
    shared.stop();
    Ok(())
}

/// Whether a program can be started: an executable file, by path or in `PATH`.
fn exists(program: &OsString) -> bool {
    let is_executable =
        |path: &Path| path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    let program = Path::new(program);
    if program.components().count() > 1 {
        return is_executable(program);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    !program.as_os_str().is_empty() && std::env::split_paths(&path).any(|folder| is_executable(&folder.join(program)))
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    // Left by an earlier run of this container; nothing else is taken away.
    if socket.symlink_metadata().is_ok_and(|there| there.file_type().is_socket()) {
        std::fs::remove_file(socket)?;
    }
    let listener = UnixListener::bind(socket)?;
    // The gateway runs as another user. The folder is a volume that only these two containers have.
    std::fs::set_permissions(socket, Permissions::from_mode(0o666))?;
    Ok(listener)
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => self.admit(stream),
                Err(error) => {
                    eprintln!("toolgate-shim: failed to accept a connection: {error}");
                    thread::sleep(STEP); // Out of descriptors, most likely: some connection must end first.
                }
            }
        }
    }

    /// Serves a connection in a thread of its own; closes it where there are too many.
    fn admit(self: &Arc<Self>, stream: UnixStream) {
        if self.is_stopping.load(Ordering::SeqCst) {
            return;
        }
        if self.open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
            self.open.fetch_sub(1, Ordering::SeqCst);
            eprintln!("toolgate-shim: a connection was refused: {CONNECTIONS} are open");
            return;
        }
        let this = self.clone();
        let served = thread::Builder::new().name("relay".to_owned()).spawn(move || {
            if let Err(error) = this.connection(stream) {
                eprintln!("toolgate-shim: {error}");
            }
            this.open.fetch_sub(1, Ordering::SeqCst);
        });
        if let Err(error) = served {
            self.open.fetch_sub(1, Ordering::SeqCst);
            eprintln!("toolgate-shim: failed to serve a connection: {error}");
        }
    }

    fn connection(&self, stream: UnixStream) -> io::Result<()> {
        let Some((program, arguments)) = self.options.command.split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        // A launcher such as npx has children of its own: the group is what ends.
        command.args(arguments).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let (mut child, group, exit) = self
            .reaper
            .spawn(&mut command)
            .map_err(|error| io::Error::new(error.kind(), format!("failed to start {}: {error}", program.display())))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a pipe is missing"));
        };
        relay(stream, Started { group, stdin, stdout, exit }, self.options.grace)
    }

    /// Ends every process, the gentle way first.
    fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        for signal in [Signal::TERM, Signal::KILL] {
            self.reaper.signal_all(signal);
            let mut waited = Duration::ZERO;
            while self.open.load(Ordering::SeqCst) > 0 && waited < self.options.grace * 3 {
                thread::sleep(STEP);
                waited += STEP;
            }
        }
        let _ = std::fs::remove_file(&self.options.socket); // The next run removes it too.
    }
}
