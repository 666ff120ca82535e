//! What a swarm on one machine moves: pulls from one replica, deposits to eight.
//!
//! `cargo bench --bench swarm` prints one line per figure with the work behind it. `QIS_SECONDS` sets how
//! long the deposits go on (default 5; 60 for the record).

use qis::mailbox::{Mailbox, Position, Receipt};
use qis::net::{Config, Identity, NetHandle, Remembered, Storage, start};
use qis::node::quota::Rates;
use qis::packet::{AuthorKey, Draft, Kind, Packet, Verified, verify_batch};
use qis::store::{DiskStore, MemoryStore, PacketStore};
use std::sync::Arc;
use std::time::{Duration, Instant};

const REPLICAS: usize = 8;
/// Mailboxes that the deposits go to.
const MAILBOXES: u32 = 100;
/// Packets that a depositor sends together.
const BATCH: usize = 4_096;

fn packets(author: u8, count: u32) -> Vec<Verified> {
    let key = AuthorKey::from_seed([author; 32]);
    let packet = |n: u32| {
        let mut draft = Draft::new(Kind::Observed, [1; 32], 1);
        draft.sequence = n;
        draft.reference = *blake3::hash(&[&[author][..], &n.to_le_bytes()].concat()).as_bytes();
        draft.values[0] = Some((n as u16, 0));
        key.sign(&draft).expect("a sound draft")
    };
    (0..count).map(packet).collect()
}

fn address(n: u32) -> [u8; 32] {
    *blake3::hash(&n.to_le_bytes()).as_bytes()
}

async fn node(store: Arc<dyn PacketStore>, remembered: &Arc<Remembered>, nodes: &[NetHandle]) -> NetHandle {
    let peers = nodes.first().map(NetHandle::dial_addresses).unwrap_or_default();
    let storage = Storage { store, admission: Arc::new(|_, _, _| Ok(())) };
    let mut config = Config::node(Identity::random(), storage, peers);
    config.remembered = remembered.clone();
    config.rates = Rates::UNLIMITED;
    start(config).await.expect("a node on a free port")
}

async fn client(nodes: &[NetHandle], remembered: &Arc<Remembered>) -> NetHandle {
    // A client learns the nodes when it starts: they have to know each other by then.
    let deadline = Instant::now() + Duration::from_secs(20);
    while nodes.iter().any(|node| node.peers().len() + 1 < nodes.len()) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut config = Config::client(Identity::random(), nodes[0].dial_addresses());
    config.remembered = remembered.clone();
    let client = start(config).await.expect("a client");
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.peers().len() < nodes.len() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.peers().len(), nodes.len(), "the client knows every node");
    client
}

async fn pulls() {
    let all = packets(1, 10_000);
    let plain: Vec<Packet> = all.iter().map(|packet| *packet.packet()).collect();
    let started = Instant::now();
    let good = verify_batch(&plain).iter().filter(|result| result.is_ok()).count();
    let batch = started.elapsed();
    let started = Instant::now();
    let single = plain[..2_000].iter().filter(|packet| packet.verify().is_ok()).count();
    let one_by_one = started.elapsed() * 5;
    assert_eq!((good, single), (10_000, 2_000));
    println!(
        "10,000 signatures: {:.0} thousand/s in batches on all cores, {:.0} one by one on one: {:.1} times",
        10.0 / batch.as_secs_f64(),
        10.0 / one_by_one.as_secs_f64(),
        one_by_one.as_secs_f64() / batch.as_secs_f64()
    );

    let store = MemoryStore::new([1; 32]);
    store.deposit(1, &all.iter().map(|packet| (address(0), *packet)).collect::<Vec<_>>()).expect("memory");
    let nodes = vec![node(Arc::new(store), &Arc::default(), &[]).await];
    let remembered = Arc::<Remembered>::default();
    let reader = client(&nodes, &remembered).await;
    let pull = async |name: &str| {
        let mut times = Vec::new();
        let mut checked = 0;
        for round in 0..9 {
            let before = reader.traffic().signatures_checked;
            let started = Instant::now();
            let pulled = reader.mailbox().pull(&address(0), &Position::default()).await.expect("a pull");
            times.push(started.elapsed());
            assert_eq!(pulled.packets.len(), 10_000);
            if round == 0 {
                checked = reader.traffic().signatures_checked - before;
            }
            if name.starts_with("first") {
                break;
            }
        }
        times.sort_unstable();
        let median = times[times.len() / 2];
        println!(
            "{name}: 10,000 packets, 5.12 MB in {:.0} ms, {:.0} MB/s; {checked} signatures checked",
            median.as_secs_f64() * 1e3,
            5.12 / median.as_secs_f64()
        );
    };
    pull("first pull from one replica").await;
    pull("pull again from the beginning, signatures known").await;
    let mut best = f64::INFINITY;
    for _ in 0..9 {
        let started = Instant::now();
        let bytes = reader.mailbox().move_pages(&address(0)).await.expect("pages");
        assert_eq!(bytes, 5_120_000);
        best = best.min(started.elapsed().as_secs_f64());
    }
    println!("pages moved and not looked at: 5.12 MB in {:.0} ms, {:.0} MB/s", best * 1e3, 5.12 / best);
}

/// Packets per second that all eight replicas have at the end.
async fn deposits(
    name: &str,
    nodes: &[NetHandle],
    remembered: &Arc<Remembered>,
    checked: bool,
    all: &[Verified],
    seconds: u64,
) {
    let client = client(nodes, remembered).await;
    let (started, mut done) = (Instant::now(), 0);
    let cpu = cpu_time::ProcessTime::now();
    for batch in all.chunks(BATCH) {
        let at = |(n, packet): (usize, &Verified)| (address(n as u32 % MAILBOXES), *packet);
        let batch: Vec<_> = batch.iter().enumerate().map(at).collect();
        if checked {
            remembered.remember(batch.iter().map(|(_, packet)| packet));
        }
        let receipts = client.mailbox().deposit(&batch).await.expect("acknowledged");
        assert!(receipts.iter().all(|receipt| *receipt == Receipt::Stored));
        // The slower replicas keep up: else this would measure three of them.
        assert!(client.mailbox().handed_off(Duration::from_secs(60)).await, "every replica has its copies");
        done += batch.len();
        if started.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
    }
    let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu.elapsed());
    println!(
        "{name}: {done} unique packets to eight replicas in {wall:.1} s, {:.0} packets/s; {:.0} us of processor time a packet",
        done as f64 / wall,
        cpu.as_secs_f64() * 1e6 / done as f64
    );
    if done == all.len() {
        println!("  (all packets made for it were deposited before {seconds} s were over)");
    }
}

fn main() {
    // `cargo test --all-targets` runs benches to see that they work.
    let seconds = std::env::var("QIS_SECONDS").ok().and_then(|text| text.parse().ok());
    let bench = std::env::args().any(|argument| argument == "--bench");
    let seconds = seconds.unwrap_or(if bench { 5 } else { 1 });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        pulls().await;

        let all = packets(2, (seconds as u32 + 1) * 25_000);
        let remembered = Arc::<Remembered>::default();
        let mut nodes = Vec::new();
        for n in 0..REPLICAS {
            let store = Arc::new(MemoryStore::new([n as u8; 32]));
            nodes.push(node(store, &remembered, &nodes).await);
        }
        deposits("stores in memory, packets checked before", &nodes, &remembered, true, &all, seconds).await;
        drop(nodes);

        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut nodes = Vec::new();
        for n in 0..REPLICAS {
            let (store, _) = DiskStore::open(&folder.path().join(n.to_string())).expect("a new store");
            nodes.push(node(Arc::new(store), &Arc::default(), &nodes).await);
        }
        deposits(
            "stores on disk, every replica checks signatures",
            &nodes,
            &Arc::default(),
            false,
            &all,
            seconds,
        )
        .await;
    });
}
