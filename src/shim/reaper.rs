//! Every process below this one, and its end: whoever started one is told, and nothing stays a zombie.
//!
//! One thread reaps. It is also the parent of orphans, which nobody waits for.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpid, kill_process_group, set_child_subreaper, wait,
    waitid,
};

/// The processes that run.
pub(super) struct Reaper {
    /// By process id: an end of a pair whose other end is closed when the process has ended.
    running: Mutex<HashMap<i32, UnixStream>>,
    /// Something was started.
    started: Condvar,
}

impl Reaper {
    /// Begins to reap.
    pub(super) fn begin() -> io::Result<Arc<Self>> {
        // The first process of a container is this already; in any other place orphans would go elsewhere.
        set_child_subreaper(Some(getpid()))?;
        let reaper = Arc::new(Self { running: Mutex::default(), started: Condvar::new() });
        let this = reaper.clone();
        thread::Builder::new().name("reaper".to_owned()).spawn(move || this.run())?;
        Ok(reaper)
    }

    /// Starts a process. The stream reads its end as soon as the process has exited.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<(Child, Pid, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        // Held over the start, so that an exit is never seen before its process is in the table, and so that nothing
        // is reaped under the hands of `Command`.
        let mut running = self.running();
        let child = command.spawn()?;
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        running.insert(id.as_raw_nonzero().get(), theirs);
        drop(running);
        self.started.notify_all();
        Ok((child, id, ours))
    }

    /// Sends a signal to every process that was started here, and to its group.
    pub(super) fn signal_all(&self, signal: Signal) {
        for id in self.running().keys().filter_map(|id| Pid::from_raw(*id)) {
            let _ = kill_process_group(id, signal); // Gone already: as wished.
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<i32, UnixStream>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            // Waits without reaping: the end is taken note of under the lock.
            match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::CHILD) => {
                    let mut running = self.running();
                    running.clear(); // Without a child nothing of it can run.
                    drop(self.started.wait_while(running, |running| running.is_empty()));
                    continue;
                }
                Err(error) => {
                    eprintln!("toolgate-shim: failed to wait for processes: {error}");
                    thread::sleep(Duration::from_secs(1));
                }
            }
            let mut running = self.running();
            while let Ok(Some((id, status))) = wait(WaitOptions::NOHANG) {
                let id = id.as_raw_nonzero().get();
                if running.remove(&id).is_some() {
                    report(id, status);
                }
            }
        }
    }
}

/// Says how a process ended, if not well.
fn report(id: i32, status: WaitStatus) {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => {}
        (Some(code), _) => eprintln!("toolgate-shim: process {id} exited with status {code}"),
        (None, Some(signal)) => eprintln!("toolgate-shim: process {id} was ended by signal {signal}"),
        (None, None) => eprintln!("toolgate-shim: process {id} ended"),
    }
}
