//! `qis status` as a process, against a server of this one.

use qis::serve::{
    Config, Handle, Identity, Mode, Participant, Participation, Peer, Replication, Status, Store, Who, start,
};
use std::process::Command;
use std::sync::Arc;

fn status() -> Status {
    let peers = vec![
        Peer { peer: "12D3first".into(), last_heard_ms: Some(1_234), ..Peer::default() },
        Peer { peer: "12D3second".into(), silent: true, ..Peer::default() },
    ];
    let rows = (0..25)
        .map(|n| Participant {
            who: Who::Peer,
            key: format!("key{n}"),
            deposits: 30 - n,
            asks: 4,
            deposits_per_ask: Some((30 - n) as f64 / 4.0),
        })
        .collect();
    Status {
        identity: Identity { peer: "12D3own".into(), uptime_s: 7_200, ..Identity::default() },
        peers,
        store: Some(Store {
            packets: 41,
            mailboxes: 1,
            disk_bytes: 3 << 20,
            disk_free_bytes: 5 << 30,
            ..Store::default()
        }),
        replication: Replication {
            hand_off_packets: 7,
            oldest_hand_off_ms: Some(2_500),
            ..Replication::default()
        },
        participation: Participation { deposits: 40, asks: 16, rows },
        ..Status::default()
    }
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_qis")).arg("status").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn served(status: Status, folder: Option<&std::path::Path>) -> (Handle, String) {
    let address = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let config = Config { address, folder: folder.map(Into::into) };
    let handle = start(config, Arc::new(move || status.clone())).await.unwrap();
    let address = handle.address().unwrap().to_string();
    (handle, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn people_get_tables_and_programs_get_json() {
    let folder = tempfile::tempdir().unwrap();
    let (server, address) = served(status(), Some(folder.path())).await;
    let (code, text, errors) = run(&["--http", &address]);
    assert_eq!(code, Some(0), "{errors}");
    for part in [
        "12D3own",
        "storage, version",
        "up 2 hours",
        "open: everybody is admitted",
        "2 known, 1 silent",
        "41 packets in 1 mailbox,",
        "3.00 MiB used, 5.00 GiB free",
        "2500 ms: 7 copies wait for silent replicas",
        "no comparison yet",
        "2.50 deposits per ask",
        "12D3first",
        "1234 ms ago",
        "12D3second",
        "key19",
        "and 5 less active",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    assert!(!text.contains("key20"), "{text}");

    let (code, text, errors) = run(&["--http", &address, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status());
    assert_eq!(text.lines().count(), 1);
    #[cfg(unix)]
    {
        let store = folder.path().to_str().unwrap();
        assert_eq!(run(&["--store", store, "--json"]).1, text);
        server.shutdown().await;
        let (code, _, errors) = run(&["--store", store]);
        assert_eq!(code, Some(1));
        assert!(errors.contains("status.sock") && errors.contains("qis node"), "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_node_is_shown_and_the_exit_code_says_so() {
    let gateway = Identity { mode: Mode::Gateway, ..Identity::default() };
    let halted = Store { halted: Some("the disk is full".into()), ..Store::default() };
    for (status, reason) in [
        (Status { identity: gateway, store: None, peers: vec![], ..status() }, "storage nodes answers"),
        (Status { store: Some(halted), ..status() }, "the disk is full"),
    ] {
        let (server, address) = served(status, None).await;
        let (code, text, errors) = run(&["--http", &address]);
        assert_eq!(code, Some(1));
        assert!(text.contains(reason) && errors.contains("not healthy"), "{text}{errors}");
        server.shutdown().await;
    }
}

#[test]
fn wrong_use_and_nobody_there_are_told_apart() {
    assert_eq!(run(&[]).0, Some(2));
    assert_eq!(run(&["--http", "127.0.0.1:1", "--store", "x"]).0, Some(2));
    for address in ["127.0.0.1:1", "nonsense", "127.0.0.1:99999"] {
        let (code, _, errors) = run(&["--http", address]);
        assert_eq!(code, Some(1), "{address}: {errors}");
        assert!(errors.contains(address), "{errors}");
    }
    let (code, _, errors) = run(&["--store", "/no/such/folder"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("no such folder"), "{errors}");
}
