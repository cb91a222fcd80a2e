//! The bounded ring and the one writer behind it.
//!
//! Callers append finished lines to one buffer; a thread of its own takes the whole buffer and writes it at once, so
//! neither a slow disk nor a stuck pipe holds up the runtime. While a write fails, its lines are kept and tried
//! again, and nobody gets a slot (fail closed).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::super::limits;
use super::Record;
use super::line::{push_number, with_line};
use super::output::Output;
use super::sampler::Sampler;

/// Time that lines wait for others before they are written. An intent does not wait.
const BATCH_DELAY: Duration = Duration::from_millis(5);
/// Bytes that wait to be written, besides the lines of slots that are taken already.
const PENDING_BYTES: usize = 16 << 20;
/// Capacity that an emptied buffer keeps.
const KEPT_BYTES: usize = 256 << 10;
/// Pause before a failed write is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// Shortest time between two error messages in the process log.
const COMPLAINT: Duration = Duration::from_secs(10);
/// Longest time that closing takes.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Part of it in which slots that are still taken may bring their last line.
const SLOTS_WAIT: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// A file, created with mode 0600 and appended to. When the path names another file, that one is taken within a
    /// second, so that a log rotator may rename the file away.
    File(PathBuf),
}

/// The audit log. Clones share it; it ends with [`Audit::close`] or with the last clone.
#[derive(Clone)]
pub struct Audit {
    handle: Arc<Handle>,
}

/// The ring stayed full, or lines cannot be written: the call must be refused.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the audit log cannot take another record")]
pub struct Busy;

/// Whose places in the ring are meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Share {
    /// Those of callers who are known by their token.
    Callers,
    /// Those of everybody else.
    Guests,
}

/// A place in the ring. Dropping it unused gives the place back.
pub struct Slot {
    ring: Arc<Ring>,
    share: Share,
    /// Whether the writer gives the place back, together with the line.
    spent: bool,
}

/// What the audit log says about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stats {
    /// Places that are taken.
    pub taken: usize,
    /// Calls that got no place, or whose intent could not be written, since the start.
    pub refused: u64,
    /// Lines that were lost because closing took too long.
    pub dropped: u64,
    /// Lines about requests without a token that were left out during a flood, since the start.
    pub left_out: u64,
    /// Lines that were written since the start.
    pub written: u64,
    /// Whether the last write failed.
    pub failing: bool,
}

struct Handle {
    ring: Arc<Ring>,
    ended: watch::Receiver<bool>,
}

struct Ring {
    slots: Semaphore,
    guests: Semaphore,
    sampler: Mutex<Sampler>,
    left_out: AtomicU64,
    pending: Mutex<Pending>,
    wake: Condvar,
    failing: AtomicBool,
    full: AtomicBool,
    refused: AtomicU64,
    dropped: AtomicU64,
    written: AtomicU64,
}

#[derive(Default)]
struct Pending {
    lines: Lines,
    sequence: u64,
    urgent: bool,
    stage: Stage,
    /// Whether the writer waits without a time limit.
    asleep: bool,
}

#[derive(Clone, Copy, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    Open,
    /// No more slots; the lines of those that are taken still come.
    Closed,
    /// The writer is gone: further lines are lost.
    Ended,
}

/// Whole lines, and what becomes true when they are written.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    count: u64,
    /// Slots whose last line is among them, by share.
    slots: usize,
    guests: usize,
    announced: Vec<oneshot::Sender<()>>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Audit").field("stats", &self.stats()).finish()
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Audit {
    /// Opens the sink and starts the writer.
    pub fn open(sink: &Sink) -> io::Result<Self> {
        let output = match sink {
            Sink::Stdout => Output::stdout()?,
            Sink::File(path) => Output::open(path)?,
        };
        Self::start(output)
    }

    pub(super) fn start(output: Output) -> io::Result<Self> {
        let ring = Arc::new(Ring {
            slots: Semaphore::new(limits::AUDIT_RING),
            guests: Semaphore::new(limits::AUDIT_GUESTS),
            sampler: Mutex::default(),
            left_out: AtomicU64::new(0),
            pending: Mutex::default(),
            wake: Condvar::new(),
            failing: AtomicBool::new(false),
            full: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            written: AtomicU64::new(0),
        });
        let (end, ended) = watch::channel(false);
        let writer = Writer { ring: Arc::clone(&ring), output, lines: Lines::default(), sent: 0, complained: None };
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            writer.run();
            end.send_replace(true);
        })?;
        Ok(Self { handle: Arc::new(Handle { ring, ended }) })
    }

    /// A place for somebody who is known: see [`Audit::reserve_in`].
    pub async fn reserve(&self) -> Result<Slot, Busy> {
        self.reserve_in(Share::Callers).await
    }

    /// Waits at most [`super::super::limits::AUDIT_WAIT`] for a place. While lines cannot be written there is none.
    pub async fn reserve_in(&self, share: Share) -> Result<Slot, Busy> {
        let ring = &self.handle.ring;
        if !ring.is_open() {
            return Err(ring.refuse());
        }
        let permit = match ring.places(share).try_acquire() {
            Ok(permit) => permit,
            Err(_) => match tokio::time::timeout(limits::AUDIT_WAIT, ring.places(share).acquire()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => return Err(ring.refuse()), // Closed, or still full.
            },
        };
        permit.forget(); // Given back by the slot, or by the writer for a whole batch.
        Ok(Slot { ring: Arc::clone(ring), share, spent: false })
    }

    /// A place that is free now, for what must not wait and must not happen without its line.
    pub fn reserve_now(&self, share: Share) -> Result<Slot, Busy> {
        let ring = &self.handle.ring;
        let place = ring.is_open().then(|| self.try_reserve_in(share)).flatten();
        place.ok_or_else(|| ring.refuse())
    }

    /// A place that is free now, for what has happened already and was announced.
    pub fn try_reserve_in(&self, share: Share) -> Option<Slot> {
        let ring = &self.handle.ring;
        ring.places(share).try_acquire().ok()?.forget();
        Some(Slot { ring: Arc::clone(ring), share, spent: false })
    }

    /// Records what somebody was answered who is not known: a refusal, or a page for everybody. Never waits. During a
    /// flood, and while there is no place, it is left out, and the next line of its kind counts it.
    pub fn note(&self, record: &Record<'_>) {
        let ring = &self.handle.ring;
        let status = record.http_status;
        let admitted = ring.sampler.lock().admit(status, Instant::now());
        let Some(left_out) = admitted else {
            ring.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let Some(slot) = self.try_reserve_in(Share::Guests) {
            slot.finish(&Record { left_out: (left_out > 0).then_some(left_out), ..*record });
        } else {
            ring.sampler.lock().take_back(status, left_out);
            ring.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what is queued and ends the writer, within 5 s; slots that are still taken have 1 s for their last
    /// line. Nobody gets a place from now on.
    pub async fn close(&self) {
        self.handle.ring.close();
        let mut ended = self.handle.ended.clone();
        let closed = tokio::time::timeout(CLOSE_WAIT, ended.wait_for(|ended| *ended)).await;
        if closed.is_err() || self.stats().dropped > 0 {
            tracing::error!(lost = self.stats().dropped, "audit log closed before all lines were written");
        }
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let ring = &self.handle.ring;
        Stats {
            taken: limits::AUDIT_RING.saturating_sub(ring.slots.available_permits())
                + limits::AUDIT_GUESTS.saturating_sub(ring.guests.available_permits()),
            refused: ring.refused.load(Ordering::Relaxed),
            dropped: ring.dropped.load(Ordering::Relaxed),
            left_out: ring.left_out.load(Ordering::Relaxed),
            written: ring.written.load(Ordering::Relaxed),
            failing: ring.failing.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.ring.close();
    }
}

impl Slot {
    /// Writes a line and returns once it is handed to the operating system. The slot stays reserved. Waits at most
    /// [`super::super::limits::INTENT_WAIT`].
    pub async fn intent(&self, record: &Record<'_>) -> Result<(), Busy> {
        let (announce, announced) = oneshot::channel();
        self.ring.append(record, |lines| lines.announced.push(announce), true);
        match tokio::time::timeout(limits::INTENT_WAIT, announced).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.ring.refuse()), // The write failed, or is too slow.
        }
    }

    /// Queues the final line and gives the place back when it is written.
    pub fn finish(mut self, record: &Record<'_>) {
        self.spent = true;
        let share = self.share;
        let count = |lines: &mut Lines| match share {
            Share::Callers => lines.slots += 1,
            Share::Guests => lines.guests += 1,
        };
        self.ring.append(record, count, false);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.spent {
            self.ring.places(self.share).add_permits(1);
        }
    }
}

impl Ring {
    fn places(&self, share: Share) -> &Semaphore {
        match share {
            Share::Callers => &self.slots,
            Share::Guests => &self.guests,
        }
    }

    /// Whether lines can be written, and wait within their bound.
    fn is_open(&self) -> bool {
        !self.failing.load(Ordering::Acquire) && !self.full.load(Ordering::Acquire)
    }

    fn append(&self, record: &Record<'_>, note: impl FnOnce(&mut Lines), urgent: bool) {
        with_line(record, |line| {
            let mut pending = self.pending.lock();
            if pending.stage == Stage::Ended {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            pending.sequence += 1;
            let sequence = pending.sequence;
            let lines = &mut pending.lines;
            lines.bytes.extend_from_slice(&line.before);
            push_number(&mut lines.bytes, sequence);
            lines.bytes.extend_from_slice(&line.after);
            lines.count += 1;
            note(lines);
            if lines.bytes.len() >= PENDING_BYTES {
                self.full.store(true, Ordering::Release);
            }
            // The writer needs a call only where it would sleep on: when it has no line yet, or for the first line
            // that is in a hurry.
            let wake = pending.asleep || (urgent && !pending.urgent);
            pending.urgent |= urgent;
            pending.asleep = false;
            drop(pending);
            if wake {
                self.wake.notify_one();
            }
        });
    }

    fn refuse(&self) -> Busy {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Busy
    }

    /// Whether no slot is taken; only then no line can come any more.
    fn all_free(&self) -> bool {
        self.slots.available_permits() >= limits::AUDIT_RING && self.guests.available_permits() >= limits::AUDIT_GUESTS
    }

    fn close(&self) {
        self.slots.close();
        self.guests.close();
        let mut pending = self.pending.lock();
        if pending.stage == Stage::Open {
            pending.stage = Stage::Closed;
        }
        drop(pending);
        self.wake.notify_one();
    }
}

struct Writer {
    ring: Arc<Ring>,
    output: Output,
    /// Lines that are being written, and how many bytes of them are out.
    lines: Lines,
    sent: usize,
    complained: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        let mut closing: Option<Instant> = None;
        loop {
            if self.take() && closing.is_none() {
                closing = Some(Instant::now());
            }
            while let Err(error) = self.write() {
                self.failed(&error);
                std::thread::sleep(RETRY);
                if self.ring.pending.lock().stage != Stage::Open && closing.is_none() {
                    closing = Some(Instant::now());
                }
                if closing.is_some_and(|since| since.elapsed() >= CLOSE_WAIT) {
                    return self.end();
                }
            }
            self.done();
            if closing.is_some_and(|since| self.ring.all_free() || since.elapsed() >= SLOTS_WAIT) {
                return self.end();
            }
        }
    }

    /// Counts what is not written as lost.
    fn end(self) {
        let mut pending = self.ring.pending.lock();
        pending.stage = Stage::Ended;
        let lines = std::mem::take(&mut pending.lines);
        self.ring.dropped.fetch_add(self.lines.count + lines.count, Ordering::Relaxed);
    }

    /// Waits for lines and takes all of them. True once the log is closed.
    fn take(&mut self) -> bool {
        let mut pending = self.ring.pending.lock();
        while pending.lines.count == 0 && pending.stage == Stage::Open {
            pending.asleep = true;
            self.ring.wake.wait(&mut pending);
        }
        pending.asleep = false;
        let started = Instant::now();
        while !pending.urgent {
            let left = BATCH_DELAY.saturating_sub(started.elapsed());
            if left.is_zero() || self.ring.wake.wait_for(&mut pending, left).timed_out() {
                break;
            }
        }
        pending.urgent = false;
        std::mem::swap(&mut pending.lines, &mut self.lines);
        self.ring.full.store(false, Ordering::Release);
        pending.stage != Stage::Open
    }

    /// Writes on from where the last try ended.
    fn write(&mut self) -> io::Result<()> {
        if self.lines.bytes.is_empty() {
            return Ok(());
        }
        if self.output.follow()? {
            // The rest of a line makes no sense in another file.
            let sent = self.lines.bytes.get(..self.sent).unwrap_or_default();
            self.sent = memchr::memrchr(b'\n', sent).map_or(0, |at| at + 1);
        }
        while let Some(rest) = self.lines.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.output.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn done(&mut self) {
        if self.ring.failing.swap(false, Ordering::AcqRel) {
            tracing::info!("audit log is written again");
        }
        self.ring.written.fetch_add(self.lines.count, Ordering::Relaxed);
        for announce in self.lines.announced.drain(..) {
            let _ = announce.send(()); // The caller may have gone away.
        }
        self.ring.slots.add_permits(self.lines.slots);
        self.ring.guests.add_permits(self.lines.guests);
        self.lines.bytes.clear();
        self.lines.bytes.shrink_to(KEPT_BYTES);
        (self.lines.count, self.lines.slots, self.lines.guests, self.sent) = (0, 0, 0, 0);
    }

    fn failed(&mut self, error: &io::Error) {
        self.ring.failing.store(true, Ordering::Release);
        // Calls that wait for their intent are refused at once.
        self.lines.announced.clear();
        self.ring.pending.lock().lines.announced.clear();
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
            self.complained = Some(Instant::now());
            tracing::error!(%error, lines = self.lines.count, "audit log cannot be written, calls are refused");
        }
    }
}
