//! The shim by itself: a connection is a process, and nothing of it is left.

use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use crate::support::shim::Shim;
use crate::support::until;

const PATIENCE: Duration = Duration::from_secs(30);

async fn line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("a line comes in time").expect("a whole line");
        line.push(byte);
    }
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

async fn rest(mut stream: UnixStream) -> String {
    let mut rest = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut rest)).await.expect("the connection ends in time");
    read.map(|_| rest).expect("an orderly end")
}

fn sh(script: &str) -> [&str; 3] {
    ["/bin/sh", "-c", script]
}

async fn nothing_left(shim: &Shim) {
    until("no process and no zombie is left", || shim.children().is_empty().then_some(())).await;
}

#[tokio::test]
async fn bytes_pass_both_ways_and_closing_the_input_is_seen() {
    let shim = Shim::serve(["cat"]).await;
    let mut stream = shim.connect().await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    let (mut reader, mut writer) = stream.split();

    let writing = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let ((), read) = tokio::join!(writing, timeout(PATIENCE, reader.read_to_end(&mut got)));

    read.expect("cat ends with its input").unwrap();
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    nothing_left(&shim).await;
}

#[tokio::test]
async fn a_process_that_exits_closes_its_connection_after_its_last_words() {
    let shim = Shim::serve(sh("echo on its way >&2; echo last; exit 3")).await;

    assert_eq!(rest(shim.connect().await).await, "last\n");

    until("its exit is in the log", || shim.log().contains("exited with status 3").then_some(())).await;
    assert!(shim.log().contains("on its way"), "{}", shim.log());
    nothing_left(&shim).await;
}

#[tokio::test]
async fn a_process_that_wants_to_stay_is_killed_with_its_family() {
    let shim = Shim::serve(sh("trap '' TERM; (trap '' TERM; sleep 1000) & echo $!; while :; do sleep 1; done")).await;
    let mut stream = shim.connect().await;
    let grandchild = line(&mut stream).await;
    let begun = Instant::now();

    drop(stream);

    nothing_left(&shim).await;
    assert!(!std::path::Path::new(&format!("/proc/{grandchild}")).exists());
    assert!(begun.elapsed() >= Duration::from_secs(2), "it was asked before: {:?}", begun.elapsed());
}

#[tokio::test]
async fn what_an_exited_process_left_behind_ends_and_is_reaped() {
    // The orphan holds the output open, so that its end cannot be waited for.
    let shim = Shim::serve(sh("sleep 1000 & (sleep 0; exit 0) & echo $!")).await;

    let orphans = rest(shim.connect().await).await;

    assert!(!orphans.is_empty());
    nothing_left(&shim).await;
}

#[tokio::test]
async fn a_process_that_reads_nothing_ends_with_its_connection() {
    let shim = Shim::serve(["sleep", "1000"]).await;
    let mut stream = shim.connect().await;
    // More than pipe, buffers and socket hold.
    let stuck = timeout(Duration::from_secs(1), stream.write_all(&vec![b'x'; 8 << 20])).await;
    assert!(stuck.is_err(), "somebody took it all");
    until("the process runs", || (!shim.children().is_empty()).then_some(())).await;

    drop(stream);

    nothing_left(&shim).await;
}

#[tokio::test]
async fn a_peer_that_reads_nothing_holds_nobody_but_itself() {
    let shim = Shim::serve(sh("echo ready; exec yes")).await;
    let mut silent = shim.connect().await;
    assert_eq!(line(&mut silent).await, "ready");

    let mut other = shim.connect().await;
    assert_eq!((line(&mut other).await, line(&mut other).await), ("ready".to_owned(), "y".to_owned()));

    drop((silent, other));
    nothing_left(&shim).await;
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_and_places_come_back() {
    let shim = Shim::serve(["cat"]).await;
    let mut open = Vec::new();
    for _ in 0..80 {
        let mut stream = shim.connect().await;
        let _ = stream.write_all(b"hello\n").await;
        open.push(stream);
    }
    let mut served = 0;
    for stream in &mut open {
        let mut byte = [0];
        let read = timeout(PATIENCE, stream.read(&mut byte)).await.expect("each is answered or closed");
        served += usize::from(matches!(read, Ok(1)));
    }
    assert_eq!(served, 64);

    drop(open);
    nothing_left(&shim).await;

    let mut again = shim.connect().await;
    again.write_all(b"hello\n").await.unwrap();
    assert_eq!(line(&mut again).await, "hello");
}

#[tokio::test]
async fn sigterm_ends_every_process_and_the_shim() {
    let mut shim = Shim::serve(sh("echo $$; exec cat")).await;
    let mut stream = shim.connect().await;
    let process = line(&mut stream).await;

    shim.process.signal("TERM");

    assert_eq!(shim.process.ended().await, Some(0), "{}", shim.log());
    assert!(!std::path::Path::new(&format!("/proc/{process}")).exists());
    assert!(!shim.socket().exists());
    assert_eq!(rest(stream).await, "");
}

#[test]
fn a_program_that_is_not_there_ends_the_container_with_127() {
    let folder = tempfile::tempdir().unwrap();
    for program in ["no-such-program", "/no/such/program", "/etc/passwd"] {
        let output = Command::new(env!("CARGO_BIN_EXE_toolgate-shim"))
            .args(["serve", "--socket"])
            .arg(folder.path().join("socket"))
            .args(["--", program])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(127));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(program) && error.contains("in this image"), "{error}");
    }
}

#[test]
fn it_installs_itself_and_says_how_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let installed = folder.path().join("shim");
    let run = |program: &std::path::Path, arguments: &[&str]| Command::new(program).args(arguments).output().unwrap();
    let shim = std::path::Path::new(env!("CARGO_BIN_EXE_toolgate-shim"));

    assert!(run(shim, &["install", installed.to_str().unwrap()]).status.success());

    let version = run(&installed, &["--version"]);
    assert!(String::from_utf8(version.stdout).unwrap().starts_with("toolgate-shim "));
    for wrong in [&[][..], &["serve"], &["serve", "--socket", "s"], &["serve", "--socket", "s", "--"], &["run"]] {
        let output = run(&installed, wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("usage:"));
    }
    let nowhere = run(shim, &["install", "/no/such/folder/shim"]);
    assert_eq!(nowhere.status.code(), Some(1));
}
