//! Real processes of `qis`, killed and started again.
#![cfg(unix)]

mod support;

use qis::domain::Domain;
use qis::mailbox::{Mailbox, Position, Receipt};
use qis::net::NetHandle;
use qis::packet::{AuthorKey, Draft, Id, Kind, PacketFileWriter};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::processes::Node;
use support::*;

const ADDRESS: [u8; 32] = [9; 32];

async fn pulled_ids(client: &NetHandle) -> BTreeSet<Id> {
    let pulled = client.mailbox().pull(&ADDRESS, &Position::default()).await.unwrap();
    pulled.packets.iter().map(|packet| packet.id()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_packet_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let mut node = Node::start(&store, "127.0.0.1:0", &[], &[]);
    let (peer, port) = (node.peer.clone(), node.port());
    let mut acknowledged: BTreeSet<Id> = BTreeSet::new();
    for round in 0..3u32 {
        let depositor = client(vec![node.listen.clone()]).await;
        let killing = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(400 + 150 * u64::from(round)));
            node.kill();
        });
        let mut next = round * 100_000;
        // Until the first deposit that is not acknowledged.
        loop {
            let batch = packets(1, next..next + 50);
            next += 50;
            let deposit = at(ADDRESS, &batch);
            let mailbox = depositor.mailbox();
            let result = tokio::time::timeout(Duration::from_millis(1_500), mailbox.deposit(&deposit)).await;
            let Ok(Ok(receipts)) = result else { break };
            for (packet, receipt) in batch.iter().zip(receipts) {
                assert_eq!(receipt, Receipt::Stored);
                acknowledged.insert(packet.id());
            }
        }
        killing.await.unwrap();
        // At once, on the same port, with the same key.
        node = Node::start(&store, &port, &[], &[]);
        assert_eq!(node.peer, peer);
        let reader = client(vec![node.listen.clone()]).await;
        let found = pulled_ids(&reader).await;
        let lost = acknowledged.difference(&found).count();
        assert_eq!(lost, 0, "lost of {} acknowledged packets in round {round}", acknowledged.len());
    }
    assert!(acknowledged.len() >= 150, "only {} packets were deposited", acknowledged.len());
    println!("{} acknowledged packets, three kills, none lost", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_killed_without_a_word_holds_readers_up_once_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let first = Node::start(&path("0"), "127.0.0.1:0", &[], &[]);
    let mut others: Vec<Node> =
        (1..4).map(|n| Node::start(&path(&n.to_string()), "127.0.0.1:0", &[&first.listen], &[])).collect();
    // A client learns the members when it starts: one that started too early is asked no further.
    let mut reader = client(vec![first.listen.clone()]).await;
    while reader.peers().len() < 4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        reader = client(vec![first.listen.clone()]).await;
    }
    let all = packets(1, 0..200);
    reader.mailbox().deposit(&at(ADDRESS, &all)).await.unwrap();
    assert_eq!(pulled_ids(&reader).await.len(), 200);

    others.remove(1).kill();
    let started = Instant::now();
    assert_eq!(pulled_ids(&reader).await.len(), 200);
    let once = started.elapsed();
    let started = Instant::now();
    assert_eq!(pulled_ids(&reader).await.len(), 200);
    println!("first pull after the kill {once:?}, second {:?}", started.elapsed());
    assert!(once < Duration::from_secs(5), "{once:?}");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_file_is_deposited_once_and_admitted_by_domain() {
    let folder = tempfile::tempdir().unwrap();
    let domain_file = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/breast_cancer.toml");
    let domain = Domain::load(&domain_file).unwrap();
    let key = AuthorKey::from_seed([3; 32]);
    let file = folder.path().join("packets.qpk");
    let mut writer = PacketFileWriter::create(&file, domain.schema.id(), [0; 32]).unwrap();
    for sequence in 0..300 {
        let mut draft = Draft::new(Kind::Observed, domain.schema.id(), domain.schema.outcomes.len());
        draft.sequence = sequence;
        draft.reference = *blake3::hash(&sequence.to_le_bytes()).as_bytes();
        draft.values[0] = Some((65_535, 0));
        // The last one claims to come from the far future.
        draft.observed_at = if sequence == 299 { u64::MAX / 2 } else { 0 };
        writer.write(&key.sign(&draft).unwrap()).unwrap();
    }
    writer.finish().unwrap();

    let domain_text = domain_file.to_str().unwrap();
    let store = folder.path().join("store");
    let mut node = Node::start(&store, "127.0.0.1:0", &[], &["--domain", domain_text]);
    let deposit = || {
        let output = Command::new(env!("CARGO_BIN_EXE_qis"))
            .args(["deposit", "--json", "--domain", domain_text, "--peer", &node.listen.to_string()])
            .arg(&file)
            .output()
            .unwrap();
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), summary)
    };
    let counts = |summary: &serde_json::Value| {
        ["stored", "duplicate", "rejected"].map(|name| summary[name].as_u64().unwrap())
    };
    let (code, first) = deposit();
    assert_eq!((code, counts(&first)), (Some(3), [299, 0, 1]));
    assert_eq!(first["reasons"][0]["packet"], 299);
    assert!(first["reasons"][0]["reason"].as_str().unwrap().contains("future"), "{first}");
    let (_, second) = deposit();
    assert_eq!(counts(&second), [0, 299, 1]);

    // A packet put at an address that is not its own is refused.
    let stranger = client(vec![node.listen.clone()]).await;
    let receipts = stranger.mailbox().deposit(&at(ADDRESS, &packets(1, 0..1))).await.unwrap();
    assert!(matches!(receipts[0], Receipt::Rejected(_)), "{receipts:?}");

    // The key is its owner's alone, and SIGTERM ends the node in order.
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(store.join("node.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let terminate = Command::new("kill").arg(node.process.id().to_string()).status().unwrap();
    assert!(terminate.success());
    assert_eq!(node.process.wait().unwrap().code(), Some(0));
}

#[test]
fn wrong_use_says_what_is_wrong() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_qis")).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = run(&["node", "--store", "unused", "--peer", "nonsense"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("nonsense") && text.contains("IP:PORT"), "{text}");

    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let (code, text) = run(&["node", "--store", store.to_str().unwrap(), "--listen", &port]);
    assert_eq!(code, Some(1));
    assert!(text.contains(&taken.local_addr().unwrap().port().to_string()), "{text}");
}

/// Packets in the store of a running node, as it says itself.
fn packets_held(store: &Path) -> Option<u64> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qis"));
    let output = command.args(["status", "--json", "--store"]).arg(store).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    status["store"]["packets"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_damaged_while_its_node_was_down_is_filled_again() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, damaged) = (folder.path().join("kept"), folder.path().join("damaged"));
    let first = Node::start(&kept, "127.0.0.1:0", &[], &[]);
    let mut second = Node::start(&damaged, "127.0.0.1:0", &[&first.listen], &[]);
    let depositor = client(vec![first.listen.clone(), second.listen.clone()]).await;
    let all = packets(1, 0..2_000);
    for batch in all.chunks(100) {
        depositor.mailbox().deposit(&at(ADDRESS, batch)).await.unwrap();
    }
    assert!(depositor.mailbox().handed_off(Duration::from_secs(10)).await);
    assert_eq!(packets_held(&damaged), Some(2_000));

    let terminate = Command::new("kill").arg(second.process.id().to_string()).status().unwrap();
    assert!(terminate.success() && second.process.wait().unwrap().success());
    // A disk that has lost the middle of what it was told to keep.
    let journal = damaged.join("data/0.jnl");
    let mut bytes = std::fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 3..used / 3 + 4_096].fill(0);
    std::fs::write(&journal, bytes).unwrap();

    let started = Instant::now();
    let _second = Node::start(&damaged, "127.0.0.1:0", &[&first.listen], &[]);
    let at_first = packets_held(&damaged).unwrap();
    assert!(at_first < 2_000, "the damage shows: {at_first} packets");
    while packets_held(&damaged) != Some(2_000) {
        assert!(started.elapsed() < Duration::from_secs(60), "{:?} of 2,000", packets_held(&damaged));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("of 2,000 packets {at_first} were left; all were there again after {:?}", started.elapsed());
}
