//! The demo as a user runs it, small: real QUIC, real stores, a real report.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn demo(folder: &Path, more: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_qis"))
        .args(["demo", "--json", "--backend", "cpu", "--output"])
        .arg(folder)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let written = std::fs::read(folder.join("report.json")).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&written).unwrap(), printed);
    printed
}

#[test]
fn nodes_get_smarter_and_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let report = demo(folder.path(), &["--nodes", "12", "--rows", "20", "--kill", "3"]);
    let steps = report["steps"].as_array().unwrap();
    let nodes: Vec<u64> = steps.iter().map(|step| step["nodes"].as_u64().unwrap()).collect();
    assert_eq!(nodes, [1, 2, 4, 8, 12]);
    let of = |step: &serde_json::Value, key: &str| step[key].as_f64().unwrap();
    for step in steps {
        let n = of(step, "nodes");
        assert_eq!(of(step, "pathways"), n * (n - 1.0) / 2.0);
        // Nothing is lost on the way: the swarm is as good as all packets in one place.
        assert_eq!(of(step, "swarm"), of(step, "pooled"));
        // A reader gets each packet once, and from its own disk where it is a replica itself.
        assert!(of(step, "bytes") <= 512.0 * of(step, "packets") * n, "no packet crosses twice: {step}");
    }
    assert!(steps.iter().map(|step| of(step, "bytes")).sum::<f64>() > 0.0, "packets came over the network");
    let last = &steps[4];
    assert!(of(last, "swarm") > of(&steps[0], "swarm") + 0.2, "{report}");
    assert!(of(last, "swarm") > of(last, "local") + 0.2, "{report}");
    assert_eq!(report["mailbox_after"].as_u64(), report["mailbox_before"].as_u64().map(|n| n + 1));
    // Who gives and who asks: every node by its own author's key, the packets those of the steps.
    let participation = report["participation"].as_array().unwrap();
    assert_eq!(participation.len(), 12);
    let authors: BTreeSet<&str> = participation.iter().map(|row| row["author"].as_str().unwrap()).collect();
    assert_eq!(authors.len(), 12, "one author a node");
    for (node, row) in participation.iter().enumerate() {
        assert_eq!(row["node"].as_u64(), Some(node as u64));
        let (deposited, asked) = (of(row, "deposited"), of(row, "asked"));
        assert!(deposited >= 1.0 && asked >= 1.0, "each node deposits what it has seen, and asks: {row}");
        assert_eq!(of(row, "deposits_per_ask"), deposited / asked);
    }
    let pulled: f64 = participation.iter().map(|row| of(row, "pulled")).sum();
    assert!(pulled >= of(last, "packets"), "{pulled}");
    // Eight replicas, three nodes killed: every question is answered as before, to the bit.
    let after = &report["after_kill"];
    assert_eq!(after["killed"], 3);
    assert_eq!(after["answered"], after["asked"]);
    assert_eq!(after["equal"], after["asked"]);
    let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert_eq!(html.matches("<svg").count(), 4 + 24, "four plots and the cases");
    assert_eq!(html.matches("<tr><td>").count(), 5 + 12, "a row a step, and one a node");
    assert!(!html.contains("http://") || !html.contains("src="), "self-contained");
}

#[test]
fn another_table_plays_too() {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
    let (table, domain) = (root.join("breast_cancer.csv"), root.join("breast_cancer.toml"));
    let more = ["--data", table.to_str().unwrap(), "--domain", domain.to_str().unwrap(), "--nodes", "5"];
    let report = demo(folder.path(), &more);
    assert_eq!(report["measure"], "AUC");
    let last = report["steps"].as_array().unwrap().last().unwrap().clone();
    assert!(last["swarm"].as_f64().unwrap() > 0.95, "{report}");
}
