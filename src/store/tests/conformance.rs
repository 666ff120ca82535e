//! Disk = memory = model, over random histories.

use super::model::Model;
use super::{many, observed, retraction, sign, synthesis};
use crate::address::Address;
use crate::packet::{Id, Verified};
use crate::store::{Caps, Cursor, Deposited, Digest, DiskStore, MemoryStore, PacketStore, Range, StoreError};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Packets of [`universe`] by number, each into one of two mailboxes.
    Deposit(Vec<(usize, u8)>),
    Wait(u64),
    Sweep,
    /// Reads one mailbox from where the last pull ended, or from its beginning.
    Pull {
        mailbox: u8,
        max: usize,
        again: bool,
    },
    Reopen,
}

/// A small world, so that duplicates, versions and retractions meet: two authors, two pieces of
/// evidence in three versions (one pair of them tied), some expiring, and retractions of every packet
/// by both authors.
fn universe() -> Vec<Verified> {
    let mut packets = Vec::new();
    for author in 0..2 {
        for evidence in 0..2 {
            for (sequence, note, expires_at) in [(1, "", 0), (2, "a", 60), (2, "b", 0), (3, "", 120)] {
                let mut draft = observed(author, evidence, sequence, note);
                draft.expires_at = expires_at;
                packets.push(sign(author, &draft));
            }
        }
        packets.push(sign(author, &synthesis(4)));
        let mut draft = synthesis(5);
        draft.expires_at = 90;
        packets.push(sign(author, &draft));
    }
    for number in 0..packets.len() {
        for author in 0..2 {
            let mut draft = retraction(packets[number].id(), 9);
            // An expiry in a retraction means nothing.
            draft.expires_at = 30;
            packets.push(sign(author, &draft));
        }
    }
    let first = packets.iter().position(|p| p.cases() == 0 && p.mask() == 0).expect("a retraction");
    let twice = retraction(packets[first].id(), 10);
    packets.push(sign(0, &twice));
    packets
}

fn address(number: u8) -> Address {
    [number; 32]
}

fn step(size: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0..size, 0u8..2), 1..8).prop_map(Step::Deposit),
        1 => (1u64..40).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
        4 => (0u8..2, 0usize..4, any::<bool>())
            .prop_map(|(mailbox, max, again)| Step::Pull { mailbox, max, again }),
        1 => Just(Step::Reopen),
    ]
}

/// One page, its cursor checked against the model: no packet is skipped, none repeats.
fn pull(
    store: &dyn PacketStore,
    model: &Model,
    now: u64,
    mailbox: u8,
    cursor: Option<Cursor>,
    max: usize,
) -> Cursor {
    store.set_now(now);
    let page = store.pull(&address(mailbox), cursor, max).expect("a page");
    let after = cursor.map_or(0, |cursor| cursor.sequence);
    let mut expected = model.live(now, &address(mailbox));
    expected.retain(|(sequence, _)| *sequence > after);
    assert_eq!(page.more, expected.len() > max);
    expected.truncate(max);
    assert_eq!(page.cursor.sequence, expected.last().map_or(after, |(sequence, _)| *sequence));
    let expected: Vec<_> = expected.into_iter().map(|(_, packet)| packet).collect();
    assert_eq!(page.packets, expected);
    let digest = store.digest(&address(mailbox)).expect("a digest");
    assert_eq!(digest, model.ids(now, &address(mailbox)).iter().collect());
    page.cursor
}

fn compare_all(store: &dyn PacketStore, model: &Model, now: u64) {
    store.set_now(now);
    assert_eq!(store.addresses().expect("addresses"), model.addresses());
    for number in 0..3 {
        let address = address(number);
        assert_eq!(store.stat(&address).expect("stat"), model.stat(&address));
        let live = model.live(now, &address);
        let mut ids = model.ids(now, &address);
        assert_eq!(store.digest(&address).expect("a digest"), ids.iter().collect());
        for prefix in
            [&[][..], &[0], &[0xFF; 31]].into_iter().chain(ids.iter().flat_map(|id| [&id[..1], &id[..31]]))
        {
            let under = ids.iter().filter(|id| id.starts_with(prefix)).copied().collect();
            assert_eq!(store.range(&address, prefix).expect("a range"), Range::Ids(under));
        }
        let mut got = store.ids(&address, None, 3).expect("ids");
        while let more = store.ids(&address, got.last(), 3).expect("ids")
            && !more.is_empty()
        {
            got.extend(more);
        }
        assert_eq!(got, ids);
        ids.push([0xEE; 32]);
        let mut fetched = store.fetch(&address, &ids).expect("packets");
        assert_eq!(fetched.len(), live.len());
        fetched.retain(|packet| !live.iter().any(|(_, p)| p == packet));
        assert!(fetched.is_empty());
    }
    let mut digests = store.digests(None, 1).expect("digests");
    while let more = store.digests(digests.last().map(|(address, _)| address), 1).expect("digests")
        && !more.is_empty()
    {
        digests.extend(more);
    }
    assert_eq!(digests, model.digests(now));
}

fn caps() -> impl Strategy<Value = Caps> {
    let caps = |(mailbox_packets, author_packets)| Caps { mailbox_packets, author_packets };
    prop::sample::select(vec![(0, 0), (0, 0), (4, 0), (0, 2), (5, 3)]).prop_map(caps)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn disk_memory_and_model_agree(
        caps in caps(),
        steps in prop::collection::vec(step(universe().len()), 1..30),
    ) {
        let packets = universe();
        let folder = tempfile::tempdir().expect("a folder");
        let (disk, report) = DiskStore::open_with_caps(folder.path(), caps).expect("a store");
        prop_assert!(report.created && report.loss.is_none());
        let mut disk = Some(disk);
        let memory = MemoryStore::with_caps([1; 32], caps);
        let mut model = Model::new(caps);
        let mut now = 1;
        let mut cursors = [[None; 2]; 2];
        for step in steps {
            match step {
                Step::Deposit(batch) => {
                    let batch: Vec<_> =
                        batch.iter().map(|&(n, mailbox)| (address(mailbox), packets[n])).collect();
                    let expected: Vec<_> =
                        batch.iter().map(|&(a, packet)| model.deposit(now, a, packet)).collect();
                    let disk = disk.as_ref().expect("open");
                    prop_assert_eq!(&memory.deposit(now, &batch).expect("memory"), &expected);
                    prop_assert_eq!(&disk.deposit(now, &batch).expect("disk"), &expected);
                }
                Step::Wait(time) => now += time,
                Step::Sweep => {
                    let expected = model.sweep(now);
                    prop_assert_eq!(memory.sweep(now).expect("memory"), expected);
                    prop_assert_eq!(disk.as_ref().expect("open").sweep(now).expect("disk"), expected);
                }
                Step::Pull { mailbox, max, again } => {
                    let stores: [&dyn PacketStore; 2] = [disk.as_ref().expect("open"), &memory];
                    for (store, cursors) in stores.into_iter().zip(&mut cursors) {
                        let cursor = &mut cursors[usize::from(mailbox)];
                        let from = if again { None } else { *cursor };
                        *cursor = Some(pull(store, &model, now, mailbox, from, max));
                    }
                }
                Step::Reopen => {
                    drop(disk.take());
                    let (store, report) =
                        DiskStore::open_with_caps(folder.path(), caps).expect("the store again");
                    prop_assert!(report.loss.is_none(), "{}", report);
                    disk = Some(store);
                }
            }
        }
        compare_all(disk.as_ref().expect("open"), &model, now);
        compare_all(&memory, &model, now);
    }
}

#[test]
fn the_order_of_versions_and_of_a_retraction_does_not_matter() {
    let [one, two] = [1, 2].map(|sequence| sign(0, &observed(0, 0, sequence, "")));
    let back = sign(0, &retraction(two.id(), 3));
    let foreign = sign(1, &retraction(one.id(), 3));
    let orders = [[one, two, back], [one, back, two], [two, one, back], [two, back, one]];
    for order in orders.into_iter().chain([[back, one, two], [back, two, one]]) {
        let store = MemoryStore::new([0; 32]);
        for packet in order {
            store.deposit(0, &[(address(0), packet)]).expect("a deposit");
        }
        let page = store.pull(&address(0), None, 10).expect("a page");
        assert_eq!(page.packets, [back], "the newer version is retracted and revives no older one");
        let again = store.deposit(0, &[(address(0), one), (address(0), two)]).expect("a deposit");
        assert_eq!(again, [Deposited::Obsolete; 2]);
    }
    let store = MemoryStore::new([0; 32]);
    store.deposit(0, &[(address(0), foreign), (address(0), one)]).expect("a deposit");
    assert_eq!(store.stat(&address(0)).expect("stat").observed, 1, "another author's retraction");
}

#[test]
fn a_cursor_of_another_replica_or_of_the_future_expires() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskStore::open(folder.path()).expect("a store").0;
    let memory = MemoryStore::new([1; 32]);
    for store in [&disk as &dyn PacketStore, &memory] {
        store.deposit(0, &[(address(0), sign(0, &observed(0, 0, 1, "")))]).expect("a deposit");
        let start = store.start();
        assert!(store.pull(&address(0), Some(start), 1).is_ok());
        let foreign = Cursor { replica: [0xAB; 32], ..start };
        let old = Cursor { epoch: start.epoch + 1, ..start };
        let future = Cursor { sequence: 2, ..start };
        for cursor in [foreign, old, future] {
            let error = store.pull(&address(0), Some(cursor), 1).expect_err("an expired cursor");
            assert!(matches!(error, StoreError::CursorExpired { .. }), "{error}");
        }
    }
}

#[test]
fn a_full_mailbox_takes_only_what_takes_a_place() {
    let caps = Caps { mailbox_packets: 3, author_packets: 2 };
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskStore::open_with_caps(folder.path(), caps).expect("a store").0;
    let memory = MemoryStore::with_caps([1; 32], caps);
    for store in [&disk as &dyn PacketStore, &memory] {
        let deposit = |packet: &Verified| store.deposit(0, &[(address(0), *packet)]).expect("a deposit")[0];
        let version = |author, evidence, sequence| sign(author, &observed(author, evidence, sequence, ""));
        let mut expiring = observed(1, 0, 1, "");
        expiring.expires_at = 50;
        assert_eq!(deposit(&version(0, 0, 1)), Deposited::Stored);
        assert_eq!(deposit(&version(0, 1, 1)), Deposited::Stored);
        assert_eq!(deposit(&version(0, 2, 2)), Deposited::OverQuota, "a third packet of one author");
        assert_eq!(deposit(&version(0, 0, 1)), Deposited::Duplicate);
        assert_eq!(deposit(&version(0, 0, 2)), Deposited::Stored, "a newer version");
        assert_eq!(deposit(&sign(1, &expiring)), Deposited::Stored);
        assert_eq!(deposit(&sign(1, &synthesis(1))), Deposited::OverQuota, "a fourth packet");
        let back = sign(0, &retraction(version(0, 1, 1).id(), 9));
        assert_eq!(deposit(&back), Deposited::Stored, "a retraction takes its packet's place");
        let other = sign(1, &retraction([9; 32], 9));
        assert_eq!(deposit(&other), Deposited::OverQuota, "a retraction of nothing that is here");
        store.sweep(60).expect("a sweep");
        assert_eq!(deposit(&sign(1, &synthesis(1))), Deposited::Stored, "there is room again");
        store.deposit(60, &[(address(1), other)]).expect("a deposit");
        assert_eq!(store.stat(&address(1)).expect("stat").packets, 1, "each mailbox has its own caps");
        assert_eq!(deposit(&version(0, 2, 1)), Deposited::OverQuota, "the refused version left no marker");
    }
}

/// All ids of a mailbox, found through digests of parts alone; checks each digest on the way.
fn walk(store: &dyn PacketStore, address: &Address, prefix: &[u8], whole: Digest) -> Vec<Id> {
    match store.range(address, prefix).expect("a range") {
        Range::Ids(ids) => {
            assert_eq!(ids.iter().collect::<Digest>(), whole);
            ids
        }
        Range::Parts(parts) => {
            let part = |(next, digest): (u8, &Digest)| match digest.count {
                0 => vec![],
                _ => walk(store, address, &[prefix, &[next]].concat(), *digest),
            };
            (0..=255).zip(parts.iter()).flat_map(part).collect()
        }
    }
}

#[test]
fn a_large_mailbox_is_compared_part_by_part() {
    let mut packets = many(700);
    let mut expiring = observed(1, 0, 1, "");
    expiring.expires_at = 5;
    packets.push(sign(1, &expiring));
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskStore::open(folder.path()).expect("a store").0;
    let memory = MemoryStore::new([1; 32]);
    let mut ids: Vec<Id> = packets[..700].iter().map(|packet| packet.id()).collect();
    ids.sort_unstable();
    for store in [&disk as &dyn PacketStore, &memory] {
        for mailbox in [0, 1, 2] {
            let batch: Vec<_> = packets.iter().map(|&packet| (address(mailbox), packet)).collect();
            store.deposit(1, &batch).expect("a deposit");
        }
        store.set_now(5);
        let digest = store.digest(&address(1)).expect("a digest");
        assert_eq!(digest, ids.iter().collect());
        assert!(matches!(store.range(&address(1), &[]).expect("a range"), Range::Parts(_)));
        assert_eq!(walk(store, &address(1), &[], digest), ids);
        let digests: Vec<_> = (0..3).map(|mailbox| (address(mailbox), digest)).collect();
        assert_eq!(store.digests(None, 9).expect("digests"), digests);
    }
}

/// A mailbox that others hold goes, and what is known of it stays: in both stores, and after opening anew.
#[test]
fn a_mailbox_that_is_left_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let memory = MemoryStore::new([1; 32]);
    let disk = || DiskStore::open(&folder.path().join("store")).unwrap().0;
    let (old, new) = (sign(0, &observed(0, 0, 1, "")), sign(0, &observed(0, 0, 2, "")));
    let (kept, taken_back) = (sign(1, &observed(1, 0, 1, "")), sign(1, &observed(1, 1, 1, "")));
    let back = sign(1, &retraction(taken_back.id(), 9));
    let mut passing = observed(0, 1, 3, "");
    passing.expires_at = 60;
    let passing = sign(0, &passing);
    let here: Vec<(Address, Verified)> =
        [old, new, kept, taken_back, back, passing].map(|packet| (address(0), packet)).to_vec();
    let elsewhere = vec![(address(1), kept)];
    let check = |store: &dyn PacketStore| {
        store.deposit(1, &here).unwrap();
        store.deposit(1, &elsewhere).unwrap();
        let (digest, end) = (store.digest(&address(0)).unwrap(), store.end(&address(0)).unwrap());
        assert_eq!(digest.count, 4);
        let other = store.digest(&address(1)).unwrap();
        assert_eq!(store.leave(2, &address(0), &other).unwrap(), 0, "another digest");
        assert_eq!(store.leave(2, &address(7), &digest).unwrap(), 0, "nobody has deposited there");
        assert_eq!(store.digest(&address(0)).unwrap(), digest);
        // What has expired is not compared, and left to the sweep.
        let live = digest.without(&[passing.id()].iter().collect());
        assert_eq!(store.leave(70, &address(0), &live).unwrap(), 3);
        assert_eq!(store.digest(&address(0)).unwrap(), Digest::default());
        assert_eq!(store.sweep(70).unwrap(), 1);
        assert_eq!(store.stat(&address(0)).unwrap().packets, 0);
        assert_eq!((store.digest(&address(1)).unwrap(), store.end(&address(0)).unwrap()), (other, end));
    };
    let again = |store: &dyn PacketStore| {
        let end = store.end(&address(0)).unwrap();
        let expected = [
            Deposited::Obsolete,
            Deposited::Stored,
            Deposited::Stored,
            Deposited::Obsolete,
            Deposited::Stored,
            Deposited::Obsolete,
        ];
        assert_eq!(store.deposit(80, &here).unwrap(), expected);
        let page = store.pull(&address(0), Some(end), 10).unwrap();
        assert_eq!(page.packets.len(), 3, "a reader's cursor goes on");
    };
    check(&memory);
    again(&memory);
    check(&disk());
    let reopened = DiskStore::open(&folder.path().join("store")).unwrap();
    assert!(reopened.1.loss.is_none(), "{}", reopened.1);
    again(&reopened.0);
}

/// More than one batch of removals.
#[test]
fn a_large_mailbox_is_left_by_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open(folder.path()).unwrap();
    let packets = many(2_500);
    let batch: Vec<(Address, Verified)> = packets.iter().map(|packet| (address(0), *packet)).collect();
    store.deposit(1, &batch).unwrap();
    let digest = store.digest(&address(0)).unwrap();
    assert_eq!(store.leave(2, &address(0), &digest).unwrap(), 2_500);
    assert_eq!(store.digest(&address(0)).unwrap(), Digest::default());
    assert_eq!(store.health().packets, 0);
}
