//! The binary as a user calls it: what it prints, and how it ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn qis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qis")).args(arguments).output().unwrap()
}

fn root(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// A named set outside the repository, or one visible line.
fn data(path: &str) -> Option<String> {
    let folder = std::env::var("QIS_DATA_DIR").unwrap_or_else(|_| root("../shared/data"));
    let path = Path::new(&folder).join(path);
    if !path.exists() {
        eprintln!(
            "SKIPPED: no {}; set QIS_DATA_DIR (datasets/MANIFEST.toml says where to get the sets)",
            path.display()
        );
        return None;
    }
    Some(path.display().to_string())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The run ends with `code`, and its error output contains each of `words`.
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = qis(arguments);
    // Messages are wrapped for the terminal; words may be broken over lines.
    let said: String = text(&output.stderr).chars().filter(|c| !c.is_whitespace() && *c != '│').collect();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    for word in words {
        let wanted: String = word.chars().filter(|c| !c.is_whitespace()).collect();
        assert!(said.contains(&wanted), "{arguments:?} does not say `{word}`: {}", text(&output.stderr));
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = qis(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stdout)))
}

const DOMAIN: &str = r#"
format = 1
name = "ward"
[schema]
time_step = "1d"
actions = ["wait", "treat"]
[[feature]]
name = "age"
kind = "numeric"
unit = "year"
centre = 50
scale = 10
[[feature]]
name = "pain"
kind = "categorical"
levels = ["none", "mild", "severe"]
[[outcome]]
name = "ill"
kind = "binary"
direction = "lower"
[[view]]
name = "default"
prior = { kind = "mean", cases = 1 }
kernel = { shift = 9, table = [4096, 3000, 2000, 1000, 500, 250, 120, 60, 30, 15, 7, 3, 1, 0] }
[source]
site = "ward"
[source.action]
columns = ["done"]
"#;

fn rows(count: usize) -> String {
    let mut table = String::from("age,pain,done,ill,ward\n");
    for i in 0..count {
        let pain = ["none", "mild", "severe"][i % 3];
        let done = ["wait", "treat"][i % 2];
        let ill = usize::from(i % 3 == 2 && i % 2 == 0);
        table += &format!("{},{pain},{done},{ill},w{}\n", 30 + i % 40, i % 4);
    }
    table
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.file("ward.toml", DOMAIN);
        folder.file("ward.csv", &rows(120));
        folder
    }
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
    fn file(&self, name: &str, content: &str) -> String {
        std::fs::write(self.0.path().join(name), content).unwrap();
        self.path(name)
    }
    fn distilled(&self) -> String {
        let packets = self.path("ward.qpk");
        let summary = json(&[
            "distill",
            "--domain",
            &self.path("ward.toml"),
            "--input",
            &self.path("ward.csv"),
            "--author",
            &self.path("me.json"),
            "--output",
            &packets,
            "--json",
        ]);
        assert_eq!(summary["packets"], 120);
        packets
    }
}

#[test]
fn rows_become_packets_and_packets_answers() {
    let folder = Folder::new();
    let packets = folder.distilled();
    let shown = qis(&["inspect", &packets, "--domain", &folder.path("ward.toml"), "--verify"]);
    assert!(
        text(&shown.stdout).contains("120 of 120 packets have good signatures"),
        "{}",
        text(&shown.stdout)
    );

    let questions = folder.file("new.csv", "age,pain\n44,severe\n31,none\n,mild\n");
    let domain = folder.path("ward.toml");
    let mut ask = vec!["ask", "--domain", &domain, "--input", &questions, "--packets", &packets];
    let shown = text(&qis(&ask).stdout);
    assert!(shown.contains("one author only") && shown.contains("packets of 1 author"), "{shown}");
    ask.extend(["--evidence", "3", "--json"]);
    let output = qis(&ask);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("computed on cpu"), "{}", text(&output.stderr));
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["row"], index + 1);
        let outcome = &line["outcomes"][0];
        let of = |key: &str| outcome[key].as_f64().unwrap();
        assert_eq!(outcome["name"], "ill");
        assert!(of("lower") <= of("estimate") && of("estimate") <= of("upper"), "{line}");
        assert!(line["effective_cases"].as_f64().unwrap() > 1.0);
        assert!(line["packets"].as_u64().unwrap() >= 3);
        assert_eq!((line["authors"].as_u64(), line["backend"].as_str()), (Some(1), Some("cpu")));
        assert_eq!(line["actions"].as_array().unwrap().len(), 2);
        assert_eq!(line["evidence"].as_array().unwrap().len(), 3);
        assert!(["answer", "thin", "conflict"].contains(&line["verdict"].as_str().unwrap()));
    }
    // Severe pain is ill exactly when it was left alone.
    assert_eq!(lines[0]["action"], "treat");
}

#[test]
fn distilling_twice_replaces_and_numbers_go_on() {
    let folder = Folder::new();
    let (first, again) = (folder.distilled(), folder.path("again.qpk"));
    json(&[
        "distill",
        "--domain",
        &folder.path("ward.toml"),
        "--input",
        &folder.path("ward.csv"),
        "--author",
        &folder.path("me.json"),
        "--output",
        &again,
        "--json",
    ]);
    let sequence =
        |file: &str| json(&["inspect", file, "--limit", "1", "--json"])["sequence"].as_u64().unwrap();
    assert!(sequence(&again) > sequence(&first));
    let questions = folder.file("new.csv", "age,pain\n44,severe\n");
    let ask = |packets: &[&str]| {
        let mut arguments = vec!["ask", "--json", "--domain"];
        let domain = folder.path("ward.toml");
        arguments.extend([domain.as_str(), "--input", &questions]);
        packets.iter().for_each(|file| arguments.extend(["--packets", file]));
        json(&arguments)
    };
    assert_eq!(ask(&[&first]), ask(&[&first, &again]), "the same records count once");
}

/// A published answer lies in the mailbox and changes no later answer: the echo promise.
#[test]
fn a_published_answer_is_no_evidence() {
    let folder = Folder::new();
    let (packets, store) = (folder.distilled(), folder.path("store"));
    let (domain, questions) =
        (folder.path("ward.toml"), folder.file("new.csv", "age,pain\n44,severe\n31,none\n"));
    let mut node = Command::new(env!("CARGO_BIN_EXE_qis"))
        .args(["node", "--store", &store, "--listen", "127.0.0.1:0", "--domain", &domain, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(node.stdout.take().unwrap()), &mut ready)
        .unwrap();
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    let peer = ready["listen"][0].as_str().unwrap();
    let deposited = json(&["deposit", &packets, "--domain", &domain, "--peer", peer, "--json"]);
    assert_eq!(deposited["stored"], 120);
    let ask = |more: &[&str]| {
        let mut arguments = vec!["ask", "--domain", &domain, "--input", &questions, "--peer", peer, "--json"];
        arguments.extend(more);
        let output = qis(&arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let before = ask(&[]);
    let author = folder.path("asker.json");
    for _ in 0..3 {
        assert_eq!(ask(&["--publish", "--author", &author]), before);
    }
    assert_eq!(ask(&[]), before);
    node.kill().unwrap();
    node.wait().unwrap();
    let mailbox = json(&["inspect", &store, "--json"]);
    assert_eq!((&mailbox["observed"], &mailbox["syntheses"]), (&120.into(), &6.into()), "{mailbox}");
}

#[test]
fn a_pipe_is_a_table_too() {
    let folder = Folder::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_qis"))
        .args(["distill", "--domain", &folder.path("ward.toml"), "--input", "-", "--json"])
        .args(["--author", &folder.path("me.json"), "--output", &folder.path("piped.qpk")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(rows(7).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["packets"], 7);
}

#[test]
fn bad_tables_are_rejected_with_line_and_column() {
    let folder = Folder::new();
    let domain = folder.path("ward.toml");
    let distill = |table: &str| -> Vec<String> {
        let out = folder.path("bad.qpk");
        [
            "distill",
            "--domain",
            &domain,
            "--input",
            table,
            "--author",
            &folder.path("me.json"),
            "--output",
            &out,
        ]
        .map(String::from)
        .to_vec()
    };
    let check = |content: &str, words: &[&str]| {
        let table = folder.file("bad.csv", content);
        let arguments = distill(&table);
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), 3, words);
        assert!(!Path::new(&folder.path("bad.qpk")).exists(), "no half file is left");
    };
    check("age,done,ill,ward\n1,wait,0,a\n", &["bad.csv:1", "pain"]);
    check(
        "age,pain,done,ill,ward\n1,none,wait,0,a\nold,none,wait,0,a\n",
        &["bad.csv:3: column `age`: \"old\" is not a number"],
    );
    check(
        "age,pain,done,ill,ward\n1,fierce,wait,0,a\n",
        &["bad.csv:2", "pain", "fierce", "none, mild, severe"],
    );
    check("age,pain,done,ill,ward\n1,none,pray,0,a\n", &["bad.csv:2", "pray"]);
    check("age,pain,done,ill,ward\n1,none,wait,2,a\n", &["bad.csv:2", "ill"]);
    check("age,pain,done,ill,ward\n", &["no rows"]);
    check("", &["bad.csv"]);
    check("age,pain,done,ill,ward\n1,none,wait\n", &["bad.csv:2", "3 fields"]);
    let arguments = distill(&folder.path("absent.csv"));
    refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), 1, &["absent.csv"]);
}

/// A reader that has gone away is no fault: nothing panics, and the exit code stays what it was.
#[test]
fn closed_pipes_end_nothing_badly() {
    let folder = Folder::new();
    let (domain, packets) = (folder.path("ward.toml"), folder.distilled());
    let table = folder.path("ward.csv");
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let runs: [&[&str]; 7] = [
        &["domain", "check", &domain, "--data", &table],
        &["domain", "check", &domain, "--json"],
        &["domain", "kernel", "--bandwidth", "40"],
        &["domain", "init", &table, "--outcome", "ill"],
        &["bench", "merge", "--packets", "8", "--queries", "1", "--backend", "cpu"],
        &["inspect", &packets],
        &["ask", "--domain", &domain, "--input", &table, "--packets", &packets],
    ];
    for arguments in runs {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qis"));
        let output = command.args(arguments).stdout(closed()).stderr(Stdio::piped()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("roken pipe"), "{arguments:?}: {said}");
    }
    let absent = folder.path("absent.toml");
    let mut silent = Command::new(env!("CARGO_BIN_EXE_qis"));
    let status =
        silent.args(["domain", "check", &absent]).stdout(closed()).stderr(closed()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn nothing_kept_writes_nothing() {
    let folder = Folder::new();
    let (packets, domain, me) = (folder.distilled(), folder.path("ward.toml"), folder.path("me.json"));
    let before = std::fs::read(&packets).unwrap();
    let distill = |table: &str, more: &[&str], words: &[&str]| {
        let mut arguments = vec!["distill", "--domain", &domain, "--input", table, "--author", &me];
        arguments.extend(["--output", &packets]);
        arguments.extend(more);
        refused(&arguments, 3, words);
        assert_eq!(std::fs::read(&packets).unwrap(), before, "the file of before stays");
    };
    distill(&folder.path("ward.csv"), &["--site", "nowhere"], &["`nowhere`", "w0, w1, w2, w3"]);
    let unknown = folder.file("unknown.csv", "age,pain,done,ill,ward\n30,mild,wait,,w0\n");
    distill(&unknown, &[], &["1 have no known outcome"]);
    let left = std::fs::read_dir(folder.0.path()).unwrap();
    assert!(left.flatten().all(|entry| !entry.file_name().to_string_lossy().ends_with(".part")));
}

#[test]
fn eval_needs_rows_of_both_kinds() {
    let folder = Folder::new();
    let domain = folder.path("ward.toml");
    let (one, none) = (folder.file("one.csv", &rows(1)), folder.file("none.csv", &rows(0)));
    let table = folder.path("ward.csv");
    refused(&["eval", "--domain", &domain, "--data", &one], 3, &["at least one of each"]);
    refused(&["eval", "--domain", "auto", "--outcome", "ill", "--data", &one], 3, &["at least one of each"]);
    refused(&["eval", "--domain", &domain, "--train", &none, "--test", &table], 3, &["no rows"]);
    refused(&["eval", "--domain", &domain, "--train", &table, "--test", &none], 3, &["no rows"]);
}

/// A path that is not there is 1; bytes that are not what they should be are 3.
#[test]
fn a_truncated_gzip_is_rejected_and_said_once() {
    let folder = Folder::new();
    let domain = folder.path("ward.toml");
    // The first ten bytes of any gzip file.
    let path = folder.path("cut.csv.gz");
    std::fs::write(&path, [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3]).unwrap();
    refused(&["domain", "check", &domain, "--data", &path], 3, &["cut.csv.gz"]);
    let output = qis(&["inspect", &folder.path("absent.qpk")]);
    assert_eq!(text(&output.stderr).matches("No such file").count(), 1, "{}", text(&output.stderr));
}

#[test]
fn bad_domains_show_all_their_problems() {
    let folder = Folder::new();
    let broken = DOMAIN
        .replace("kind = \"numeric\"", "kind = \"numerical\"")
        .replace("[\"none\", \"mild\", \"severe\"]", "[\"none\", \"none\"]")
        .replace("time_step = \"1d\"", "time_step = \"1 fortnight\"");
    let file = folder.file("broken.toml", &broken);
    refused(
        &["domain", "check", &file],
        3,
        &["numerical", "none", "fortnight", "broken.toml:5", "broken.toml:9"],
    );
    let newer = folder.file("newer.toml", &DOMAIN.replace("format = 1", "format = 7"));
    refused(&["domain", "check", &newer], 3, &["format 7"]);
    refused(&["domain", "check", &folder.path("absent.toml")], 1, &["absent.toml"]);
}

#[test]
fn bad_packet_files_are_rejected() {
    let folder = Folder::new();
    let packets = folder.distilled();
    let good = std::fs::read(&packets).unwrap();
    let write = |name: &str, bytes: &[u8]| -> String {
        let path = PathBuf::from(folder.path(name));
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let truncated = write("truncated.qpk", &good[..good.len() - 100]);
    refused(&["inspect", &truncated], 3, &["truncated", "120 packets"]);
    let mut flipped = good.clone();
    flipped[512 * 3 + 140] ^= 1;
    let flipped = write("flipped.qpk", &flipped);
    refused(&["inspect", &flipped, "--verify"], 3, &["packet 2", "signature"]);
    refused(&["inspect", &flipped], 3, &["packet 2", "1 of 120 packets"]);
    assert!(qis(&["inspect", &flipped, "--from", "3"]).status.success(), "what is not shown is not checked");
    let some = qis(&["inspect", &packets, "--limit", "5"]);
    assert!(text(&some.stdout).contains("5 of 120 packets have good signatures, 115 not checked"));
    let domain = folder.path("ward.toml");
    let table = folder.path("ward.csv");
    refused(&["ask", "--domain", &domain, "--input", &table, "--packets", &flipped], 3, &["packet 2"]);
    let mut newer = good.clone();
    newer[4] = 9;
    let newer = write("newer.qpk", &newer);
    refused(&["inspect", &newer], 3, &["version 9"]);
    refused(
        &[
            "ask",
            "--domain",
            &root("datasets/digits.toml"),
            "--input",
            &root("datasets/digits.csv"),
            "--packets",
            &packets,
        ],
        3,
        &["schema"],
    );
}

#[test]
fn wrong_use_is_told_apart_from_failure() {
    let folder = Folder::new();
    let (domain, table) = (folder.path("ward.toml"), folder.path("ward.csv"));
    refused(&["eval"], 2, &["--domain"]);
    refused(&["eval", "--domain", "auto", "--data", &table], 2, &["--outcome"]);
    refused(
        &["eval", "--domain", &domain, "--data", &table, "--view", "nope"],
        2,
        &["no view `nope`", "default"],
    );
    refused(&["eval", "--domain", &domain, "--data", &table, "--outcome", "nope"], 2, &["no outcome `nope`"]);
    refused(
        &["ask", "--domain", &domain, "--input", &table, "--store", &folder.path("absent")],
        1,
        &["no such folder"],
    );
    let (out, few) = (folder.path("x.qpk"), folder.file("few.csv", &rows(3)));
    let me = folder.path("me.json");
    refused(
        &["distill", "--domain", &domain, "--input", &table, "--author", &me, "--output", "-"],
        2,
        &["--output -"],
    );
    refused(
        &["eval", "--domain", &domain, "--train", &table, "--test", &table, "--splits", "2"],
        2,
        &["--splits"],
    );
    refused(&["inspect", &out], 1, &["x.qpk"]);
    refused(&["deposit", &out, "--domain", &domain, "--peer", "127.0.0.1:9"], 1, &["x.qpk"]);
    // The place where the report would go is a file: found out before anything is played.
    refused(&["demo", "--nodes", "2", "--output", &table], 1, &["ward.csv"]);
    refused(
        &["demo", "--data", &few, "--domain", &domain, "--nodes", "8", "--output", &folder.path("demo")],
        3,
        &["too few"],
    );
    assert!(!Path::new(&folder.path("demo/report.html")).exists(), "no empty report is left");
    refused(
        &["eval", "--domain", &domain, "--data", &table, "--backend", "gpu", "--adapter", "no such"],
        1,
        &["no such"],
    );
    // Nobody listens there.
    refused(&["ask", "--domain", &domain, "--input", &table, "--peer", "127.0.0.1:9"], 1, &["is it running"]);
}

#[test]
fn eval_prints_the_same_object_whatever_runs_it() {
    let digits = [root("datasets/digits.toml"), root("datasets/digits.csv")];
    let run = |more: &[&str]| {
        let mut arguments = vec!["eval", "--domain", &digits[0], "--data", &digits[1], "--splits", "2"];
        arguments.extend(["--nodes", "32", "--dirichlet", "0.3", "--json"]);
        arguments.extend(more);
        json(&arguments)
    };
    let one = run(&["--threads", "1", "--backend", "cpu"]);
    assert_eq!(one, run(&["--threads", "2", "--backend", "cpu"]));
    assert_eq!(one["nodes"], 32);
    assert_eq!(one["rows"], 1797);
    let accuracy = |method: &str| one["mean"][method]["accuracy"].as_f64().unwrap();
    assert!(accuracy("swarm") >= 0.95, "{one}");
    assert!(accuracy("local") < accuracy("swarm"));
    assert_eq!(one["splits"].as_array().unwrap().len(), 2);
    let adapter = std::env::var("QIS_TEST_ADAPTER").unwrap_or_else(|_| "llvmpipe".into());
    let gpu = qis(&[
        "bench",
        "merge",
        "--packets",
        "8",
        "--queries",
        "1",
        "--backend",
        "gpu",
        "--adapter",
        &adapter,
    ]);
    if gpu.status.success() {
        assert_eq!(one, run(&["--backend", "gpu", "--adapter", &adapter]));
    } else {
        assert!(std::env::var_os("QIS_REQUIRE_GPU").is_none(), "{}", text(&gpu.stderr));
        eprintln!("SKIPPED: no adapter `{adapter}`; the GPU's object was not compared");
    }
}

#[test]
fn eval_drafts_a_domain_and_writes_predictions() {
    let folder = Folder::new();
    let (table, lines) = (root("datasets/breast_cancer.csv"), folder.path("predictions.ndjson"));
    let report = json(&[
        "eval",
        "--domain",
        "auto",
        "--data",
        &table,
        "--outcome",
        "diagnosis",
        "--nodes",
        "16",
        "--splits",
        "2",
        "--predictions",
        &lines,
        "--json",
    ]);
    assert!(report["mean"]["swarm"]["auc"].as_f64().unwrap() > 0.97, "{report}");
    let lines = std::fs::read_to_string(lines).unwrap();
    assert_eq!(lines.lines().count(), 2 * 171 * 5, "splits x test rows x methods");
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(first["outcomes"][0]["estimate"].is_number() && first["node"].is_number(), "{first}");

    // A test table without the outcome is predicted all the same.
    let whole = std::fs::read_to_string(&table).unwrap();
    let cut = |line: &str| line.rsplit_once(',').unwrap().0.to_string();
    let header = whole.lines().next().unwrap();
    assert!(header.ends_with(",diagnosis"), "the outcome is the last column");
    let train: Vec<&str> = whole.lines().take(400).collect();
    let test: Vec<String> = std::iter::once(header).chain(whole.lines().skip(400)).map(cut).collect();
    let train = folder.file("train.csv", &train.join("\n"));
    let test = folder.file("test.csv", &test.join("\n"));
    let predictions = folder.path("p.ndjson");
    let report = json(&[
        "eval",
        "--domain",
        "auto",
        "--outcome",
        "diagnosis",
        "--train",
        &train,
        "--test",
        &test,
        "--nodes",
        "4",
        "--predictions",
        &predictions,
        "--json",
    ]);
    assert!(report["mean"]["swarm"].as_object().unwrap().is_empty(), "nothing to compare with: {report}");
    assert_eq!(std::fs::read_to_string(predictions).unwrap().lines().count(), 170 * 5);
}

#[test]
fn the_sets_reach_their_goals() {
    let goals = [
        ("heart4/heart4.csv", "heart4.toml", &[][..], "auc", 0.900),
        ("ai4i2020/ai4i2020.csv", "ai4i2020.toml", &["--nodes", "1024", "--rows", "7"][..], "auc", 0.93),
    ];
    for (table, domain, more, metric, goal) in goals {
        let Some(table) = data(table) else { continue };
        let domain = root(&format!("datasets/{domain}"));
        let mut arguments = vec!["eval", "--domain", &domain, "--data", &table, "--splits", "5", "--json"];
        arguments.extend(more);
        let report = json(&arguments);
        let of = |method: &str| report["mean"][method][metric].as_f64().unwrap();
        assert!(of("swarm") >= goal, "{table}: {}", of("swarm"));
        assert!(of("local") < of("swarm"), "{table}");
    }
}
