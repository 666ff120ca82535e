//! Nodes over real QUIC on the loopback interface.

mod support;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{PeerId, StreamProtocol, Swarm, SwarmBuilder};
use qis::mailbox::{Mailbox, MailboxError, Position, Receipt};
use qis::net::{Config, NetError, NetHandle, start};
use qis::node::{NodeKey, closest};
use std::io;
use std::time::{Duration, Instant};
use support::*;

const ADDRESS: [u8; 32] = [9; 32];

#[tokio::test(flavor = "multi_thread")]
async fn eight_nodes_deposit_pull_and_stat_knowing_one_peer_each() {
    let nodes = swarm(8).await;
    let all = packets(1, 0..2_500);
    let receipts = nodes[3].mailbox().deposit(&at(ADDRESS, &all)).await.unwrap();
    assert!(receipts.iter().all(|receipt| *receipt == Receipt::Stored), "{:?}", receipts[0]);
    let again = nodes[5].mailbox().deposit(&at(ADDRESS, &all[..10])).await.unwrap();
    assert!(again.iter().all(|receipt| matches!(receipt, Receipt::Stored | Receipt::Duplicate)));

    let client = client(nodes[2].dial_addresses()).await;
    let pulled = client.mailbox().pull(&ADDRESS, &Position::default()).await.unwrap();
    assert_eq!(ids(&pulled.packets), ids(&all));
    assert!(pulled.bytes >= 2_500 * 512);
    assert!(pulled.packets.is_sorted_by_key(|packet| packet.id()));
    assert_eq!(client.mailbox().stat(&ADDRESS).await.unwrap().packets, 2_500);
    // Each packet crossed the network once, though eight replicas hold it, and was checked once. Copies on
    // their way to slower replicas may differ by a digest for a moment.
    assert_eq!(pulled.bytes, 2_500 * 512);
    assert_eq!(client.traffic().signatures_checked, 2_500);

    // From the position on only news comes.
    let mut position = pulled.position;
    assert_eq!(position.0.len(), 8);
    let news = packets(2, 0..20);
    client.mailbox().deposit(&at(ADDRESS, &news)).await.unwrap();
    let mut found = Vec::new();
    for _ in 0..50 {
        let next = client.mailbox().pull(&ADDRESS, &position).await.unwrap();
        assert!(next.bytes <= 20 * 512, "news cross once");
        found.extend(next.packets);
        position = next.position;
        if found.len() >= 20 {
            break;
        }
    }
    let mut found = ids(&found);
    found.dedup();
    assert_eq!(found, ids(&news));

    // What is on its way to the slower replicas arrives everywhere.
    for node in &nodes {
        assert_eq!(node.mailbox().replicas(&ADDRESS).await.unwrap().len(), 8);
    }
    let empty = client.mailbox().pull(&[1; 32], &Position::default()).await.unwrap();
    assert!(empty.packets.is_empty());
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_chooses_the_same_replicas_as_the_definition() {
    let nodes = swarm(10).await;
    let keys: Vec<NodeKey> = nodes.iter().map(NetHandle::key).collect();
    for byte in 0..20 {
        let address = [byte; 32];
        let expected = closest(&address, keys.iter().copied(), 8);
        assert_eq!(expected.len(), 8);
        for node in &nodes {
            assert_eq!(node.mailbox().replicas(&address).await.unwrap(), expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_midway_keeps_nobody_from_answers() {
    let mut nodes = swarm(5).await;
    let client = client(nodes[0].dial_addresses()).await;
    let all = packets(1, 0..300);
    client.mailbox().deposit(&at(ADDRESS, &all[..100])).await.unwrap();
    // Dropped without a goodbye, as by a crash.
    drop(nodes.remove(2));
    let started = Instant::now();
    let pulled = client.mailbox().pull(&ADDRESS, &Position::default()).await.unwrap();
    assert_eq!(ids(&pulled.packets), ids(&all[..100]));
    let receipts = client.mailbox().deposit(&at(ADDRESS, &all[100..])).await.unwrap();
    assert!(receipts.iter().all(|receipt| *receipt == Receipt::Stored));
    let pulled = client.mailbox().pull(&ADDRESS, &pulled.position).await.unwrap();
    assert!(ids(&all[100..]).iter().all(|id| ids(&pulled.packets).contains(id)));
    println!("pull, deposit and pull across a dead replica: {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(8));

    // Once it is known to be silent, nobody waits for it.
    wait_for(|| client.peers().iter().any(|peer| peer.silent), "the silent node to be noticed").await;
    let started = Instant::now();
    client.mailbox().pull(&ADDRESS, &pulled.position).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_comes_back_gets_what_it_missed() {
    let mut nodes = swarm(4).await;
    let gone = nodes.remove(3);
    let (key, seeds) = (gone.key(), nodes[0].dial_addresses());
    gone.shutdown().await;
    let all = packets(1, 0..50);
    let receipts = nodes[0].mailbox().deposit(&at(ADDRESS, &all)).await.unwrap();
    assert!(receipts.iter().all(|receipt| *receipt == Receipt::Stored));
    let back = node(4, seeds).await;
    assert_eq!(back.key(), key);
    // Its own store alone answers for it: the hand-off has to reach it.
    for _ in 0..400 {
        if back.traffic().packets_in >= 50 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the hand-off did not arrive: {:?}", back.traffic());
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_refuse_what_admission_refuses_and_say_why() {
    let identity = identity(1);
    let mut storage = storage(&identity);
    storage.admission = std::sync::Arc::new(|_, packet, now_ms| {
        assert!(now_ms > 1_600_000_000_000, "Unix milliseconds");
        if packet.sequence() % 2 == 0 { Ok(()) } else { Err("odd".into()) }
    });
    let node = start(Config::node(identity, storage, vec![])).await.unwrap();
    let client = client(node.dial_addresses()).await;
    let receipts = client.mailbox().deposit(&at(ADDRESS, &packets(1, 0..4))).await.unwrap();
    let odd = Receipt::Rejected("odd".into());
    assert_eq!(receipts, [Receipt::Stored, odd.clone(), Receipt::Stored, odd]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_is_wrong() {
    let node = node(1, vec![]).await;
    let taken = node.listen_addresses()[0].clone();
    let identity = identity(2);
    let storage = storage(&identity);
    let config = Config { listen: vec![taken.clone()], ..Config::node(identity, storage, vec![]) };
    match start(config).await {
        Err(NetError::Listen { address, reason }) => {
            assert_eq!(address, taken);
            assert!(reason.contains("in use"), "{reason}");
        }
        other => panic!("a port in use: {:?}", other.map(|_| ()).map_err(|e| e.to_string())),
    }
    node.shutdown().await;

    let alone = start(Config::client(support::identity(3), vec![taken])).await.unwrap();
    assert!(!alone.settled(Duration::from_secs(5)).await);
    let error = alone.mailbox().pull(&ADDRESS, &Position::default()).await.unwrap_err();
    assert!(matches!(error, MailboxError::Unreachable { .. }));
    assert!(error.to_string().contains("--peer"), "{error}");
}

/// Sends bytes as they are under the protocol's name, and reads nothing but bytes.
#[derive(Clone)]
struct RawCodec {
    /// Keep the stream open without sending all.
    silent: bool,
}

impl request_response::Codec for RawCodec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: futures::AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::new();
        io.take(1 << 20).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: futures::AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::new();
        io.take(1 << 20).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: futures::AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await?;
        io.flush().await?;
        if self.silent {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        Ok(())
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: futures::AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }
}

fn raw_peer(silent: bool) -> Swarm<request_response::Behaviour<RawCodec>> {
    let protocol = StreamProtocol::new("/qis/mailbox/1");
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_quic()
        .with_behaviour(|_| {
            request_response::Behaviour::with_codec(
                RawCodec { silent },
                [(protocol, ProtocolSupport::Full)],
                request_response::Config::default(),
            )
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(30)))
        .build()
}

/// Sends all of it at once; gives back what the node said to each, or nothing where it hung up.
async fn attack(
    node: &NetHandle,
    requests: Vec<Vec<u8>>,
    silent: bool,
    wait: Duration,
) -> Vec<Option<Vec<u8>>> {
    let mut peer = raw_peer(silent);
    let target: PeerId = node.peer_id();
    let count = requests.len();
    for request in requests {
        let addresses = node.listen_addresses().to_vec();
        peer.behaviour_mut().send_request_with_addresses(&target, request, addresses);
    }
    let mut answers = Vec::new();
    let collect = async {
        while answers.len() < count {
            if let SwarmEvent::Behaviour(event) = peer.select_next_some().await {
                match event {
                    request_response::Event::Message {
                        message: request_response::Message::Response { response, .. },
                        ..
                    } => answers.push(Some(response)),
                    request_response::Event::OutboundFailure { .. } => answers.push(None),
                    _ => {}
                }
            }
        }
    };
    let _ = tokio::time::timeout(wait, collect).await;
    answers
}

async fn assert_alive(client: &NetHandle, author: u8) {
    let fresh = packets(author, 0..10);
    let started = Instant::now();
    let receipts = client.mailbox().deposit(&at(ADDRESS, &fresh)).await.unwrap();
    assert!(receipts.iter().all(|receipt| *receipt == Receipt::Stored));
    client.mailbox().pull(&ADDRESS, &Position::default()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

fn frame(kind: u8, announced: u32, body: &[u8]) -> Vec<u8> {
    [&[1, kind, 0, 0], &announced.to_le_bytes()[..], body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_oversized_frames_and_silence_neither_crash_nor_stall_a_node() {
    let node = node(1, vec![]).await;
    let client = client(node.dial_addresses()).await;
    assert_alive(&client, 1).await;
    let second = Duration::from_secs(3);

    let noise = blake3::Hasher::new().finalize_xof();
    let garbage: Vec<Vec<u8>> = (0..6)
        .map(|n| {
            let mut bytes = vec![0; 1 << (2 * n)];
            let mut stream = noise.clone();
            stream.set_position(n * 10_000);
            stream.fill(&mut bytes);
            bytes
        })
        .collect();
    attack(&node, garbage, false, second).await;
    assert_alive(&client, 2).await;

    let too_large = attack(&node, vec![frame(2, u32::MAX, &[0; 100])], false, second).await;
    let answer = too_large[0].as_ref().expect("an answer to an oversized frame");
    assert_eq!((answer[1], answer[8]), (192, 5), "error, too large");
    assert_alive(&client, 3).await;

    // Well-formed frames around things that are no packets: each is refused by itself.
    let mut deposit = vec![0xAB; 544];
    deposit.extend(ADDRESS);
    let mut forged = *packets(4, 0..1)[0].as_bytes();
    forged[511] ^= 1;
    deposit.extend(forged);
    let answers = attack(&node, vec![frame(2, 2 * 544, &deposit)], false, second).await;
    let answer = answers[0].as_ref().expect("an answer to bad packets");
    assert_eq!(answer[1], 130);
    assert_eq!(answer[8 + 72 + 2..][..2], [2, 2], "both rejected");
    let text = String::from_utf8_lossy(answer);
    assert!(text.contains("magic") && text.contains("signature"), "{text}");
    assert_alive(&client, 5).await;

    // Half a header, half a body and nothing at all, on as many streams as a connection may have.
    let mut silence = vec![vec![], vec![1, 2], frame(2, 544, &[1; 100])];
    silence.extend(vec![vec![]; 100]);
    tokio::join!(
        async {
            attack(&node, silence, true, second).await;
        },
        async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_alive(&client, 6).await;
        }
    );
    assert_alive(&client, 7).await;
    assert!(node.traffic().requests_refused >= 6, "{:?}", node.traffic());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_among_the_replicas_cannot_pass_a_forged_packet() {
    let mut forged = *packets(1, 0..1)[0].as_bytes();
    forged[511] ^= 1;
    // Cursor (replica 32, epoch, sequence), no more, one packet.
    let mut page = vec![0; 32];
    page.extend(1u64.to_le_bytes());
    page.extend(1u64.to_le_bytes());
    page.push(0);
    page.extend(forged);

    let honest = node(2, vec![]).await;
    let mut raw = raw_peer(false);
    raw.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
    let liar = *raw.local_peer_id();
    let liar_key = qis::net::node_key(&liar);
    page[..32].copy_from_slice(&liar_key.0);
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    let task = tokio::spawn(async move {
        loop {
            match raw.select_next_some().await {
                SwarmEvent::NewListenAddr { address, .. } => {
                    if let Some(tell) = tell.take() {
                        tell.send(address).unwrap();
                    }
                }
                SwarmEvent::Behaviour(request_response::Event::Message {
                    message: request_response::Message::Request { request, channel, .. },
                    ..
                }) => {
                    let answer = match request[1] {
                        // A member that knows nobody.
                        1 => frame(129, 20, &[&[1][..], &[0; 16], &[0, 0, 0]].concat()),
                        _ => frame(131, page.len() as u32, &page),
                    };
                    raw.behaviour_mut().send_response(channel, answer).unwrap();
                }
                _ => {}
            }
        }
    });
    let good = packets(1, 0..1);
    let alone = client(honest.dial_addresses()).await;
    alone.mailbox().deposit(&at(ADDRESS, &good)).await.unwrap();

    let mut seeds = honest.dial_addresses();
    seeds.push(told.await.unwrap());
    let reader = client(seeds).await;
    assert_eq!(reader.peers().len(), 2);
    let pulled = reader.mailbox().pull(&ADDRESS, &Position::default()).await.unwrap();
    assert_eq!(pulled.packets, good, "the honest copy, bit for bit");
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_packets_over_loopback() {
    let nodes = swarm(3).await;
    let all = packets(1, 0..10_000);
    let depositor = client(nodes[0].dial_addresses()).await;
    let started = Instant::now();
    depositor.mailbox().deposit(&at(ADDRESS, &all)).await.unwrap();
    println!("10,000 packets deposited with 3 replicas in memory: {:?}", started.elapsed());
    tokio::time::sleep(Duration::from_millis(300)).await;
    for node in &nodes {
        let reader = client(node.dial_addresses()).await;
        let started = Instant::now();
        let pulled = reader.mailbox().pull(&ADDRESS, &Position::default()).await.unwrap();
        let elapsed = started.elapsed();
        assert_eq!(pulled.packets.len(), 10_000);
        assert_eq!(reader.traffic().signatures_checked, 10_000);
        println!(
            "10,000 packets pulled from 3 replicas, {} bytes, every signature checked: {elapsed:?}",
            pulled.bytes
        );
    }
}
