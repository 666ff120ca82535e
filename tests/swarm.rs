//! The swarm over real sockets: repair, signed lists, subscriptions, receipts, quotas.

mod support;

use futures::future::join_all;
use qis::limits::REPLICAS;
use qis::mailbox::{Mailbox, Position, Receipt};
use qis::net::{Config, NetHandle, PeerId, SignedReceipt, Storage, node_key, start};
use qis::node::closest;
use qis::node::lists::{Draft as ListDraft, ListKind, Lists, SwarmKey, Validity};
use qis::node::quota::{Allowance, Rate, Rates};
use qis::packet::{AuthorKey, Id, Verified};
use qis::store::{MemoryStore, PacketStore};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::*;

const ADDRESS: [u8; 32] = [9; 32];

/// Packets spread over addresses.
fn spread(packets: &[Verified], addresses: usize) -> Vec<([u8; 32], Verified)> {
    let address = |index: usize| *blake3::hash(&(index % addresses).to_le_bytes()).as_bytes();
    packets.iter().enumerate().map(|(index, packet)| (address(index), *packet)).collect()
}

/// A node whose store the test can look into.
async fn open_node(seed: u8, peers: Vec<qis::net::Multiaddr>) -> (NetHandle, Arc<MemoryStore>) {
    let identity = identity(seed);
    let store = Arc::new(MemoryStore::new([seed; 32]));
    let storage = Storage { store: store.clone(), admission: Arc::new(|_, _, _| Ok(())) };
    let mut config = Config::node(identity, storage, peers);
    config.repair_packets_per_second = 0;
    (start(config).await.expect("a node on a free port"), store)
}

async fn open_node_that_hands_over(
    seed: u8,
    peers: Vec<qis::net::Multiaddr>,
    grace: Duration,
) -> (NetHandle, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new([seed; 32]));
    let storage = Storage { store: store.clone(), admission: Arc::new(|_, _, _| Ok(())) };
    let mut config = Config::node(identity(seed), storage, peers);
    config.hand_over_after = Some(grace);
    (start(config).await.expect("a node on a free port"), store)
}

fn count(store: &MemoryStore) -> u64 {
    store.addresses().unwrap().iter().map(|(_, stat)| stat.packets).sum()
}

async fn wait_long(mut done: impl FnMut() -> bool, what: &str) {
    for _ in 0..1_200 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited a minute for {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_later_is_filled_by_repair() {
    let mut nodes = vec![open_node(1, vec![]).await];
    let seed = nodes[0].0.dial_addresses();
    for number in 2..=3 {
        nodes.push(open_node(number, seed.clone()).await);
    }
    for (node, _) in &nodes {
        wait_for(|| node.peers().len() == 2, "full membership").await;
    }
    let client = client(seed.clone()).await;
    let batch = spread(&packets(1, 0..3_000), 120);
    let receipts = client.mailbox().deposit(&batch).await.unwrap();
    assert!(receipts.iter().all(|receipt| *receipt == Receipt::Stored));
    client.shutdown().await;

    let (late, store) = open_node(4, seed).await;
    let started = Instant::now();
    wait_long(|| count(&store) == 3_000, "the new node to be filled").await;
    println!("a node that joined held all 3,000 packets of 120 mailboxes after {:?}", started.elapsed());
    let progress = late.repair().unwrap();
    assert_eq!(progress.packets_fetched, 3_000, "each packet is fetched once: {progress:?}");
    for (address, _) in &batch {
        assert_eq!(store.digest(address).unwrap(), nodes[0].1.digest(address).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_superseded_and_retracted_spreads_by_repair_too() {
    use qis::packet::{Draft, Kind};
    let author = AuthorKey::from_seed([7; 32]);
    let observed = |evidence: u8, sequence| {
        let mut draft = Draft::new(Kind::Observed, [1; 32], 1);
        (draft.reference, draft.sequence, draft.values[0]) = ([evidence; 32], sequence, Some((1, 0)));
        author.sign(&draft).unwrap()
    };
    let retraction = |of: Id| {
        let mut draft = Draft::new(Kind::Retraction, [1; 32], 1);
        (draft.reference, draft.sequence) = (of, 9);
        author.sign(&draft).unwrap()
    };
    let (old, kept, gone) = (observed(1, 1), observed(2, 1), observed(3, 1));
    let (new, back) = (observed(1, 2), retraction(gone.id()));

    // One replica has heard of everything, the other of the beginning alone.
    let (first, full) = open_node(1, vec![]).await;
    full.deposit(1, &at(ADDRESS, &[old, kept, gone, new, back])).unwrap();
    let identity = identity(2);
    let store = Arc::new(MemoryStore::new([2; 32]));
    store.deposit(1, &at(ADDRESS, &[old, kept, gone])).unwrap();
    let storage = Storage { store: store.clone(), admission: Arc::new(|_, _, _| Ok(())) };
    let second = start(Config::node(identity, storage, first.dial_addresses())).await.unwrap();
    let expected = full.digest(&ADDRESS).unwrap();
    assert_eq!(expected.count, 3);
    wait_long(|| store.digest(&ADDRESS).unwrap() == expected, "the same digest").await;
    assert_eq!(full.digest(&ADDRESS).unwrap(), expected, "the retracted packet did not come back");
    drop(second);
}

/// The first node holds everything while it is alone, and hands over what belongs to others once those
/// hold it: no packet is on fewer than eight disks at any time.
#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_that_belong_to_others_now_are_handed_over_once_those_hold_them() {
    let first = open_node_that_hands_over(1, vec![], Duration::from_secs(2)).await;
    let batch = spread(&packets(1, 0..400), 100);
    let receipts = first.0.mailbox().deposit(&batch).await.unwrap();
    assert!(receipts.iter().all(|receipt| *receipt == Receipt::Stored));
    let mut nodes = vec![first];
    for number in 2..=20 {
        let seed = nodes[0].0.dial_addresses();
        nodes.push(open_node_that_hands_over(number, seed, Duration::from_secs(2)).await);
    }
    let keys: Vec<_> = nodes.iter().map(|(node, _)| node.key()).collect();
    let belongs =
        |address: &[u8; 32], node: usize| closest(address, keys.clone(), REPLICAS).contains(&keys[node]);
    let addresses: std::collections::BTreeSet<[u8; 32]> = batch.iter().map(|(address, _)| *address).collect();
    let foreign = addresses.iter().filter(|address| !belongs(address, 0)).count();
    assert!(foreign > 30, "{foreign} mailboxes of 100 belong to others");
    let started = Instant::now();
    let handed_over = || {
        // Nothing goes before eight others have it.
        for address in &addresses {
            let full = nodes.iter().filter(|(_, store)| store.digest(address).unwrap().count == 4).count();
            let kept = nodes[0].1.digest(address).unwrap().count == 4;
            assert!(kept || full >= REPLICAS, "{full} disks hold a mailbox that the first has left");
        }
        (0..nodes.len()).all(|node| {
            let held = |address: &&[u8; 32]| nodes[node].1.digest(address).unwrap().count > 0;
            addresses.iter().filter(held).all(|address| belongs(address, node))
        })
    };
    wait_long(handed_over, "every mailbox to lie on its replicas alone").await;
    println!("{foreign} mailboxes of 100 were handed over after {:?}", started.elapsed());
    for address in &addresses {
        let full = (0..nodes.len()).filter(|node| nodes[*node].1.digest(address).unwrap().count == 4);
        assert_eq!(full.filter(|node| belongs(address, *node)).count(), REPLICAS);
    }
    let reader = client(nodes[3].0.dial_addresses()).await;
    for address in &addresses {
        assert_eq!(reader.mailbox().pull(address, &Position::default()).await.unwrap().packets.len(), 4);
    }
}

/// A storage node that knows nobody yet would acknowledge with its own disk alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_just_started_deposits_to_the_replicas_of_the_whole_swarm() {
    let mut nodes = vec![open_node(1, vec![]).await];
    for number in 2..=12 {
        nodes.push(open_node(number, nodes[0].0.dial_addresses()).await);
    }
    for (node, _) in &nodes {
        wait_for(|| node.peers().len() == 11, "full membership").await;
    }
    // It is given one node, which tells it of the others.
    let (late, own) = open_node(13, nodes[0].0.dial_addresses()).await;
    let batch = spread(&packets(1, 0..40), 40);
    let receipts = late.mailbox().deposit(&batch).await.unwrap();
    assert!(receipts.iter().all(|receipt| *receipt == Receipt::Stored), "{receipts:?}");
    assert_eq!(late.peers().len(), 12, "it knew everybody");
    let mut keys: Vec<_> = nodes.iter().map(|(node, store)| (node.key(), store.clone())).collect();
    keys.push((late.key(), own));
    let holds = |address: &[u8; 32], key| {
        let (_, store) = keys.iter().find(|(other, _)| *other == key).expect("a node of the test");
        store.digest(address).unwrap().count == 1
    };
    for (address, _) in &batch {
        let replicas = closest(address, keys.iter().map(|(key, _)| *key), REPLICAS);
        wait_for(|| replicas.iter().all(|key| holds(address, *key)), "the eight closest to hold it").await;
        let holders = keys.iter().filter(|(key, _)| holds(address, *key)).count();
        assert_eq!(holders, REPLICAS, "and nobody else");
    }
}

fn validity() -> Validity {
    Validity { from_ms: 0, until_ms: 0 }
}

fn signed(swarm: &SwarmKey, kind: ListKind, epoch: u64, keys: Vec<Vec<u8>>) -> Vec<u8> {
    let entries = keys.into_iter().map(|key| (key, validity())).collect();
    let draft = ListDraft { kind, epoch, issued_at_ms: 0, entries };
    swarm.sign(&draft).unwrap().as_bytes().to_vec()
}

fn lists(swarm: &SwarmKey, signed: &[Vec<u8>]) -> Lists {
    let mut lists = Lists::new(*swarm.public());
    for bytes in signed {
        lists.offer(qis::node::lists::List::parse(bytes).unwrap());
    }
    lists
}

#[tokio::test(flavor = "multi_thread")]
async fn the_swarm_key_admits_and_revokes_and_its_word_spreads() {
    let swarm = SwarmKey::from_seed([9; 32]);
    let authors = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes.iter().map(|&byte| AuthorKey::from_seed([byte; 32]).public().to_vec()).collect()
    };
    let peers: Vec<PeerId> = (1..=4).map(|seed| identity(seed).peer_id()).collect();
    let listed: Vec<Vec<u8>> = peers[..3].iter().map(|peer| peer.to_bytes()).collect();
    let node_list = signed(&swarm, ListKind::Nodes, 1, listed);
    let first = signed(&swarm, ListKind::Authors, 1, authors(&[1, 2]));
    let mut nodes: Vec<NetHandle> = Vec::new();
    // The fourth is not on the list, and says all the same that it keeps mailboxes.
    for seed in 1..=4 {
        let identity = identity(seed);
        let storage = storage(&identity);
        let peers = nodes.first().map(NetHandle::dial_addresses).unwrap_or_default();
        let mut config = Config::node(identity, storage, peers);
        config.lists = Some(lists(&swarm, &[node_list.clone(), first.clone()]));
        nodes.push(start(config).await.unwrap());
    }
    for node in &nodes[..3] {
        wait_for(|| node.peers().len() == 2 && node.peers().iter().all(|p| !p.silent), "the listed nodes")
            .await;
        let replicas = node.mailbox().replicas(&ADDRESS).await.unwrap();
        assert!(replicas.len() == 3 && !replicas.contains(&node_key(&peers[3])), "{replicas:?}");
    }
    let client = client(nodes[0].dial_addresses()).await;
    let deposit = async |author: u8, from: u32| {
        client.mailbox().deposit(&at(ADDRESS, &packets(author, from..from + 1))).await.unwrap().remove(0)
    };
    assert_eq!(deposit(1, 0).await, Receipt::Stored);
    assert_eq!(deposit(2, 0).await, Receipt::Stored);
    match deposit(3, 0).await {
        Receipt::Rejected(reason) => {
            assert!(reason.contains("author") && reason.contains("list"), "{reason}")
        }
        other => panic!("an unlisted author: {other:?}"),
    }

    // One refusal of three decides. A replica that is slower must not get the packet after author 3 is admitted.
    assert!(client.mailbox().handed_off(Duration::from_secs(10)).await);

    // The key revokes author 2 and admits author 3; one node is told, and the others hear of it.
    let second = signed(&swarm, ListKind::Authors, 2, authors(&[1, 3]));
    assert_eq!(nodes[1].offer_list(&second).await, Ok(true));
    assert_eq!(nodes[1].offer_list(&second).await, Ok(false), "no news the second time");
    assert_eq!(nodes[1].offer_list(&first).await, Ok(false), "an older list changes nothing");
    let stranger = signed(&SwarmKey::from_seed([8; 32]), ListKind::Authors, 7, authors(&[2]));
    assert!(nodes[1].offer_list(&stranger).await.is_err(), "another key's list");
    for node in &nodes[..3] {
        wait_for(|| node.lists().unwrap().epochs().1 == 2, "the newer list").await;
    }
    assert!(matches!(deposit(2, 1).await, Receipt::Rejected(_)));
    assert_eq!(deposit(3, 1).await, Receipt::Stored);
    let pulled = client.mailbox().pull(&ADDRESS, &Position::default()).await.unwrap();
    assert_eq!(pulled.packets.len(), 3, "what was admitted once stays");
    assert!(nodes.iter().map(|node| node.traffic().refused_authors).sum::<u64>() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_answered_when_something_comes_and_not_before() {
    let nodes = swarm(3).await;
    let (reader, writer) = tokio::join!(client(nodes[0].dial_addresses()), client(nodes[1].dial_addresses()));
    let first = packets(1, 0..5);
    writer.mailbox().deposit(&at(ADDRESS, &first)).await.unwrap();
    let start = Position::default();
    let pulled = reader.mailbox().subscribe(&ADDRESS, &start, Duration::from_secs(5)).await.unwrap();
    assert_eq!(pulled.packets.len(), 5, "what is there comes at once");

    let started = Instant::now();
    let later = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        writer.mailbox().deposit(&at(ADDRESS, &packets(2, 0..3))).await.unwrap();
    };
    let mailbox = reader.mailbox();
    let waiting = mailbox.subscribe(&ADDRESS, &pulled.position, Duration::from_secs(20));
    let (news, ()) = tokio::join!(waiting, later);
    let (news, elapsed) = (news.unwrap(), started.elapsed());
    assert!(!news.packets.is_empty() && news.packets.iter().all(|p| p.author() != first[0].author()));
    assert!(elapsed >= Duration::from_millis(1_400), "{elapsed:?}");
    println!("a subscription heard of a deposit {:?} after it began", elapsed - Duration::from_millis(1_500));

    // Nothing comes: the wait ends by itself.
    let mut position = news.position;
    for _ in 0..3 {
        let rest = mailbox.subscribe(&ADDRESS, &position, Duration::from_millis(300)).await.unwrap();
        position = rest.position;
        if rest.packets.is_empty() {
            return;
        }
    }
    panic!("packets without end");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_sign_what_they_acknowledge() {
    let nodes = swarm(4).await;
    let client = client(nodes[0].dial_addresses()).await;
    let kept: Arc<Mutex<Vec<SignedReceipt>>> = Arc::default();
    let keep = kept.clone();
    let mailbox =
        client.mailbox().keeping_receipts(Arc::new(move |receipt| keep.lock().unwrap().push(receipt)));
    let all = packets(1, 0..40);
    mailbox.deposit(&at(ADDRESS, &all)).await.unwrap();
    assert!(mailbox.handed_off(Duration::from_secs(5)).await);
    let kept = kept.lock().unwrap();
    assert_eq!(kept.len(), 4);
    for receipt in kept.iter() {
        assert!(receipt.verify());
        assert!(nodes.iter().any(|node| node.peer_id() == receipt.replica));
        let mut signed: Vec<Id> = receipt.packets.iter().map(|(_, id, _)| *id).collect();
        signed.sort_unstable();
        assert_eq!(signed, ids(&all));
    }
}

/// One deposit and one pull, timed.
async fn honest_round(client: &NetHandle, number: u32) -> Duration {
    let started = Instant::now();
    let fresh = packets(200, number..number + 1);
    let receipts = client.mailbox().deposit(&at([7; 32], &fresh)).await.unwrap();
    assert_eq!(receipts, [Receipt::Stored]);
    client.mailbox().pull(&[7; 32], &Position::default()).await.unwrap();
    started.elapsed()
}

fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_flooding_peers_are_refused_and_slow_nobody_else() {
    let identity = identity(1);
    let storage = storage(&identity);
    let mut config = Config::node(identity, storage, vec![]);
    let peer = Allowance {
        requests: Rate::new(300, 600),
        packets: Rate::new(2_000, 4_000),
        bytes: Rate::new(8 << 20, 16 << 20),
    };
    config.rates = Rates { peer, ..Rates::default() };
    let node = start(config).await.unwrap();
    let honest = client(node.dial_addresses()).await;
    let mut alone = Vec::new();
    for number in 0..40 {
        alone.push(honest_round(&honest, number).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let flooders = join_all((0..10).map(|_| client(node.dial_addresses()))).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let floods: Vec<_> = flooders
        .into_iter()
        .map(|flooder| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut answered = 0u64;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let mailbox = flooder.mailbox();
                    let stats = (0..32).map(|_| mailbox.stat(&[3; 32]));
                    let all = join_all(stats).await;
                    answered += all.iter().filter(|result| result.is_ok()).count() as u64;
                }
                answered
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut beside = Vec::new();
    for number in 100..140 {
        beside.push(honest_round(&honest, number).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let answered: u64 = join_all(floods).await.into_iter().map(|flood| flood.unwrap()).sum();
    let refused = node.traffic().refused_quota;
    let (p99_alone, p99_beside) = (percentile(alone, 99), percentile(beside, 99));
    println!(
        "deposit and pull of an honest client, p99: {p99_alone:?} alone, {p99_beside:?} beside ten peers that flood; \
         {answered} of their requests answered, {refused} refused"
    );
    assert!(refused > 1_000, "{refused} refused");
    assert!(p99_beside < Duration::from_secs(2), "{p99_beside:?}");
}
