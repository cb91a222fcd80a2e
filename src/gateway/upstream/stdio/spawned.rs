//! One operating system process and its group: started with a clean environment, ended for good, always awaited.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use std::{env, io};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpgid};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use super::Command as Program;

/// What a child inherits of our environment; everything else (tokens, cluster addresses, proxies) must be declared.
pub(super) const INHERITED: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TERM", "TMPDIR"];

/// A running process, leader of its own group.
pub(super) struct Spawned {
    child: Child,
    /// `None` once nothing of the group is left.
    group: Option<Pid>,
}

/// The three pipes of a process.
pub(super) type Pipes = (ChildStdin, ChildStdout, ChildStderr);

impl Spawned {
    /// Starts the program. No shell is involved.
    pub(super) fn spawn(program: &Program) -> io::Result<(Self, Pipes)> {
        let (name, arguments) = program
            .command
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is no command to run"))?;
        let mut command = Command::new(name);
        command
            .args(arguments)
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, env::var_os(name)?))))
            .envs(&program.env)
            .current_dir(&program.directory)
            // A launcher such as npx has children of its own: the group is what ends. And Ctrl-C in a terminal is
            // for us, not for them.
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("a pipe is missing"));
        };
        Ok((Self { child, group }, (stdin, stdout, stderr)))
    }

    /// Waits until the leader has exited by itself.
    pub(super) async fn exited(&mut self) {
        let _ = self.child.wait().await; // `end` asks again and reports it.
    }

    /// Ends the process and its group, each step after `grace`: its standard input is closed already, then SIGTERM,
    /// then SIGKILL. Returns when nothing is left, with how it ended in words.
    pub(super) async fn end(&mut self, grace: Duration) -> String {
        let mut status = timeout(grace, self.child.wait()).await.ok();
        for signal in [Signal::TERM, Signal::KILL] {
            if status.is_none() {
                self.signal(signal);
                status = timeout(grace, self.child.wait()).await.ok();
            }
        }
        let status = match status {
            Some(status) => status,
            None => self.child.wait().await, // After SIGKILL only the kernel can be late.
        };
        self.sweep(grace).await;
        describe(status)
    }

    /// Ends what the leader left behind. Its id is not used again as long as a member of the group lives; between the
    /// last one's end and our signal lie microseconds.
    async fn sweep(&mut self, grace: Duration) {
        const STEP: Duration = Duration::from_millis(20);
        self.reap();
        for signal in [Signal::TERM, Signal::KILL] {
            if !self.is_left() {
                break;
            }
            self.signal(signal);
            let mut waited = Duration::ZERO;
            while self.is_left() && waited < grace {
                sleep(STEP).await;
                waited += STEP;
                self.reap();
            }
        }
        self.group = None;
    }

    /// Orphans of the group become our children when we are the first process of a container.
    fn reap(&self) {
        if let Some(group) = self.group {
            while let Ok(Some(_)) = waitpgid(group, WaitOptions::NOHANG) {}
        }
    }

    fn is_left(&self) -> bool {
        self.group.is_some_and(|group| test_kill_process_group(group).is_ok())
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal); // It may be gone: then that is what was wanted.
        }
    }
}

impl Drop for Spawned {
    /// Only when the runtime itself ends before [`Spawned::end`] could.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => format!("the server exited with status {code}"),
        Ok((None, Some(signal))) => format!("the server was ended by signal {signal}"),
        Ok((None, None)) => "the server exited".to_owned(),
        Err(error) => format!("the server's exit is unknown: {error}"),
    }
}
