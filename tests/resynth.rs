//! Batch jobs as real processes: killed at any moment, resumed, and given bad input.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn qis(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qis")).current_dir(folder).args(arguments).output().unwrap()
}

fn done(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = qis(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The run ends with `code` and says each of `words`.
fn refused(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let output = qis(folder, arguments);
    let said: String = String::from_utf8_lossy(&output.stderr).split_whitespace().collect();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(&word.split_whitespace().collect::<String>()), "{word} in {said}");
    }
}

const REFRESH: [&str; 10] = [
    "resynth",
    "refresh",
    "--input",
    "in.qpk",
    "--memory",
    "1MiB",
    "--skip-signatures",
    "--backend",
    "cpu",
    "--json",
];

/// `QIS_KILLS` sets how many jobs are killed; the default is quick.
#[test]
fn a_killed_job_resumes_to_the_same_bits() {
    let kills: u32 = std::env::var("QIS_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let packets = if kills > 20 { "60000" } else { "20000" };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    done(folder, &["bench", "generate", "--packets", packets, "--out", "in.qpk", "--json"]);
    let began = std::time::Instant::now();
    let whole = done(folder, &[&REFRESH[..], &["--output", "whole.qpk"]].concat());
    let time = began.elapsed();
    let (mut killed, mut resumed) = (0, 0);
    for round in 0..kills {
        let output = format!("killed-{round}.qpk");
        let arguments = [&REFRESH[..], &["--output", &output]].concat();
        let start = |more: &[&str]| {
            Command::new(env!("CARGO_BIN_EXE_qis"))
                .current_dir(folder)
                .args(&arguments)
                .args(more)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        // Two kills in a row, spread over the whole run.
        for (turn, more) in [&[][..], &["--resume"][..]].iter().enumerate() {
            let mut process = start(more);
            let share = f64::from((round * 2 + turn as u32) * 37 % 100) / 100.0;
            std::thread::sleep(Duration::from_secs_f64(time.as_secs_f64() * share));
            if process.try_wait().unwrap().is_none() {
                process.kill().unwrap();
                killed += 1;
            }
            process.wait().unwrap();
        }
        let end = done(folder, &[&arguments[..], &["--resume"]].concat());
        assert_eq!(end["digest"], whole["digest"], "round {round}");
        resumed += u32::from(end["resumed"] == true);
        assert!(!folder.join(format!("{output}.work")).exists());
        std::fs::remove_file(folder.join(&output)).unwrap();
    }
    assert!(killed >= kills, "{killed} of {} were killed", 2 * kills);
    eprintln!("{killed} kills, {resumed} of {kills} jobs resumed from what was left, all digests equal");
}

#[test]
fn a_backup_answers_like_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    done(folder, &["bench", "generate", "--packets", "3000", "--out", "in.qpk", "--json"]);
    let refresh = |input: &str, output: &str| {
        done(
            folder,
            &["resynth", "refresh", "--domain", "in.toml", "--input", input, "--output", output, "--json"],
        )
    };
    let imported = done(folder, &["resynth", "import", "--input", "in.qpk", "--output", "store", "--json"]);
    assert_eq!(imported["written"], 3000);
    let before = refresh("store", "a.qpk");
    let export =
        ["resynth", "export", "--domain", "in.toml", "--input", "store", "--output", "backup.qpk", "--json"];
    assert_eq!(done(folder, &export)["written"], 3000);
    std::fs::remove_dir_all(folder.join("store")).unwrap();
    done(folder, &["resynth", "import", "--input", "backup.qpk", "--output", "store", "--json"]);
    let after = refresh("store", "b.qpk");
    assert_eq!(before["digest"], after["digest"]);
    // Into the store, then everything in it is verified.
    refresh("store", "store");
    let verified = done(folder, &["resynth", "verify", "--domain", "in.toml", "--input", "store", "--json"]);
    assert_eq!(verified["equal"], before["syntheses"]);
    assert_eq!(verified["forged"].as_array().unwrap().len(), 0);
}

#[test]
fn shards_merge_to_the_digest_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    done(folder, &["bench", "generate", "--packets", "2000", "--out", "in.qpk", "--json"]);
    let run = |shard: &str, output: &str, author: &str| {
        let arguments =
            ["--input", "in.qpk", "--shard", shard, "--output", output, "--author", author, "--json"];
        done(folder, &[&["resynth", "refresh"][..], &arguments].concat())
    };
    let whole = run("0/1", "whole.qpk", "a.json");
    // Two machines, two authors.
    let parts = [run("0/2", "0.qpk", "a.json"), run("1/2", "1.qpk", "b.json")];
    assert!(parts.iter().all(|part| part["syntheses"].as_u64().unwrap() > 0), "{parts:?}");
    let merge = ["merge-shards", "--domain", "in.toml", "--output", "both.qpk", "--json"];
    let merged = done(folder, &[&merge[..], &["1.qpk", "0.qpk"]].concat());
    assert_eq!(merged["digest"], whole["digest"]);
    assert_eq!(merged["packets"], whole["syntheses"]);
    refused(folder, &[&merge[..], &["0.qpk", "whole.qpk"]].concat(), 3, &["same mailbox and action"]);
    refused(folder, &[&merge[..], &["in.qpk"]].concat(), 3, &["not a result of this domain and view"]);
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    done(folder, &["bench", "generate", "--packets", "500", "--out", "in.qpk", "--json"]);
    let refresh = ["resynth", "refresh", "--output", "out.qpk", "--input"];
    let with = |more: &[&'static str]| [&refresh[..], more].concat();
    refused(folder, &with(&["none.qpk"]), 1, &["none.toml"]);
    refused(folder, &with(&["none.qpk", "--domain", "in.toml"]), 1, &["none.qpk"]);
    refused(folder, &with(&["in.toml", "--domain", "in.toml"]), 3, &["in.toml", "not a packet file"]);
    refused(folder, &with(&[".", "--domain", "in.toml", "--view", "x"]), 2, &["plain"]);
    refused(folder, &with(&["in.qpk", "--memory", "5"]), 2, &["512MiB"]);
    refused(folder, &with(&["in.qpk", "--shard", "3/3"]), 2, &["0/4"]);
    std::fs::create_dir(folder.join("empty")).unwrap();
    refused(folder, &with(&["empty", "--domain", "in.toml"]), 3, &["neither a store nor a folder"]);
    let mut bytes = std::fs::read(folder.join("in.qpk")).unwrap();
    bytes[1024] = b'X';
    std::fs::write(folder.join("in.qpk"), &bytes).unwrap();
    refused(folder, &with(&["in.qpk"]), 3, &["1 packets were rejected", "out.qpk.rejected.ndjson"]);
    let list = std::fs::read_to_string(folder.join("out.qpk.rejected.ndjson")).unwrap();
    assert!(list.contains("\"offset\":1024") && list.contains("magic"), "{list}");
    let allowed = done(folder, &with(&["in.qpk", "--allow-rejected", "--json"]));
    assert_eq!((&allowed["rejected"], &allowed["packets"]), (&1.into(), &500.into()));
    bytes.truncate(5_000);
    std::fs::write(folder.join("in.qpk"), &bytes).unwrap();
    refused(folder, &with(&["in.qpk"]), 3, &["truncated"]);
}
