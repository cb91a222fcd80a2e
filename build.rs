//! Compiles the policy stream's protocol, and makes programs need less memory where this machine's tools can: with
//! packed relative relocations (0.7 MB less of a running program), and with the unwinder linked in, which would be a
//! library of its own to map.

use std::path::Path;
use std::process::Command;

/// The first version of glibc that reads the packed form (`DT_RELR`).
const GLIBC: (u32, u32) = (2, 36);

#[allow(clippy::unnecessary_wraps)] // With the policy stream it can fail.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    // protox reads the file itself: no protoc is needed.
    #[cfg(feature = "wire")]
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .codec_path("crate::wire::codec::SmallCodec")
        .compile_fds(protox::compile(["proto/policy.proto"], ["proto"])?)?;
    let native = std::env::var("HOST").ok() == std::env::var("TARGET").ok();
    if native && glibc().is_some_and(|version| version >= GLIBC) {
        for program in ["toolgate", "toolgate-gateway", "toolgate-operator"] {
            println!("cargo:rustc-link-arg-bin={program}=-Wl,-z,pack-relative-relocs");
        }
        if has_unwinder() {
            println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
        }
    }
    Ok(())
}

/// Whether the linker finds the unwinder as a static library. `cc` answers with a path only where there is one.
fn has_unwinder() -> bool {
    let answer = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    let path = answer.ok().and_then(|answer| String::from_utf8(answer.stdout).ok());
    path.is_some_and(|path| Path::new(path.trim()).is_absolute())
}

/// Version of this machine's glibc; `None` where there is another C library.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
