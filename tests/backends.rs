//! One loop over every backend of a mailbox: the same answers, and a synthesis of the same 512 bytes.

mod support;

use object_store::memory::InMemory;
use qis::address::{Address, Addresser};
use qis::distill::{Case, Distiller};
use qis::domain::{
    Addressing, Direction, Feature, FeatureKind, Missing, Outcome, OutcomeKind, Outside, Schema, View,
};
use qis::engine::{Backend, Choice, Engine};
use qis::limits::{OUTCOMES_MAX, SLOTS};
use qis::mailbox::{
    Admission, LocalMailbox, Mailbox, MailboxError, ObjectMailbox, Position, Pulled, Receipt,
};
use qis::merge::Answer;
use qis::net::{NetHandle, NetMailbox};
use qis::packet::{AuthorKey, Draft, Kind, Verified};
use qis::run::Learner;
use qis::store::{DiskStore, MemoryStore, Stat};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, LazyLock, RwLock};
use std::time::Instant;
use support::{client, swarm};

const HOUR_MS: u64 = 3_600_000;
/// The replicas of the swarm go by the real time. One for all runs: it stands in the packets.
static NOW_MS: LazyLock<u64> =
    LazyLock::new(|| std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64);

fn schema() -> Schema {
    let outcome = Outcome {
        name: "failed".into(),
        kind: OutcomeKind::Binary,
        unit: String::new(),
        low: 0.0,
        high: 1.0,
        direction: Direction::Lower,
        outside: Outside::Refuse,
    };
    let feature = Feature {
        name: "x".into(),
        kind: FeatureKind::Numeric { centre: 0.0, scale: 1.0, thermometer: vec![] },
        unit: String::new(),
        weight: 1.0,
        missing: Missing::Slot,
    };
    Schema {
        name: "pumps".into(),
        features: vec![feature],
        exact: vec![],
        actions: vec!["wait".into(), "repair".into()],
        outcomes: vec![outcome],
        time_step_ms: 1,
        levels: 32,
        cases_min: 1,
        curator: [0; 32],
    }
}

/// Packets lie in two mailboxes each, questions read several.
fn view() -> View {
    let addressing = Addressing { tables: 2, bits: 2, probes: 2 };
    View { addressing, ..View::plain("near", &schema(), 150.0, 2.0) }
}

fn admission() -> Admission {
    Admission::new([Arc::new((schema(), view()))])
}

/// A case that `number` alone determines, with a record of its own.
fn case(number: u64) -> Case {
    let mut bytes = [0u8; 136];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    let mut values = [None; OUTCOMES_MAX];
    values[0] = Some(u16::from(bytes[0] % 2) * 65_535);
    Case {
        row: number,
        signal: std::array::from_fn(|slot| bytes[8 + slot % 128] as i8 / 4),
        scope: [0; 32],
        values,
        truth: vec![],
        action: Some(u16::from(bytes[1] % 2)),
        site: None,
        record: number.to_string(),
        observed_at: *NOW_MS - 5,
    }
}

/// Any backend, and the way from one to the next.
#[derive(Clone)]
enum Any {
    Memory(LocalMailbox<MemoryStore>),
    Disk(LocalMailbox<DiskStore>),
    Swarm(NetMailbox),
    Objects(ObjectMailbox),
}

#[derive(Clone)]
struct Switch(Arc<RwLock<Any>>);

impl Switch {
    fn to(any: Any) -> Switch {
        Switch(Arc::new(RwLock::new(any)))
    }
    fn now(&self) -> Any {
        self.0.read().unwrap().clone()
    }
}

impl Mailbox for Switch {
    async fn deposit(&self, batch: &[(Address, Verified)]) -> Result<Vec<Receipt>, MailboxError> {
        match self.now() {
            Any::Memory(mailbox) => mailbox.deposit(batch).await,
            Any::Disk(mailbox) => mailbox.deposit(batch).await,
            Any::Swarm(mailbox) => mailbox.deposit(batch).await,
            Any::Objects(mailbox) => mailbox.deposit(batch).await,
        }
    }

    async fn pull(&self, address: &Address, from: &Position) -> Result<Pulled, MailboxError> {
        match self.now() {
            Any::Memory(mailbox) => mailbox.pull(address, from).await,
            Any::Disk(mailbox) => mailbox.pull(address, from).await,
            Any::Swarm(mailbox) => mailbox.pull(address, from).await,
            Any::Objects(mailbox) => mailbox.pull(address, from).await,
        }
    }

    async fn stat(&self, address: &Address) -> Result<Stat, MailboxError> {
        match self.now() {
            Any::Memory(mailbox) => mailbox.stat(address).await,
            Any::Disk(mailbox) => mailbox.stat(address).await,
            Any::Swarm(mailbox) => mailbox.stat(address).await,
            Any::Objects(mailbox) => mailbox.stat(address).await,
        }
    }
}

fn memory() -> Any {
    let store = Arc::new(MemoryStore::new([5; 32]));
    Any::Memory(LocalMailbox::new(store, admission(), || *NOW_MS))
}

fn disk(folder: &std::path::Path) -> Any {
    let (store, _) = DiskStore::open(folder).unwrap();
    Any::Disk(LocalMailbox::new(Arc::new(store), admission(), || *NOW_MS))
}

fn shared(folder: &std::path::Path) -> Any {
    let url = format!("file://{}", folder.display());
    Any::Objects(ObjectMailbox::open(&url, admission(), || *NOW_MS).unwrap())
}

fn objects() -> Any {
    Any::Objects(ObjectMailbox::new(Arc::new(InMemory::new()), admission(), || *NOW_MS))
}

fn learner(mailbox: &Switch, author: u8) -> Learner<Switch> {
    let engine = Engine::new(&Choice { backend: Backend::Cpu, adapter: None, threads: Some(1) }).unwrap();
    let key = AuthorKey::from_seed([author; 32]);
    Learner::new(mailbox.clone(), Arc::new(schema()), Arc::new(view()), Arc::new(engine), key, 0)
}

fn addresses(packet: &Verified) -> Vec<Address> {
    Addresser::new(&view()).deposit(packet.scope(), packet.signal())
}

/// What a run comes to.
#[derive(Debug, PartialEq)]
struct End {
    answers: Vec<Vec<Answer>>,
    synthesis: Vec<u8>,
}

fn stored(receipts: &[Receipt]) -> bool {
    receipts.iter().all(|receipt| *receipt == Receipt::Stored)
}

/// Distil, deposit from several authors, supersede, retract, expire, ask, pull by position, publish,
/// ask again. Where there is a second backend, everything is carried over in the middle.
async fn run(first: Any, second: Option<Any>) -> End {
    let mailbox = Switch::to(first);
    let mut authors: Vec<Learner<Switch>> = (1..=4).map(|author| learner(&mailbox, author)).collect();
    let mut all: Vec<Verified> = Vec::new();
    for (author, learner) in authors.iter_mut().enumerate() {
        let first = 100 * author as u64;
        let groups: Vec<Vec<Case>> = (first..first + 12).map(|number| vec![case(number)]).collect();
        all.extend(learner.observe(&groups).await.unwrap());
    }
    let again = authors[1].deposit(&all[12..14]).await.unwrap();
    assert!(again.iter().all(|receipt| *receipt == Receipt::Duplicate), "{again:?}");

    // A newer version of the first author's fourth record, one packet that the second takes back.
    let newer = Case { values: std::array::from_fn(|i| (i == 0).then_some(40_000)), ..case(3) };
    all.extend(authors[0].observe(&[vec![newer]]).await.unwrap());
    let mut distiller = Distiller::new(AuthorKey::from_seed([2; 32]), Arc::new(schema()), 50);
    let retraction = distiller.retract(&all[17]).unwrap();
    assert!(stored(&authors[1].deposit(&[retraction]).await.unwrap()));
    all.push(retraction);

    // One packet of the third author ends before the last question, another has ended already.
    let sign = |number: u64, expires_at: u64| {
        let case = case(number);
        let mut values = [None; OUTCOMES_MAX];
        values[0] = case.values[0].map(|value| (value, 0));
        let reference = [number as u8; 32];
        let (observed_at, signal, action, cases) = (case.observed_at, case.signal, case.action, 1);
        let draft = Draft::new(Kind::Observed, schema().id(), 1);
        let draft = Draft { values, reference, observed_at, expires_at, signal, action, cases, ..draft };
        AuthorKey::from_seed([3; 32]).sign(&Draft { sequence: 70, ..draft }).unwrap()
    };
    let (ends, ended) = (sign(90, *NOW_MS + HOUR_MS), sign(91, *NOW_MS - 1));
    assert!(stored(&authors[2].deposit(&[ends]).await.unwrap()));
    let refused = authors[2].deposit(&[ended]).await.unwrap();
    assert!(refused.iter().all(|receipt| matches!(receipt, Receipt::Rejected(_))), "{refused:?}");
    all.push(ends);

    let questions: Vec<Case> = (0..6).map(|number| case(1_000 + number)).collect();
    let mut reader = learner(&mailbox, 9);
    let mut answers = vec![reader.ask(&questions, *NOW_MS).await.unwrap()];
    let pulled = reader.moved().pulled;
    assert_eq!(reader.ask(&questions, *NOW_MS).await.unwrap(), answers[0]);
    assert_eq!(reader.moved().pulled, pulled, "nothing comes twice");

    if let Some(second) = second {
        let from = mailbox.now();
        *mailbox.0.write().unwrap() = second;
        let everywhere: BTreeSet<Address> = all.iter().flat_map(addresses).collect();
        for address in everywhere {
            let pulled = Switch::to(from.clone()).pull(&address, &Position::default()).await.unwrap();
            let batch: Vec<_> = pulled.packets.iter().map(|packet| (address, *packet)).collect();
            mailbox.deposit(&batch).await.unwrap();
        }
        assert_eq!(reader.ask(&questions, *NOW_MS).await.unwrap(), answers[0]);
        assert_eq!(reader.moved().pulled, pulled, "what the first backend gave is known");
    }

    // News for a reader that stands somewhere.
    let before = reader.moved().pulled;
    let groups: Vec<Vec<Case>> = (400..410).map(|number| vec![case(number)]).collect();
    let news = authors[3].observe(&groups).await.unwrap();
    answers.push(reader.ask(&questions, *NOW_MS).await.unwrap());
    let asked: BTreeSet<Address> = questions.iter().flat_map(|case| reader.addresses(case)).collect();
    let lie = news.iter().flat_map(addresses).filter(|address| asked.contains(address)).count();
    assert_eq!(reader.moved().pulled - before, lie as u64, "what is new, and nothing else");

    // The public answer, for a time at which one packet has expired.
    let later_ms = *NOW_MS + 2 * HOUR_MS;
    reader.number_from(7);
    let receipts = reader.publish(&questions[0], Some(1), later_ms).await.unwrap();
    assert!(stored(&receipts.expect("something is known of the action")));
    answers.push(reader.ask(&questions, later_ms).await.unwrap());
    let mut fresh = learner(&mailbox, 8);
    answers.push(fresh.ask(&questions, later_ms).await.unwrap());
    assert_eq!(answers[2], answers[3], "who comes later reads the same");
    assert_ne!(answers[0], answers[2]);

    let mut syntheses = BTreeMap::new();
    for address in fresh.addresses(&questions[0]) {
        for packet in mailbox.pull(&address, &Position::default()).await.unwrap().packets {
            if packet.kind() == Kind::Synthesis {
                assert!(mailbox.stat(&address).await.unwrap().syntheses == 1);
                syntheses.insert(packet.id(), packet.as_bytes().to_vec());
            }
        }
    }
    assert_eq!(syntheses.len(), 1);
    End { answers, synthesis: syntheses.into_values().next().unwrap() }
}

async fn reference() -> End {
    let end = run(memory(), None).await;
    assert_eq!(end.synthesis.len(), 512);
    end
}

async fn three_nodes() -> (Vec<NetHandle>, NetHandle) {
    let nodes = swarm(3).await;
    let client = client(nodes[0].dial_addresses()).await;
    (nodes, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_local_disk_end_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let end = run(disk(folder.path()), None).await;
    assert_eq!(end, reference().await);
    assert_eq!(end, run(memory(), None).await, "a run can be repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_ends_with_the_same_bits() {
    let (_nodes, client) = three_nodes().await;
    assert_eq!(run(Any::Swarm(client.mailbox()), None).await, reference().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_folder_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(shared(folder.path()), None).await, reference().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_in_memory_end_with_the_same_bits() {
    assert_eq!(run(objects(), None).await, reference().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_may_change_in_the_middle_of_a_run() {
    let expected = reference().await;
    let (folder, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_nodes, client) = three_nodes().await;
    let swarm = || Any::Swarm(client.mailbox());
    assert_eq!(run(shared(folder.path()), Some(swarm())).await, expected, "folder to swarm");
    assert_eq!(run(memory(), Some(objects())).await, expected, "memory to objects");
    assert_eq!(run(objects(), Some(disk(store.path()))).await, expected, "objects to disk");
    let other = tempfile::tempdir().unwrap();
    let (_nodes, client) = three_nodes().await;
    let swarm = Any::Swarm(client.mailbox());
    assert_eq!(run(swarm, Some(shared(other.path()))).await, expected, "swarm to folder");
}

/// `QIS_S3_URL=s3://BUCKET/PREFIX` with `AWS_*` names a server; tests/s3.sh starts one.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_ends_with_the_same_bits() {
    let Ok(url) = std::env::var("QIS_S3_URL") else {
        // Straight to the terminal: the test harness would swallow `eprintln!`.
        let _ = writeln!(std::io::stderr(), "BUCKET TEST SKIPPED: QIS_S3_URL names no bucket");
        return;
    };
    // Every run a prefix of its own: mailboxes are never emptied.
    let url = format!("{}/{}", url.trim_end_matches('/'), *NOW_MS);
    let open = |part: &str| {
        let url = format!("{url}/{part}");
        ObjectMailbox::open(&url, admission(), || *NOW_MS).unwrap()
    };
    let expected = reference().await;
    let started = Instant::now();
    assert_eq!(run(Any::Objects(open("loop")), None).await, expected);
    let whole = started.elapsed();
    assert_eq!(run(Any::Objects(open("from")), Some(memory())).await, expected);
    assert_eq!(run(memory(), Some(Any::Objects(open("to")))).await, expected);

    let mailbox = open("speed");
    let all = &LazyLock::force(&MANY)[..];
    let started = Instant::now();
    for chunk in all.chunks(1_000) {
        let batch = support::at(addresses(&chunk[0])[0], chunk);
        assert!(stored(&mailbox.deposit(&batch).await.unwrap()));
    }
    let deposited = started.elapsed();
    let started = Instant::now();
    let pulled = mailbox.pull(&addresses(&all[0])[0], &Position::default()).await.unwrap();
    let _ = writeln!(
        std::io::stderr(),
        "bucket: the loop in {whole:?}; {} packets deposited in {deposited:?}, pulled and checked in {:?}",
        pulled.packets.len(),
        started.elapsed()
    );
    assert_eq!(support::ids(&pulled.packets), support::ids(all));
}

/// Packets of one author at one situation.
static MANY: LazyLock<Vec<Verified>> = LazyLock::new(|| {
    let key = AuthorKey::from_seed([6; 32]);
    let one = |sequence: u32| {
        let mut draft = Draft::new(Kind::Observed, schema().id(), 1);
        draft.sequence = sequence;
        draft.reference[..4].copy_from_slice(&sequence.to_le_bytes());
        draft.values[0] = Some((1, 0));
        draft.signal = [1; SLOTS];
        key.sign(&draft).unwrap()
    };
    (0..10_000).map(one).collect()
});
