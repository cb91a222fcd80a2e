//! Every bound of the gateway in one place. Each has a test and an error that names it (`docs/errors.md`).

use std::time::Duration;

/// Largest request body, in bytes.
pub const BODY_BYTES: usize = 4 << 20;
/// Memory limit of the process where neither its control group nor a flag sets one, in bytes. Half of a limit may be
/// held for callers: see `memory`.
pub const MEMORY: usize = 1 << 30;
/// Bytes that are held without being counted: what is read of a connection at once is there anyway.
pub const MEMORY_FREE: usize = 4 << 10;
/// Whoever holds no more than this, in bytes, may use the last eighth of what may be held.
pub const MEMORY_SMALL: usize = 256 << 10;
/// Time that what does not fit waits for room.
pub const MEMORY_WAIT: Duration = Duration::from_secs(1);
/// Time that a stdio server's output waits for room before the server is ended: its pipe waits with it.
pub const MEMORY_STALL: Duration = Duration::from_secs(10);
/// Time between two sweeps that drop expired tokens.
pub const TOKEN_SWEEP: Duration = Duration::from_secs(30);
/// Largest request head, in bytes.
pub const HEADER_BYTES: usize = 32 << 10;
/// Longest time for a request head to arrive, and for a body to arrive.
pub const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest silence while a body arrives.
pub const BODY_IDLE: Duration = Duration::from_secs(5);
/// Longest time for a peer to take [`WRITE_PROGRESS`] bytes of what waits to be written to it, or all of it.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that a peer must take within [`WRITE_TIMEOUT`].
pub const WRITE_PROGRESS: usize = 64 << 10;
/// Longest time for the rest of a body that nobody reads to arrive before the connection is closed instead.
pub const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest message from a server, in bytes.
pub const MESSAGE_BYTES: usize = 16 << 20;
/// Sessions of one caller at one server.
pub const SESSIONS_PER_CALLER: usize = 32;
/// Long-lived streams (GET, `subscriptions/listen`) of one caller at one server.
pub const STREAMS_PER_CALLER: usize = 16;
/// Resources that one session of a shared stdio server watches, and the bytes of their URIs.
pub const SUBSCRIPTIONS_PER_SESSION: usize = 1024;
/// See [`SUBSCRIPTIONS_PER_SESSION`].
pub const SUBSCRIPTION_BYTES: usize = 256 << 10;
/// Requests of one session that have no answer yet.
pub const UNANSWERED: usize = 1024;
/// Of those, how many may have lost their stream, and how many that were answered are remembered.
pub const LATE_ANSWERS: usize = 64;
/// Child processes of one stdio server, unless the overlay says otherwise.
pub const CHILDREN: usize = 16;
/// Child processes of one caller at one stdio server, unless the overlay says otherwise.
pub const CHILDREN_PER_CALLER: usize = 4;
/// Idle time after which a child of a session may give way to another one, when all are taken.
pub const CHILD_SPARE: Duration = Duration::from_secs(10);
/// What one session remembers to be begun anew, in bytes: the client's `initialize`, and what it subscribed to.
pub const REPLAY_BYTES: usize = 16 << 10;
/// Longest time that it takes to begin a session anew.
pub const REPLAY: Duration = UPSTREAM_START;
/// Time for which a session that is begun anew waits for a server that cannot be reached at once.
pub const REPLAY_WAIT: Duration = Duration::from_millis(1500);
/// Longest time between two times that one session is begun anew because its server forgets it again and again.
pub const REPLAY_PACE: Duration = Duration::from_secs(30);
/// Idle time after which a stateless caller's child ends.
pub const CHILD_IDLE: Duration = Duration::from_mins(5);
/// Idle time after which a session ends.
pub const SESSION_IDLE: Duration = Duration::from_mins(30);
/// Time for a server to answer a request or to send the next message of a stream.
pub const UPSTREAM_IDLE: Duration = Duration::from_mins(5);
/// Longest time that a connection waits for the address of a name.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Names that are looked up at once.
pub const LOOKUP_THREADS: usize = 8;
/// Further names that wait to be looked up.
pub const LOOKUPS_WAITING: usize = 64;
/// Time between two looks whether a server that is being started takes connections.
pub const UPSTREAM_LOOK: Duration = Duration::from_millis(100);
/// Time for a server to connect, or for a child to answer `initialize`.
pub const UPSTREAM_START: Duration = Duration::from_secs(30);
/// Shortest time between two fetches of one issuer's keys.
pub const JWKS_REFRESH: Duration = Duration::from_secs(10);
/// Time that a call waits for a slot in the audit ring.
pub const AUDIT_WAIT: Duration = Duration::from_millis(100);
/// Time that a call waits for its intent to be written. Longer than a CPU quota's pause or a slow disk's hiccup: a
/// call that is late is better than one that is refused.
pub const INTENT_WAIT: Duration = Duration::from_secs(2);
/// Records that the audit ring holds.
pub const AUDIT_RING: usize = 4096;
/// Records that the audit ring holds besides, of requests without a token that was accepted.
pub const AUDIT_GUESTS: usize = 1024;
/// Refusals without a token that leave a line of their own, for each HTTP status in [`AUDIT_GUEST_PERIOD`]; further ones
/// are counted.
pub const AUDIT_GUEST_LINES: u32 = 100;
/// See [`AUDIT_GUEST_LINES`].
pub const AUDIT_GUEST_PERIOD: Duration = Duration::from_secs(1);
/// Things that a server may ask within one result (2026-07-28), and answers in one request.
pub const INPUT_REQUESTS: usize = 64;
/// Verified tokens kept.
pub const TOKENS: u64 = 10_000;
/// Names of one list that are remembered for one caller, in bytes: beyond it every new policy counts as a change.
pub const LISTED_BYTES: usize = 64 << 10;
/// What all callers of one server listed, in bytes: beyond it whoever listed least lately is forgotten.
pub const LISTINGS_BYTES: u64 = 4 << 20;
/// Shortest time between two notifications of the gateway's own that lists have changed, on one stream.
pub const LIST_CHANGED: Duration = Duration::from_secs(1);
/// Time after which a stream looks again whether time alone has changed what its caller may see.
pub const LIST_RECHECK: Duration = Duration::from_mins(1);
/// Tasks whose creator is remembered, per server.
pub const TASKS: u64 = 10_000;
/// Idle time after which a task is forgotten.
pub const TASK_IDLE: Duration = Duration::from_hours(24);
/// Open connections.
pub const CONNECTIONS: usize = 4096;
/// Silence on a stream after which a comment keeps it alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Time for running calls to end when the gateway stops.
pub const DRAIN: Duration = Duration::from_secs(5);
/// Time that the end of a stream is awaited after its answer, and that a refused server is listened to.
pub const STREAM_END: Duration = Duration::from_secs(2);
/// Time in which those who route to a draining gateway learn of it; new calls are still served.
pub const DRAIN_NOTICE: Duration = Duration::from_secs(3);
/// Longest time that a drain takes. A server's container waits longer than this before it ends, and a pod's grace
/// period is longer still.
pub const DRAIN_BOUND: Duration = Duration::from_secs(20);
/// Time before connections are accepted again after that failed: for want of descriptors, mostly, which passes.
pub const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Time after which a gateway that was drained but not ended is ready again.
pub const DRAIN_LAPSE: Duration = Duration::from_mins(2);
