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
fn bench_takes_the_instructions_that_are_named() {
    for name in ["scalar", "portable"] {
        let output = qis(&["bench", "fingerprint", "--packets", "50", "--instructions", name, "--json"]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(json(&output)["instructions"], name);
    }
    let output = qis(&["bench", "fingerprint", "--instructions", "none"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("scalar, portable"));
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

/// Against a software adapter the CPU wins nearly always, and the model must know it.
#[test]
fn the_crossover_is_measured_kept_and_predicted() {
    let cache = tempfile::tempdir().unwrap();
    let adapter = std::env::var("QIS_TEST_ADAPTER").unwrap_or_else(|_| "llvmpipe".into());
    let output = Command::new(env!("CARGO_BIN_EXE_qis"))
        .args(["bench", "crossover", "--json", "--threads", "1", "--adapter", &adapter])
        .env("XDG_CACHE_HOME", cache.path())
        .output()
        .expect("the binary runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(1) && errors.contains("no GPU adapter") {
        assert_ne!(std::env::var("QIS_REQUIRE_GPU").as_deref(), Ok("1"), "an adapter is required");
        return eprintln!("GPU TEST SKIPPED: no adapter");
    }
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let points: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(points.len() >= 8, "{lines}");
    for point in &points {
        for field in ["cpu_measured_s", "cpu_predicted_s", "gpu_measured_s", "gpu_predicted_s"] {
            assert!(point[field].as_f64().unwrap() >= 0.0, "{field} {point}");
        }
        assert_eq!((&point["task"], &point["checked"]), (&"crossover".into(), &true.into()));
    }
    if adapter.contains("llvmpipe") {
        let cpu = points.iter().filter(|point| point["chosen"] == "cpu").count();
        assert!(10 * cpu >= 8 * points.len(), "{lines}");
    }
    let kept: Vec<_> = std::fs::read_dir(cache.path().join("qis")).unwrap().collect();
    assert_eq!(kept.len(), 1, "one calibration is kept");
    assert_eq!(qis(&["bench", "crossover", "--backend", "cpu"]).status.code(), Some(2));
}
