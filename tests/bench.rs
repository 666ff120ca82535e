//! `qis bench` as a user runs it: every task at a tiny size, and what it refuses.

use std::path::Path;
use std::process::{Command, Output};

fn qis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qis")).arg("bench").args(arguments).output().expect("the binary runs")
}

/// The JSON objects of a run on one CPU thread, one per line.
fn records(arguments: &[&str]) -> Vec<serde_json::Value> {
    let output =
        qis(&[arguments, &["--backend", "cpu", "--threads", "1", "--seconds", "0.02", "--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("one object per line")).collect()
}

/// The run ends with `code`, and its error output contains each of `words`.
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = qis(arguments);
    // Messages are wrapped for the terminal; words may be broken over lines.
    let squeezed =
        |text: &str| -> String { text.chars().filter(|c| !c.is_whitespace() && *c != '│').collect() };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(squeezed(&said).contains(&squeezed(word)), "{arguments:?} does not say `{word}`: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// Writes an array as numpy does.
fn npy(folder: &Path, name: &str, descr: &str, shape: &str, bytes: &[u8]) {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((text.len() as u16).to_le_bytes());
    file.extend(text.as_bytes());
    file.extend(bytes);
    std::fs::write(folder.join(format!("{name}.npy")), file).unwrap();
}

/// Inputs of all tasks: 30 packets, 4 questions, 2 addresses.
fn inputs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let slots = |rows: usize| -> Vec<u8> { (0..rows * 128).map(|i| (i * 7 % 127) as u8).collect() };
    let values: Vec<u8> = (0..30 * 4 * 2).map(|i| (i * 13) as u8).collect();
    for (name, rows) in [("A_X", 30), ("B_Q", 4), ("B_P", 30), ("C_Q", 4), ("C_P", 30)] {
        npy(folder.path(), name, "|i1", &format!("({rows}, 128)"), &slots(rows));
    }
    for name in ["B_Y", "C_Y"] {
        npy(folder.path(), name, "<u2", "(30, 4)", &values);
    }
    for (name, offsets) in [("C_qo", [0i64, 1, 4]), ("C_po", [0, 10, 30])] {
        npy(folder.path(), name, "<i8", "(3,)", offsets.map(i64::to_le_bytes).as_flattened());
    }
    folder
}

#[test]
fn every_task_prints_checked_records() {
    let tasks: [(&[&str], u64, u64); 6] = [
        (&["fingerprint", "--packets", "50"], 50, 50),
        (&["merge", "--packets", "50", "--queries", "3", "--no-skip"], 150, 50),
        (&["merge", "--packets", "2048", "--queries", "3", "--clustered", "--cases", "1"], 6_144, 2_048),
        (&["query", "--packets", "70"], 70, 70),
        (&["ingest", "--packets", "300", "--signatures"], 300, 300),
        (&["verify", "--packets", "130"], 130, 130),
    ];
    for (arguments, items, packets) in tasks {
        let records = records(arguments);
        assert_eq!(records.len(), 1, "{arguments:?}");
        let record = &records[0];
        assert_eq!(record["task"], arguments[0]);
        assert_eq!((&record["items"], &record["packets"]), (&items.into(), &packets.into()), "{arguments:?}");
        assert_eq!((&record["backend"], &record["adapter"]), (&"cpu".into(), &"".into()));
        assert_eq!((&record["threads"], &record["checked"]), (&1.into(), &true.into()));
        for field in ["bytes", "seconds", "cpu_seconds", "items_per_second", "items_per_cpu_second"] {
            assert!(record[field].as_f64().unwrap() > 0.0, "{arguments:?} {field}");
        }
        // Nothing was measured that bounds signatures, nor is it known what was skipped.
        let open = arguments[0] == "verify" || arguments.contains(&"--clustered");
        assert_eq!(record["limit"].is_null(), open, "{record}");
        if let Some(limit) = record["limit"].as_object() {
            assert!(!limit["name"].as_str().unwrap().is_empty() && limit["value"].as_f64().unwrap() > 0.0);
            assert!(record["fraction_of_limit"].as_f64().unwrap() > 0.0);
        }
        assert!(record.get("kernel_seconds").is_some() && record.get("transfer_seconds").is_some());
        assert_eq!(record["skip"] == false, arguments.contains(&"--no-skip"), "{record}");
        if arguments.contains(&"--clustered") {
            assert_eq!(record["weightless_share"], 1.0 - 2.0 / 2_048.0);
        }
    }
    let ragged = &records(&["ragged", "--addresses", "20", "--packets", "10"])[0];
    assert_eq!(ragged["addresses"], 20);
    assert!(ragged["items"].as_u64() > ragged["packets"].as_u64());
}

#[test]
fn a_query_is_measured_at_three_sizes() {
    let records = records(&["query"]);
    let sizes: Vec<u64> = records.iter().map(|record| record["packets"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [1_000, 10_000, 100_000]);
    assert!(records.iter().all(|record| record["items"] == record["packets"] && record["queries"] == 1));
}

#[test]
fn people_read_lines() {
    let flags = ["--backend", "cpu", "--threads", "1", "--seconds", "0"];
    let output = qis(&[&["merge", "--packets", "40", "--queries", "2"][..], &flags].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "multiply-adds of bytes",
        "work     80 query-packet pairs: 2 questions x 40 packets, 8 value columns",
        "checked  equal to the scalar law",
        "per CPU second",
        "limit    ",
    ] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
    let output = qis(&[&["verify", "--packets", "130"][..], &flags].concat());
    assert!(String::from_utf8(output.stdout).unwrap().contains("in batches "));
}

#[test]
fn inputs_are_read() {
    let folder = inputs();
    let path = folder.path().to_str().unwrap();
    for (task, items, packets) in [("fingerprint", 30, 30), ("merge", 120, 30), ("ragged", 10 + 3 * 20, 30)] {
        let record = &records(&[task, "--inputs", path])[0];
        assert_eq!((&record["items"], &record["packets"]), (&items.into(), &packets.into()), "{task}");
    }
    let record = &records(&["query", "--inputs", path, "--packets", "20"])[0];
    assert_eq!((&record["items"], &record["value_columns"]), (&20.into(), &8.into()));
    let record = &records(&["ragged", "--inputs", path, "--addresses", "1"])[0];
    assert_eq!(
        (&record["items"], &record["packets"], &record["queries"]),
        (&10.into(), &10.into(), &1.into())
    );
    // Sizes that nobody named: what there is.
    let sizes: Vec<_> =
        records(&["query", "--inputs", path]).iter().map(|record| record["packets"].clone()).collect();
    assert_eq!(sizes, [30]);
}

#[test]
fn wrong_inputs_are_refused() {
    let folder = inputs();
    let path = folder.path().to_str().unwrap();
    refused(&["query", "--inputs", path, "--packets", "31"], 2, &["31 packets were asked for", "has 30"]);
    refused(&["merge", "--inputs", path, "--queries", "5"], 2, &["5 questions were asked for", "has 4"]);
    refused(&["ragged", "--inputs", path, "--addresses", "3"], 2, &["3 addresses were asked for", "has 2"]);

    std::fs::remove_file(folder.path().join("B_Y.npy")).unwrap();
    refused(&["merge", "--inputs", path], 1, &["B_Y.npy", "peers.py --gen"]);

    let damaged = std::fs::read(folder.path().join("A_X.npy")).unwrap();
    std::fs::write(folder.path().join("A_X.npy"), &damaged[..damaged.len() - 7]).unwrap();
    refused(&["fingerprint", "--inputs", path], 3, &["A_X.npy", "truncated"]);
    let mut low = damaged;
    *low.last_mut().unwrap() = 0x80;
    std::fs::write(folder.path().join("A_X.npy"), low).unwrap();
    refused(&["fingerprint", "--inputs", path], 3, &["A_X.npy", "row 29, slot 127 is -128"]);

    let one = [0i64, 4].map(i64::to_le_bytes);
    npy(folder.path(), "C_qo", "<i8", "(2,)", one.as_flattened());
    refused(&["ragged", "--inputs", path], 3, &["C_qo.npy", "1 mailboxes", "2"]);
}

#[test]
fn wrong_use_is_refused() {
    refused(&["sorting"], 2, &["sorting"]);
    refused(&["merge", "--packets", "0"], 2, &["--packets"]);
    refused(&["merge", "--seconds=-1"], 2, &["--seconds"]);
    refused(&["fingerprint", "--queries", "3"], 2, &["--queries is for merge only"]);
    refused(&["ragged", "--clustered"], 2, &["--clustered is for merge, query only"]);
    refused(&["verify", "--inputs", "."], 2, &["--inputs"]);
    refused(&["ingest", "--input", "x.qpk", "--packets", "5"], 2, &["--packets"]);
    refused(&["fingerprint", "--cases", "3"], 2, &["--cases is for merge, ragged"]);
    refused(&["crossover", "--law"], 2, &["--law is for fingerprint, merge"]);
    refused(&["generate"], 2, &["--out"]);
    // Before anything is made up that does not fit, or takes hours.
    refused(&["ragged", "--packets", "8388608"], 2, &["at most 8388608"]);
    refused(
        &["merge", "--packets", "8000000", "--queries", "1000000"],
        2,
        &["8000000000000 query-packet pairs"],
    );
}

#[test]
fn ingest_reads_a_given_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.qpk");
    let shown = path.to_str().unwrap();
    refused(&["ingest", "--input", shown], 1, &["some.qpk"]);
    // A header that announces no packets.
    let mut bytes = vec![0; 512];
    bytes[..5].copy_from_slice(b"QISP\x01");
    std::fs::write(&path, &bytes).unwrap();
    refused(&["ingest", "--input", shown], 3, &["some.qpk", "no packets"]);
    bytes[8] = 1;
    bytes.extend([0; 512]);
    std::fs::write(&path, &bytes).unwrap();
    refused(&["ingest", "--input", shown], 3, &["packet 0", "magic"]);
}
