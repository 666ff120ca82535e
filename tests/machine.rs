//! `qis bench` and `qis doctor` as a user runs them.

use std::process::{Command, Output};

fn qis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qis")).args(arguments).output().expect("the binary runs")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object on standard output")
}

#[test]
fn bench_prints_one_checked_record() {
    for (task, queries, items) in [("fingerprint", &[][..], 50), ("merge", &["--queries", "3"], 150)] {
        let flags = ["--packets", "50", "--backend", "cpu", "--threads", "1", "--json"];
        let output = qis(&[&["bench", task][..], queries, &flags].concat());
        assert_eq!(output.status.code(), Some(0));
        let record = json(&output);
        assert_eq!(record["task"], task);
        assert_eq!(record["items"], items);
        assert_eq!((&record["backend"], &record["adapter"]), (&"cpu".into(), &"".into()));
        assert_eq!((&record["threads"], &record["checked"]), (&1.into(), &true.into()));
        for field in ["seconds", "items_per_second", "bytes"] {
            assert!(record[field].as_f64().unwrap() > 0.0, "{field}");
        }
        assert!(record["cpu_seconds"].as_f64().unwrap() >= 0.0);
    }
}

#[test]
fn an_adapter_that_is_not_there_is_a_clear_failure() {
    let output =
        qis(&["bench", "merge", "--packets", "5", "--backend", "gpu", "--adapter", "no such adapter"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no such adapter"));
    assert_eq!(qis(&["bench", "sorting"]).status.code(), Some(2));
}

#[test]
fn doctor_fails_with_exit_code_1_and_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("FORMAT"), "from the future").unwrap();
    let output = qis(&["doctor", "--json", "--store", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    let checks = report["checks"].as_array().unwrap();
    let store = checks.iter().find(|check| check["name"] == "store").unwrap();
    assert_eq!(store["status"], "failed");
    assert!(!store["remedy"].as_str().unwrap().is_empty());
    let cpu = checks.iter().find(|check| check["name"] == "known answer on the CPU").unwrap();
    assert_eq!(cpu["status"], "passed");
}
