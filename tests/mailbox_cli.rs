//! Folders as mailboxes, swarms with lists or look-ups, and signed receipts, as a user meets them.
#![cfg(unix)]

mod support;

use qis::net::{PeerId, SignedReceipt};
use qis::packet::unhex;
use serde_json::Value;
use std::process::{Command, Output};
use support::processes::Node;

const DOMAIN: &str = r#"
format = 1
name = "ward"
[schema]
[[feature]]
name = "age"
kind = "numeric"
centre = 50
scale = 10
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
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        std::fs::write(folder.path("ward.toml"), DOMAIN).unwrap();
        std::fs::write(folder.path("new.csv"), "age,ward\n50,w1\n").unwrap();
        let mut table = String::from("age,ill,ward\n");
        (0..60).for_each(|row| table += &format!("{},{},w{}\n", 30 + row % 40, row % 2, row % 4));
        std::fs::write(folder.path("ward.csv"), table).unwrap();
        let [domain, input, author, output] =
            ["ward.toml", "ward.csv", "me.json", "mine.qpk"].map(|name| folder.path(name));
        let distil = ["distill", "--domain", &domain, "--input", &input, "--author", &author, "--json"];
        assert_eq!(json(&qis(&[&distil[..], &["--output", &output]].concat()))["packets"], 60);
        folder
    }
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
    fn deposit(&self, more: &[&str]) -> Output {
        let (packets, domain) = (self.path("mine.qpk"), self.path("ward.toml"));
        qis(&[&["deposit", &packets, "--domain", &domain, "--json"], more].concat())
    }
    fn ask(&self, more: &[&str]) -> Output {
        let (domain, input) = (self.path("ward.toml"), self.path("new.csv"));
        qis(&[&["ask", "--domain", &domain, "--input", &input, "--json"], more].concat())
    }
}

fn qis(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qis"));
    command.args(arguments).env_remove("AWS_ENDPOINT").output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The run ends with `code`, and its error output contains each of `words`.
fn refused(output: &Output, code: i32, words: &[&str]) {
    // Messages are wrapped for the terminal; words may be broken over lines.
    let squeeze =
        |text: &str| -> String { text.chars().filter(|c| !c.is_whitespace() && *c != '│').collect() };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(squeeze(&said).contains(&squeeze(word)), "does not say `{word}`: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_folder_is_deposited_to_and_asked() {
    let folder = Folder::new();
    let shared = folder.path("shared");
    let url = format!("file://{shared}");
    refused(&folder.deposit(&["--mailbox", &url]), 1, &[&url, "no such folder", "mounted"]);
    std::fs::create_dir(&shared).unwrap();
    assert_eq!(json(&folder.deposit(&["--mailbox", &url]))["stored"], 60);
    let file = folder.path("mine.qpk");
    let expected = json(&folder.ask(&["--packets", &file]));
    assert!(expected["packets"].as_u64().unwrap() == 60, "{expected}");
    assert_eq!(json(&folder.ask(&["--mailbox", &url])), expected);
    // Another writer, the same packets: a reader counts them once.
    json(&folder.deposit(&["--mailbox", &url]));
    assert_eq!(json(&folder.ask(&["--mailbox", &url])), expected);
}

#[test]
fn wrong_places_are_refused_with_what_to_do() {
    let folder = Folder::new();
    for url in ["ftp://host/x", "nonsense", "s3:///x", "gs://bucket"] {
        refused(&folder.ask(&["--mailbox", url]), 2, &[url, "file:///FOLDER", "s3://BUCKET/PREFIX"]);
    }
    let url = format!("file://{}", folder.path(""));
    refused(&folder.ask(&["--mailbox", &url, "--peer", "127.0.0.1:9"]), 2, &["cannot be used with"]);
    refused(&folder.deposit(&[]), 2, &["--peer", "--mailbox"]);
    let swarm = ["--mailbox", &url, "--routing", "kademlia"];
    refused(&folder.deposit(&swarm), 2, &["--routing", "--peer"]);
    refused(&folder.ask(&swarm), 2, &["--routing", "--peer"]);
    refused(&folder.deposit(&["--mailbox", &url, "--receipts", "r"]), 2, &["--receipts"]);
    let unlisted = ["--peer", "127.0.0.1:9", "--swarm", &folder.path("none.qsl")];
    refused(&folder.deposit(&unlisted), 1, &["none.qsl"]);

    // A file where the folder of the mailboxes would be: nobody can write there.
    std::fs::write(folder.path("qis1"), "x").unwrap();
    refused(&folder.deposit(&["--mailbox", &url]), 1, &["mine.qpk", &url, "may this user read and write it"]);

    // A bucket without the settings of its server: the wrong region's endpoint is not asked.
    let output = Command::new(env!("CARGO_BIN_EXE_qis"))
        .args(["ask", "--domain", &folder.path("ward.toml"), "--input", &folder.path("new.csv")])
        .args(["--mailbox", "s3://bucket/x"])
        .envs([
            ("AWS_ENDPOINT", "http://127.0.0.1:9"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
        ])
        .output()
        .unwrap();
    refused(&output, 1, &["s3://bucket/x", "AWS_ENDPOINT", "AWS_ALLOW_HTTP"]);
}

/// Asks until the swarm gives all that was deposited: nodes that have just started may not have met.
fn ask_until_all(folder: &Folder, more: &[&str]) -> Value {
    let mut answer = Value::Null;
    for _ in 0..40 {
        answer = json(&folder.ask(more));
        if answer["packets"] == 60 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    answer
}

/// A node that was just started may not have met the others: the message says to deposit again.
fn deposit_until_acknowledged(folder: &Folder, way: &[&str]) {
    let mut said = String::new();
    for _ in 0..20 {
        let output = folder.deposit(way);
        if output.status.success() {
            assert_eq!(json(&output)["packets"], 60);
            return;
        }
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("deposit"), "{said}");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    panic!("not acknowledged after 20 deposits: {said}");
}

#[test]
fn a_swarm_with_signed_lists_takes_and_gives_what_its_authors_sign() {
    let folder = Folder::new();
    let domain = folder.path("ward.toml");
    let path = |n: usize| folder.0.path().join(n.to_string());
    // Each node makes its key when it first starts.
    let keys = (0..3).map(|n| Node::start(&path(n), "127.0.0.1:0", &[], &[]).peer.clone());
    let keys: Vec<String> = keys.collect();
    let (ward, list) = (folder.path("ward"), folder.path("ward/swarm.qsl"));
    assert!(qis(&["swarm", "create", &ward]).status.success());
    let admit = ["swarm", "admit", &ward, "--node", &keys[0], &keys[1], &keys[2]];
    let mine = ["--author", &folder.path("me.json")];
    assert!(qis(&[&admit[..], &mine].concat()).status.success());

    let more = ["--domain", &domain, "--swarm", &list];
    let first = Node::start(&path(0), "127.0.0.1:0", &[], &more);
    let others = [1, 2].map(|n| Node::start(&path(n), "127.0.0.1:0", &[&first.listen], &more));
    let (peer, expected) =
        (first.listen.to_string(), json(&folder.ask(&["--packets", &folder.path("mine.qpk")])));
    let way = ["--peer", &peer, "--swarm", &list];
    deposit_until_acknowledged(&folder, &way);
    assert_eq!(ask_until_all(&folder, &way), expected);

    // Whoever is revoked deposits no more, as soon as the nodes have the newer list.
    assert!(qis(&[&["swarm", "revoke", &ward], &mine[..]].concat()).status.success());
    let published = qis(&["swarm", "publish", &ward, "--peer", &peer]);
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    refused(&folder.deposit(&way), 3, &["60 of 60 packets were rejected"]);
    drop(others);
}

#[test]
fn replicas_are_looked_up_where_the_nodes_do_it() {
    let folder = Folder::new();
    let domain = folder.path("ward.toml");
    let path = |n: usize| folder.0.path().join(n.to_string());
    let more = ["--domain", &domain, "--routing", "kademlia"];
    let mut nodes = vec![Node::start(&path(0), "127.0.0.1:0", &[], &more)];
    for n in 1..5 {
        let node = Node::start(&path(n), "127.0.0.1:0", &[&nodes[0].listen], &more);
        nodes.push(node);
    }
    let expected = json(&folder.ask(&["--packets", &folder.path("mine.qpk")]));
    let peer = nodes[1].listen.to_string();
    let way = ["--peer", &peer, "--routing", "kademlia"];
    assert_eq!(json(&folder.deposit(&way))["packets"], 60);
    assert_eq!(ask_until_all(&folder, &way), expected);
    // Through another node, the same mailboxes.
    let other = nodes[4].listen.to_string();
    assert_eq!(ask_until_all(&folder, &["--peer", &other, "--routing", "kademlia"]), expected);
}

#[test]
fn signed_receipts_are_kept_and_can_be_checked() {
    let folder = Folder::new();
    let domain = folder.path("ward.toml");
    let path = |n: usize| folder.0.path().join(n.to_string());
    let first = Node::start(&path(0), "127.0.0.1:0", &[], &["--domain", &domain]);
    let second = Node::start(&path(1), "127.0.0.1:0", &[&first.listen], &["--domain", &domain]);
    let (peer, receipts) = (first.listen.to_string(), folder.path("kept.ndjson"));
    let arguments = ["--peer", &peer, "--routing", "membership", "--receipts", &receipts];
    let mut replicas: Vec<String> = Vec::new();
    // The second node may be met later than the first.
    for round in 1..=20 {
        json(&folder.deposit(&arguments));
        let text = std::fs::read_to_string(&receipts).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.len() >= round, "{text}");
        for line in &lines {
            let bytes = |value: &Value| unhex(value.as_str().unwrap()).unwrap();
            let packets = line["packets"].as_array().unwrap().iter().map(|packet| {
                let id = |name: &str| bytes(&packet[name]).try_into().unwrap();
                let result = serde_json::from_value(packet["result"].clone()).unwrap();
                (id("address"), id("packet"), result)
            });
            let receipt = SignedReceipt {
                replica: line["replica"].as_str().unwrap().parse::<PeerId>().unwrap(),
                at_ms: line["at_ms"].as_u64().unwrap(),
                packets: packets.collect(),
                signature: bytes(&line["signature"]).try_into().unwrap(),
            };
            assert!(receipt.verify(), "{line}");
            assert_eq!(receipt.packets.len(), 60);
            replicas.push(receipt.replica.to_string());
        }
        if replicas.contains(&second.peer) {
            break;
        }
    }
    assert!(replicas.contains(&first.peer) && replicas.contains(&second.peer));
    let nowhere = ["--peer", &peer, "--receipts", &folder.path("none/kept.ndjson")];
    refused(&folder.deposit(&nowhere), 1, &["--receipts", "kept.ndjson"]);
}
