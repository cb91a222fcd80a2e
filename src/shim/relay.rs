//! One connection and its process: bytes in both directions, and the end of the one when the other ends.
//!
//! One thread, no blocking call but `poll`: nothing that a process or a peer leaves open holds it for ever.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// Bytes held in each direction.
const BUFFER: usize = 64 << 10;
/// Longest time that the output of an exited process is read: others may hold it open.
const REST: Duration = Duration::from_secs(1);
/// Time between two looks whether a group is gone.
const STEP: Duration = Duration::from_millis(20);

/// Bytes on their way in one direction.
struct Flow {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Flow {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER].into_boxed_slice(), from: 0, to: 0 }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    fn clear(&mut self) {
        (self.from, self.to) = (0, 0);
    }

    /// Reads what is there, false at the end of the source.
    fn fill(&mut self, source: &mut impl Read) -> io::Result<bool> {
        match source.read(&mut self.buffer) {
            Ok(read) => {
                (self.from, self.to) = (0, read);
                Ok(read > 0)
            }
            Err(error) if is_later(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Writes as much as is taken.
    fn drain(&mut self, sink: &mut impl Write) -> io::Result<()> {
        match sink.write(self.buffer.get(self.from..self.to).unwrap_or_default()) {
            Ok(written) => {
                self.from += written;
                Ok(())
            }
            Err(error) if is_later(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// A process that was started for a connection.
pub(super) struct Started {
    /// Leader of its group.
    pub(super) group: Pid,
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    /// Reads its end when the process has exited.
    pub(super) exit: UnixStream,
}

/// A connection at work.
struct Relay {
    socket: UnixStream,
    group: Pid,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    exit: UnixStream,
    to_process: Flow,
    to_peer: Flow,
    /// The peer sends nothing more: the process is to end.
    is_ending: bool,
    /// The peer reads nothing more.
    is_gone: bool,
    has_exited: bool,
    /// When the next, harder step is taken.
    deadline: Option<Instant>,
    /// Steps that are left, the next one last.
    steps: Vec<Signal>,
    grace: Duration,
}

/// Serves a connection until its process and all that belongs to it have ended. `grace` is the time for each step.
pub(super) fn relay(socket: UnixStream, started: Started, grace: Duration) -> io::Result<()> {
    let Started { group, stdin, stdout, exit } = started;
    let mut relay = Relay {
        socket,
        group,
        stdin: Some(stdin),
        stdout: Some(stdout),
        exit,
        to_process: Flow::new(),
        to_peer: Flow::new(),
        is_ending: false,
        is_gone: false,
        has_exited: false,
        deadline: None,
        steps: vec![Signal::KILL, Signal::TERM],
        grace,
    };
    let outcome = relay.prepare().and_then(|()| {
        while relay.is_on() {
            relay.turn()?;
        }
        Ok(())
    });
    relay.sweep();
    let _ = relay.socket.shutdown(Shutdown::Both); // It may be closed already.
    outcome
}

impl Relay {
    fn prepare(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        // The other ends are descriptions of their own: the process does not notice.
        self.stdin.as_ref().map_or(Ok(()), |stdin| ioctl_fionbio(stdin, true))?;
        self.stdout.as_ref().map_or(Ok(()), |stdout| ioctl_fionbio(stdout, true))?;
        Ok(())
    }

    /// Whether there is more to do: a process that runs, or the rest of what an exited one wrote.
    fn is_on(&self) -> bool {
        let rest = !self.is_gone && (self.stdout.is_some() || !self.to_peer.is_empty());
        let is_late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        !self.has_exited || (rest && !is_late)
    }

    /// Waits for something to happen, and does it.
    fn turn(&mut self) -> io::Result<()> {
        let [socket, output, exit] = self.wait()?;
        if !exit.is_empty() {
            self.has_exited = true;
            self.stdin = None;
            self.to_process.clear();
            self.deadline = Some(Instant::now() + REST);
        }
        if socket.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.is_gone = true;
        }
        if socket.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
            self.begin_to_end();
        }
        if socket.contains(PollFlags::IN) && self.to_process.is_empty() && self.stdin.is_some() {
            self.read_peer();
        }
        if !self.to_process.is_empty() {
            self.write_process();
        }
        if !output.is_empty() && self.to_peer.is_empty() {
            self.read_process();
        }
        if self.is_gone {
            self.stdout = None;
            self.to_peer.clear();
        } else if !self.to_peer.is_empty() && self.to_peer.drain(&mut self.socket).is_err() {
            self.is_gone = true;
            self.begin_to_end();
        }
        self.take_step();
        Ok(())
    }

    /// What the socket is ready for, whether the process wrote or closed its output, and whether it has exited.
    fn wait(&self) -> io::Result<[PollFlags; 3]> {
        let mut wanted = PollFlags::empty();
        if self.stdin.is_some() && self.to_process.is_empty() {
            wanted |= PollFlags::IN;
        }
        if !self.is_ending {
            wanted |= PollFlags::RDHUP;
        }
        if !self.to_peer.is_empty() {
            wanted |= PollFlags::OUT;
        }
        let mut fds = Vec::with_capacity(4);
        // A descriptor that nothing is wanted of is left out: its hang-up would be reported again and again.
        let mut places = [None; 3];
        let mut add = |place: Option<usize>, fd| {
            if let Some(slot) = place.and_then(|place| places.get_mut(place)) {
                *slot = Some(fds.len());
            }
            fds.push(fd);
        };
        if !wanted.is_empty() {
            add(Some(0), PollFd::new(&self.socket, wanted));
        }
        if let Some(stdout) = self.stdout.as_ref().filter(|_| self.to_peer.is_empty()) {
            add(Some(1), PollFd::new(stdout, PollFlags::IN));
        }
        if !self.has_exited {
            add(Some(2), PollFd::new(&self.exit, PollFlags::IN));
        }
        if let Some(stdin) = self.stdin.as_ref().filter(|_| !self.to_process.is_empty()) {
            add(None, PollFd::new(stdin, PollFlags::OUT));
        }
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened =
            |place: Option<usize>| place.and_then(|place| fds.get(place)).map_or(PollFlags::empty(), PollFd::revents);
        Ok(places.map(happened))
    }

    fn read_peer(&mut self) {
        match self.to_process.fill(&mut self.socket) {
            Ok(true) => {}
            Ok(false) => {
                self.stdin = None; // Everything that was sent has been written: now it reads its end.
                self.begin_to_end();
            }
            Err(_) => {
                self.is_gone = true;
                self.begin_to_end();
            }
        }
    }

    fn write_process(&mut self) {
        let written = self.stdin.as_mut().map_or(Ok(()), |stdin| self.to_process.drain(stdin));
        if written.is_err() || self.stdin.is_none() {
            self.stdin = None; // It reads no more: what is sent to it goes nowhere.
            self.to_process.clear();
        }
    }

    fn read_process(&mut self) {
        let Some(stdout) = &mut self.stdout else { return };
        if !matches!(self.to_peer.fill(stdout), Ok(true)) {
            self.stdout = None;
            self.begin_to_end(); // It can never answer again.
        }
    }

    fn begin_to_end(&mut self) {
        if !self.is_ending {
            self.is_ending = true;
            self.deadline = self.deadline.or_else(|| Some(Instant::now() + self.grace));
        }
    }

    /// A process that does not end by itself is told to, then made to.
    fn take_step(&mut self) {
        if self.has_exited || self.deadline.is_none_or(|deadline| Instant::now() < deadline) {
            return;
        }
        self.deadline = self.steps.pop().map(|signal| {
            self.signal(signal);
            Instant::now() + self.grace
        });
    }

    /// Ends what the process left behind in its group. The id of a group is not used again while it has members;
    /// between the end of the last one and our signal lie microseconds.
    fn sweep(&self) {
        for signal in [Signal::TERM, Signal::KILL] {
            let mut waited = Duration::ZERO;
            if !self.is_left() {
                return;
            }
            self.signal(signal);
            while self.is_left() && waited < self.grace {
                thread::sleep(STEP);
                waited += STEP;
            }
        }
    }

    fn is_left(&self) -> bool {
        test_kill_process_group(self.group).is_ok()
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal); // It may be gone: then that is what was wanted.
    }
}
