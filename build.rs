//! Packs the program's relative relocations, where the system that builds it can load them packed.
//!
//! The tables of functions and names that Rust programs are full of hold 50,000 addresses, and each takes
//! 24 bytes in the file as the linker writes them by default: 1.3 MB, all of which the loader reads, so all
//! of it counts as memory of every `qis node`. Packed they take 13 KB. The C library reads packed ones
//! from version 2.36 on (Debian 12); a linker that does not know the option ignores it with a warning.

use std::env;
use std::process::Command;

/// The first C library that loads packed relocations.
const GLIBC: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = env::var("TARGET").unwrap_or_default();
    let native = env::var("HOST").is_ok_and(|host| host == target);
    if native && target.ends_with("-linux-gnu") && glibc().is_some_and(|version| version >= GLIBC) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this system's C library: `getconf` says `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    let minor = minor.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
