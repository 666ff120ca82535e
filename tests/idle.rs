//! Idle nodes: in a process of their own, where no other test uses the processor.

mod support;

use std::time::Duration;
use support::*;

/// What the demo does: many nodes in one process. Idle, they must cost next to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_idle_nodes_sleep() {
    let nodes = swarm(32).await;
    // Connections close after ten seconds without a request.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let before = cpu_ticks();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (Some(before), Some(after)) = (before, cpu_ticks()) else {
        println!("skipped: this system has no /proc/self/stat");
        return;
    };
    let milliseconds = (after - before) * 10;
    let memory = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = memory.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_string();
    println!("{} idle nodes: {milliseconds} ms of processor time in 4 s; {memory}", nodes.len());
    assert!(milliseconds < 400, "{milliseconds} ms of processor time in 4 s");
}

/// User and system time of this process in ticks of 10 ms.
fn cpu_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}
