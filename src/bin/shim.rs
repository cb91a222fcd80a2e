//! `toolgate-shim`: runs a stdio server's processes inside its own container, for the gateway beside it. Flags only.
//!
//! It must run in any image, also in one without a C library, so it is built as one static file:
//!
//! ```text
//! RUSTFLAGS="-C target-feature=+crt-static" \
//!   cargo build --release --locked --no-default-features --features shim --bin toolgate-shim --target "$TARGET"
//! ```
//! where `TARGET` is `x86_64-unknown-linux-gnu` or `aarch64-unknown-linux-gnu` (or their `musl` twins). It must be
//! named: without it the flags would reach build scripts and procedural macros too, which cannot be static.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use toolgate::shim::install::install;
use toolgate::shim::serve::{Options, ServeError, serve};

const USAGE: &str = "usage: toolgate-shim install DEST
       toolgate-shim serve --socket PATH [--grace-seconds N] -- COMMAND [ARGUMENT…]
       toolgate-shim --version";

/// What a shell answers for a program that it cannot find.
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("toolgate-shim: {message}");
            ExitCode::from(code)
        }
    }
}

fn run(arguments: &[OsString]) -> Result<(), (u8, String)> {
    let usage = || (2, USAGE.to_owned());
    let (command, rest) = arguments.split_first().ok_or_else(usage)?;
    match (command.to_str(), rest) {
        (Some("install"), [to]) => {
            install(Path::new(to)).map_err(|error| (1, format!("failed to write {}: {error}", to.display())))
        }
        (Some("serve"), rest) => serve(options(rest).ok_or_else(usage)?).map_err(|error| {
            let code = if matches!(error, ServeError::NoProgram(_)) { NOT_FOUND } else { 1 };
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            (code, format!("{error}{cause}"))
        }),
        (Some("--version"), []) => {
            println!("toolgate-shim {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        _ => Err(usage()),
    }
}

fn options(arguments: &[OsString]) -> Option<Options> {
    let at = arguments.iter().position(|argument| argument == "--")?;
    let (flags, command) = (arguments.get(..at)?, arguments.get(at + 1..)?);
    let mut socket = None;
    let mut grace = Duration::from_secs(2);
    for pair in flags.chunks(2) {
        match pair {
            [flag, value] if flag == "--socket" => socket = Some(value.into()),
            [flag, value] if flag == "--grace-seconds" => {
                grace = Duration::from_secs(value.to_str()?.parse().ok().filter(|seconds| (1..=60).contains(seconds))?);
            }
            _ => return None,
        }
    }
    (!command.is_empty()).then_some(Options { socket: socket?, command: command.to_vec(), grace })
}
