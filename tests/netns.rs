//! A swarm across network namespaces, with loss, a NAT and a partition: `tests/netns/run.sh`.
//!
//! It needs root, iproute2 and nftables. Where the machine does not let it, one visible line says why;
//! `QIS_REQUIRE_NETNS=1` turns that into a failure.
#![cfg(unix)]

use std::io::Write;
use std::path::Path;
use std::process::Command;

#[test]
fn a_partitioned_swarm_with_loss_and_a_nat_loses_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("bash")
        .arg(root.join("tests/netns/run.sh"))
        .arg(env!("CARGO_BIN_EXE_qis"))
        .arg(root.join("datasets"))
        .output()
        .expect("bash runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    print!("{text}");
    // Straight to the terminal: the test harness would swallow it.
    let last = text.lines().last().unwrap_or("the script printed nothing");
    let _ = writeln!(std::io::stderr(), "{last}");
}
