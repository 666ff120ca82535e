//! Over raw sockets, good clients and bad ones.

use super::client::{ClientError, Place, fetch};
use super::*;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn sample() -> Status {
    let refused =
        |rows: &[(&str, u64)]| rows.iter().map(|(name, count)| (name.to_string(), *count)).collect();
    Status {
        identity: Identity {
            peer: "12D3KooW".into(),
            version: "1.2.3".into(),
            mode: Mode::Storage,
            swarm: None,
            uptime_s: 61,
            listen: vec!["/ip4/127.0.0.1/udp/4001/quic-v1".into()],
        },
        peers: (0..3).map(|n| Peer { peer: format!("peer{n}"), silent: n == 2, ..Peer::default() }).collect(),
        store: Some(Store { packets: 7, mailboxes: 2, disk_bytes: 4_096, ..Store::default() }),
        ranges: Ranges { held: 2, responsible: 1 },
        replication: Replication {
            deposits_acknowledged: 7,
            hand_off_packets: 3,
            oldest_hand_off_ms: Some(1_500),
        },
        repair: Repair { queue_mailboxes: 4, last_comparison_ms: None, ..Repair::default() },
        admission: Admission {
            nodes_epoch: Some(9),
            authors_epoch: None,
            refused: refused(&[("future", 2), ("a \"quoted\"\nreason", 1)]),
        },
        quotas: Quotas { refused: refused(&[("peer", 6)]) },
        participation: Participation {
            deposits: 40,
            asks: 10,
            rows: vec![Participant {
                who: Who::Author,
                key: "ab".into(),
                deposits: 40,
                ..Default::default()
            }],
        },
        traffic: traffic(&crate::net::Traffic { bytes_in: 11, packets_out: 12, ..Default::default() }),
    }
}

async fn server(read: impl Fn() -> Status + Send + Sync + 'static) -> Handle {
    let address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    start(Config { address, folder: None }, Arc::new(read)).await.unwrap()
}

/// Sends bytes and reads until the server closes.
async fn raw(address: SocketAddr, request: impl Into<Vec<u8>>) -> String {
    let request = request.into();
    let exchange = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // A server that has closed already is what some of these tests are about.
        let _ = stream.write_all(&request);
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    raw(address, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
}

fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |parts| parts.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_path_has_its_answer_and_others_have_none() {
    let server = server(sample).await;
    let address = server.address().unwrap();
    let status = get(address, "/status").await;
    assert_eq!(serde_json::from_str::<Status>(body(&status)).unwrap(), sample());
    assert!(status.contains("content-type: application/json\r\n"), "{status}");
    let health = get(address, "/healthz").await;
    assert_eq!((code(&health), body(&health)), ("200", "ok\n"));
    for path in ["/", "/status/", "/statu", "/../status", "*"] {
        assert_eq!(code(&get(address, path).await), "404", "{path}");
    }
    assert_eq!(code(&get(address, "/status?verbose=1").await), "200");
    for method in ["POST", "HEAD", "DELETE", "PUT", "QIS"] {
        let request = format!("{method} /status HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello");
        let answer = raw(address, request).await;
        assert_eq!(code(&answer), "405", "{method}: {answer}");
        assert!(answer.contains("allow: GET\r\n"), "{answer}");
    }
    server.shutdown().await;
    assert!(TcpStream::connect(address).is_err());
}

/// The values, kinds and names that whoever collects relies on.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_openmetrics_with_units_and_kinds() {
    let server = server(sample).await;
    let answer = get(server.address().unwrap(), "/metrics").await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    let text = body(&answer);
    assert!(text.ends_with("# EOF\n"));
    for line in [
        "# TYPE qis_uptime_seconds gauge",
        "qis_uptime_seconds 61",
        "qis_peers{state=\"answering\"} 2",
        "qis_peers{state=\"silent\"} 1",
        "qis_store_disk_bytes 4096",
        "qis_replication_lag_seconds 1.5",
        "# TYPE qis_repair_queue_mailboxes gauge",
        "qis_repair_queue_mailboxes 4",
        "qis_admission_list_epoch{list=\"nodes\"} 9",
        "qis_admission_refused_total{reason=\"future\"} 2",
        "qis_admission_refused_total{reason=\"a \\\"quoted\\\"\\nreason\"} 1",
        "qis_quota_refused_requests_total{limit=\"peer\"} 6",
        "qis_participation_deposits_packets_total 40",
        "# TYPE qis_net_bytes_in counter",
        "qis_net_bytes_in_total 11",
        "qis_net_packets_out_total 12",
    ] {
        assert!(text.lines().any(|found| found == line), "no line `{line}` in\n{text}");
    }
    assert!(
        text.contains("qis_node_info{peer=\"12D3KooW\",version=\"1.2.3\",mode=\"storage\",swarm=\"open\"} 1")
    );
    // What is not known is left out; a round that never ended is not zero seconds old.
    assert!(!text.contains("last_comparison_age") && !text.contains("list=\"authors\""), "{text}");
    // Each family is described once and its samples stand together.
    let described: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let unique: std::collections::BTreeSet<&&str> = described.iter().collect();
    assert_eq!(unique.len(), described.len(), "{described:?}");
    assert!(described.iter().all(|name| name.starts_with("qis_")), "{described:?}");
    // Whoever follows the operator's page finds what it names.
    let page = include_str!("../../docs/operations.md");
    let words = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for name in words.filter(|word| word.starts_with("qis_")) {
        assert!(text.contains(&format!("\n{name} ")) || text.contains(&format!("\n{name}{{")), "{name}");
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_names_its_reason() {
    let halted = || {
        let store = Store { halted: Some("the disk is full".into()), ..Store::default() };
        Status { store: Some(store), ..sample() }
    };
    let server = server(halted).await;
    let answer = get(server.address().unwrap(), "/healthz").await;
    assert_eq!(code(&answer), "503");
    assert!(body(&answer).contains("the disk is full"), "{answer}");
    server.shutdown().await;

    let gateway = |silent| {
        let identity = Identity { mode: Mode::Gateway, ..Identity::default() };
        let peers = vec![Peer { silent, ..Peer::default() }];
        Status { identity, peers, ..Status::default() }
    };
    assert!(gateway(false).health().is_ok());
    assert!(gateway(true).health().unwrap_err().contains("none of 1"));
}

/// Noise, half requests, enormous ones, early ends: an answer or a closed connection, never more.
#[tokio::test(flavor = "multi_thread")]
async fn bad_clients_harm_nobody() {
    let server = server(sample).await;
    let address = server.address().unwrap();
    let mut noise = vec![0; 4_096];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let long_line = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    let long_head = format!("GET /status HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(20_000));
    let many = "GET /status HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    for bad in [noise, long_line.into(), long_head.into(), b"\0\0\0\0\r\n\r\n".to_vec()] {
        let answer = raw(address, bad).await;
        assert!(answer.is_empty() || code(&answer).starts_with('4'), "{answer}");
    }
    // Pipelined requests: one answer, because there is no keep-alive.
    assert_eq!(raw(address, many).await.matches("HTTP/1.1 200").count(), 1);
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /status HTT").unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(code(&get(address, "/healthz").await), "200");
    server.shutdown().await;
}

/// More clients than there are connections, which send nothing: they are closed after the head's
/// time, and whoever came later gets an answer.
#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_hold_a_place_for_a_bounded_time() {
    let server = server(sample).await;
    let address = server.address().unwrap();
    let silent: Vec<TcpStream> =
        (0..CONNECTIONS_MAX + 4).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(code(&get(address, "/healthz").await), "200");
    drop(silent);
    server.shutdown().await;
}

/// The picture is read one at a time, off the runtime, and a reader that panics is an answer too.
#[tokio::test]
async fn a_slow_disk_stops_neither_the_runtime_nor_a_second_reader() {
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside_too, most_too) = (inside.clone(), most.clone());
    let server = server(move || {
        let now = inside_too.fetch_add(1, Ordering::SeqCst) + 1;
        most_too.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        inside_too.fetch_sub(1, Ordering::SeqCst);
        sample()
    })
    .await;
    let address = server.address().unwrap();
    let answers = futures::future::join_all((0..5).map(|_| get(address, "/status")));
    let ticks = async {
        let started = Instant::now();
        // On this one thread: it would not tick if the reading blocked it.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        started.elapsed()
    };
    let (answers, _) = tokio::join!(answers, ticks);
    assert!(answers.iter().all(|answer| code(answer) == "200"));
    assert_eq!(most.load(Ordering::SeqCst), 1);
    server.shutdown().await;

    let first = AtomicBool::new(true);
    let panics_once = move || {
        assert!(!first.swap(false, Ordering::SeqCst), "planted");
        sample()
    };
    let server = self::server(panics_once).await;
    let address = server.address().unwrap();
    assert_eq!(code(&get(address, "/healthz").await), "503");
    assert_eq!(code(&get(address, "/healthz").await), "200");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_reads_what_the_server_says_and_names_what_is_wrong() {
    let server = server(sample).await;
    let place = Place::Http(server.address().unwrap().to_string());
    let (sent, status) = fetch(&place).await.unwrap();
    assert_eq!(status, sample());
    assert_eq!(sent["replication"]["oldest_hand_off_ms"], 1_500);
    server.shutdown().await;
    assert!(matches!(fetch(&place).await, Err(ClientError::NoNode { .. })));

    // Somebody else's server.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::Http(other.local_addr().unwrap().to_string());
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 500 No\r\n\r\nno \x1b[31m",
        "SSH-2.0\r\n",
    ];
    let serving = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = other.accept().unwrap();
            let _ = stream.read(&mut [0; 1_024]);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    assert!(matches!(fetch(&place).await, Err(ClientError::Unknown { .. })));
    let refused = fetch(&place).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused { code: 500, text, .. } if text == "no [31m"),
        "{refused}"
    );
    assert!(matches!(fetch(&place).await, Err(ClientError::Broken { .. })));
    serving.join().unwrap();
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_socket_file_is_its_owners_and_goes_with_the_node() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let config = || Config { address: None, folder: Some(folder.path().into()) };
    let place = Place::Store(folder.path().into());
    assert!(matches!(fetch(&place).await, Err(ClientError::NoNode { .. })));

    let server = start(config(), Arc::new(sample)).await.unwrap();
    let path = folder.path().join(SOCKET_FILE);
    assert_eq!(server.socket(), Some(&*path));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fetch(&place).await.unwrap().1, sample());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the socket is left");
    assert!(matches!(start(config(), Arc::new(sample)).await, Err(ServeError::InUse { .. })));
    server.shutdown().await;
    assert!(!path.exists());

    // After a kill the file is still there, and nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = start(config(), Arc::new(sample)).await.unwrap();
    assert_eq!(fetch(&place).await.unwrap().1, sample());
    drop(server);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(start(config(), Arc::new(sample)).await, Err(ServeError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let deep = folder.path().join("x".repeat(100));
    std::fs::create_dir(&deep).unwrap();
    let too_long = start(Config { address: None, folder: Some(deep) }, Arc::new(sample)).await;
    assert!(matches!(too_long, Err(ServeError::TooLong { .. })));
    let gone = Place::Store(folder.path().join("gone"));
    assert!(matches!(fetch(&gone).await, Err(ClientError::NoFolder(_))));
}
