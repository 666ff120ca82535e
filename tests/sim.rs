//! `qis sim` as a user calls it.

use serde_json::Value;
use std::process::{Command, Output};

fn qis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qis")).args(arguments).output().unwrap()
}

/// One object per line of standard output.
fn objects(arguments: &[&str]) -> Vec<Value> {
    let output = qis(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn routing_gives_one_object_per_size() {
    let rows = objects(&["sim", "routing", "--nodes", "3000", "--json", "--packets", "10"]);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row["nodes"], 3_000);
    assert_eq!(row["pairs"], 3_000 * 2_999 / 2);
    assert_eq!(row["expert_activations"], 3_000);
    assert_eq!(row["packet_bytes"], 5_120);
    assert_eq!(row["recall"], 1.0);
    let (mean, max) = (row["mean_hops"].as_f64().unwrap(), row["max_hops"].as_u64().unwrap());
    assert!(mean > 1.0 && mean < 3.0 && (2..=8).contains(&max), "{row}");
    let messages = row["messages"].as_f64().unwrap();
    assert!(messages > 20.0 && messages < 60.0, "{row}");
    assert_eq!(rows, objects(&["sim", "routing", "--nodes", "3000", "--json", "--packets", "10"]));
    assert_ne!(
        rows,
        objects(&["sim", "routing", "--nodes", "3000", "--json", "--packets", "10", "--seed", "1"])
    );
}

#[test]
fn routing_says_what_grows_with_what() {
    let output = qis(&["sim", "routing", "--nodes", "100"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for words in ["log2 N", "N(N-1)/2", "4950", "experts", "grows with the packets pulled"] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    assert_eq!(qis(&["sim", "routing", "--nodes", "0"]).status.code(), Some(2));
}

#[test]
fn a_swarm_under_faults_is_one_object_and_replays() {
    let arguments = ["sim", "--nodes", "24", "--steps", "10000", "--seed", "5", "--json"];
    let runs = objects(&arguments);
    let [run] = &runs[..] else { panic!("{runs:?}") };
    assert!(run["steps"].as_u64().unwrap() >= 10_000, "{run}");
    assert!(run["acknowledged"].as_u64().unwrap() > 100, "{run}");
    assert_eq!(objects(&arguments), runs);
}

#[test]
fn a_broken_invariant_says_how_to_see_it_again() {
    let arguments = ["sim", "--nodes", "24", "--steps", "10000", "--seed", "5", "--plant", "skip-page"];
    let output = qis(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["Cursor", "seed 5", "again: qis sim --nodes 24 --steps 10000 --seed 5"] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    assert_eq!(qis(&arguments).stderr, output.stderr);
    assert_eq!(qis(&["sim", "--faults", "sunshine"]).status.code(), Some(2));
}
