use super::*;
use crate::node::NodeKey;
use proptest::prelude::*;

fn key(seed: u8) -> SwarmKey {
    SwarmKey::from_seed([seed; 32])
}

const ALWAYS: Validity = Validity { from_ms: 0, until_ms: 0 };

fn draft(kind: ListKind, epoch: u64, keys: impl IntoIterator<Item = u8>) -> Draft {
    let entries = keys.into_iter().map(|byte| (vec![byte; 32], ALWAYS)).collect();
    Draft { kind, epoch, issued_at_ms: 7, entries }
}

fn list(kind: ListKind, epoch: u64, keys: impl IntoIterator<Item = u8>) -> List {
    key(1).sign(&draft(kind, epoch, keys)).unwrap().0
}

fn refused(bytes: &[u8]) -> String {
    List::parse(bytes).unwrap_err().to_string()
}

/// The bytes of a list with one part overwritten.
fn with(at: usize, part: &[u8]) -> Vec<u8> {
    let mut bytes = list(ListKind::Authors, 3, [1, 2]).as_bytes().to_vec();
    bytes[at..at + part.len()].copy_from_slice(part);
    bytes
}

/// The layout, written down a second time.
#[test]
fn a_list_of_one_node_is_these_bytes() {
    let entries = [(vec![9, 8, 7], Validity { from_ms: 5, until_ms: 0x0106 })].into();
    let signed = key(1).sign(&Draft { kind: ListKind::Nodes, epoch: 2, issued_at_ms: 3, entries }).unwrap();
    let mut expected = vec![1, 0];
    expected.extend(key(1).public());
    expected.extend([2, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([3, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([1, 0, 0, 0]);
    expected.extend([3, 9, 8, 7]);
    expected.extend([5, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([6, 1, 0, 0, 0, 0, 0, 0]);
    let (body, _) = signed.as_bytes().split_at(signed.as_bytes().len() - 64);
    assert_eq!(body, expected);
    assert_eq!(signed.digest(), blake3::derive_key("qis 1 list", &expected));
    let parsed = List::parse(signed.as_bytes()).unwrap();
    assert_eq!(parsed.clone().verify().unwrap(), signed);
    assert_eq!(
        (parsed.kind(), parsed.epoch(), parsed.issued_at_ms(), parsed.len()),
        (ListKind::Nodes, 2, 3, 1)
    );
    let entries: Vec<_> = parsed.entries().collect();
    assert_eq!(entries, [(&[9, 8, 7][..], Validity { from_ms: 5, until_ms: 0x0106 })]);
}

#[test]
fn refusals_name_the_field() {
    let good = with(0, &[]);
    assert!(List::parse(&good).is_ok());
    assert!(refused(&good[..117]).contains("`length`: is 117 bytes"));
    assert!(refused(&[]).contains("`length`"));
    assert!(refused(&with(0, &[2])).contains("`version`: is 2"));
    assert!(refused(&with(1, &[2])).contains("`kind`: is 2"));
    assert!(refused(&with(34, &[0])).contains("`epoch`: is 0"));
    // Refused by the number alone, before anything is read or copied.
    assert!(
        refused(&with(50, &65_537u32.to_le_bytes())).contains("`count`: is 65537; at most 65536 authors")
    );
    assert!(refused(&with(50, &[3])).contains("`count`: is 3, but the bytes end in entry 2"));
    assert!(refused(&with(50, &[1])).contains("`count`: is 1, but 49 bytes follow"));
    assert!(refused(&with(54, &[31])).contains("`key of entry 0`: has 31 bytes; an author key has 32"));
    assert!(refused(&with(55, &[3; 32])).contains("`key of entry 1`: does not come after"));
    assert!(refused(&with(55, &[2; 32])).contains("`key of entry 1`: does not come after"));
    assert!(refused(&with(87, &[9, 0, 0, 0, 0, 0, 0, 0, 9])).contains("`until of entry 0`: is 9, not after"));

    let peer = |bytes| Draft { entries: [(vec![1; bytes], ALWAYS)].into(), ..draft(ListKind::Nodes, 1, []) };
    assert!(key(1).sign(&peer(PEER_ID_BYTES_MAX)).is_ok());
    for wrong in [0, PEER_ID_BYTES_MAX + 1] {
        let error = key(1).sign(&peer(wrong)).unwrap_err();
        assert!(error.to_string().contains("`key of entry 0`: has"), "{error}");
    }
    assert!(key(1).sign(&draft(ListKind::Nodes, 0, [])).is_err());
    let many = |count: usize| Draft {
        entries: (0..count).map(|i| (i.to_be_bytes().to_vec(), ALWAYS)).collect(),
        ..draft(ListKind::Nodes, 1, [])
    };
    assert_eq!(key(1).sign(&many(MEMBERS_MAX)).unwrap().len(), MEMBERS_MAX);
    let error = key(1).sign(&many(MEMBERS_MAX + 1)).unwrap_err();
    assert_eq!(error.field, ListField::Count);
}

#[test]
fn the_longest_list_has_the_length_that_is_said() {
    let entries =
        (0..AUTHORS_LISTED_MAX).map(|i| (blake3::hash(&i.to_le_bytes()).as_bytes().to_vec(), ALWAYS));
    let draft = Draft { entries: entries.collect(), ..draft(ListKind::Authors, 1, []) };
    let signed = key(1).sign(&draft).unwrap();
    assert_eq!(signed.as_bytes().len(), LIST_BYTES_MAX);
    let mut lists = Lists::new(*key(1).public());
    assert_eq!(lists.offer(List::parse(signed.as_bytes()).unwrap()), Outcome::Taken);
    assert!(draft.entries.keys().all(|author| lists.admits_author(&author[..].try_into().unwrap(), 0)));
}

#[test]
fn keys_that_bind_nobody_are_refused() {
    // The neutral point: any signature (R, s) with R = sB fits every message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    for swarm in [neutral, [2; 32]] {
        assert!(!is_public_key(&swarm));
        let forged = List::parse(&with(2, &swarm)).unwrap();
        assert_eq!(forged.verify().unwrap_err().field, ListField::Swarm);
    }
    assert!(is_public_key(key(1).public()));
}

#[test]
fn only_a_higher_epoch_replaces() {
    let mut lists = Lists::new(*key(1).public());
    assert_eq!(lists.offer(list(ListKind::Nodes, 2, [1, 2])), Outcome::Taken);
    assert_eq!(lists.offer(list(ListKind::Nodes, 2, [1, 2])), Outcome::Known);
    assert_eq!(lists.offer(list(ListKind::Nodes, 1, [1, 2, 3])), Outcome::Older { held: 2 });
    assert_eq!(lists.offer(list(ListKind::Authors, 1, [9])), Outcome::Taken);
    assert_eq!(lists.epochs(), (2, 1));
    assert!(lists.admits_node(&NodeKey::of_peer(&[1; 32]), 0));
    // Revoked by a higher epoch, and not brought back by an older one.
    assert_eq!(lists.offer(list(ListKind::Nodes, 5, [2])), Outcome::Taken);
    assert_eq!(lists.offer(list(ListKind::Nodes, 4, [1, 2])), Outcome::Older { held: 5 });
    assert!(!lists.admits_node(&NodeKey::of_peer(&[1; 32]), 0));

    let foreign = key(2).sign(&draft(ListKind::Nodes, 9, [1])).unwrap();
    assert_eq!(lists.offer(foreign.0.clone()), Outcome::AnotherSwarm { swarm: *key(2).public() });
    // Their list under our name.
    let mut bytes = foreign.as_bytes().to_vec();
    bytes[2..34].copy_from_slice(key(1).public());
    let forged = lists.offer(List::parse(&bytes).unwrap());
    assert!(matches!(forged, Outcome::BadSignature(ListError { field: ListField::Signature, .. })));
    assert_eq!(lists.epochs(), (5, 1));
}

#[test]
fn nodes_agree_after_an_equivocation_whatever_they_heard_first() {
    let rivals = [list(ListKind::Authors, 3, [1]), list(ListKind::Authors, 3, [2])];
    let mut held = Vec::new();
    for order in [[0, 1], [1, 0]] {
        let mut lists = Lists::new(*key(1).public());
        assert_eq!(lists.offer(rivals[order[0]].clone()), Outcome::Taken);
        let wins = rivals[order[1]].digest() > rivals[order[0]].digest();
        let said = lists.offer(rivals[order[1]].clone());
        assert_eq!(said, Outcome::Equivocation { epoch: 3, taken: wins });
        held.push(lists.authors().unwrap().digest());
        // Made up ones prove nothing.
        let mut bytes = list(ListKind::Authors, 3, [4]).as_bytes().to_vec();
        bytes[60] ^= 1;
        assert!(matches!(lists.offer(List::parse(&bytes).unwrap()), Outcome::BadSignature(_)));
    }
    let larger = rivals[0].digest().max(rivals[1].digest());
    assert_eq!(held, [larger, larger]);
}

#[test]
fn entries_admit_from_and_until() {
    let entries = [
        (vec![1; 32], Validity { from_ms: 10, until_ms: 20 }),
        (vec![2; 32], Validity { from_ms: 15, until_ms: 0 }),
    ];
    let mut lists = Lists::new(*key(1).public());
    assert!(lists.admits_author(&[1; 32], 0) && lists.admits_node(&NodeKey::of_peer(&[1; 32]), 0), "open");
    assert!(lists.node_keys(0).is_empty());
    for kind in ListKind::ALL {
        let draft = Draft { entries: entries.clone().into(), ..draft(kind, 1, []) };
        assert_eq!(lists.offer(key(1).sign(&draft).unwrap().0), Outcome::Taken);
    }
    for (now, first, second, change) in [
        (9, false, false, Some(10)),
        (10, true, false, Some(15)),
        (15, true, true, Some(20)),
        (19, true, true, Some(20)),
        (20, false, true, None),
    ] {
        let nodes = [1, 2].map(|byte: u8| NodeKey::of_peer(&[byte; 32]));
        assert_eq!(lists.admits_author(&[1; 32], now), first, "at {now}");
        assert_eq!(lists.admits_author(&[2; 32], now), second, "at {now}");
        assert_eq!(nodes.map(|node| lists.admits_node(&node, now)), [first, second], "at {now}");
        let mut expected: Vec<NodeKey> =
            nodes.into_iter().zip([first, second]).filter(|(_, is)| *is).map(|(node, _)| node).collect();
        expected.sort_unstable();
        assert_eq!(lists.node_keys(now), expected, "at {now}");
        assert_eq!(lists.peers(now).count(), expected.len());
        assert_eq!(lists.changes_at_ms(now), change, "at {now}");
        assert!(!lists.admits_author(&[3; 32], now));
    }
}

fn drafts() -> impl Strategy<Value = Draft> {
    let times = (0u64..100, 0u64..3).prop_map(|(from_ms, more)| Validity {
        from_ms,
        until_ms: if more == 0 { 0 } else { from_ms + more },
    });
    let nodes = prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..=64), times.clone(), 0..9);
    let authors = prop::collection::btree_map(prop::collection::vec(any::<u8>(), 32), times, 0..9);
    let entries = prop_oneof![
        nodes.prop_map(|entries| (ListKind::Nodes, entries)),
        authors.prop_map(|entries| (ListKind::Authors, entries))
    ];
    (entries, 1u64.., any::<u64>()).prop_map(|((kind, entries), epoch, issued_at_ms)| Draft {
        kind,
        epoch,
        issued_at_ms,
        entries,
    })
}

proptest! {
    #[test]
    fn what_is_signed_is_read(draft in drafts()) {
        let signed = key(1).sign(&draft).unwrap();
        let read = List::parse(signed.as_bytes()).unwrap();
        prop_assert_eq!(read.as_bytes(), signed.as_bytes());
        let entries: std::collections::BTreeMap<_, _> =
            read.entries().map(|(key, validity)| (key.to_vec(), validity)).collect();
        let again = Draft { kind: read.kind(), epoch: read.epoch(), issued_at_ms: read.issued_at_ms(), entries };
        prop_assert_eq!(again, draft);
        prop_assert_eq!(read.verify().unwrap(), signed);
    }

    /// One changed byte, or one more or less, is refused by the parser or by the signature.
    #[test]
    fn no_other_bytes_pass(draft in drafts(), place: prop::sample::Index, flip in 1u8.., cut in 0u8..3) {
        let mut bytes = key(1).sign(&draft).unwrap().as_bytes().to_vec();
        match cut {
            0 => { let at = place.index(bytes.len()); bytes[at] ^= flip; }
            1 => bytes.truncate(place.index(bytes.len())),
            _ => bytes.insert(place.index(bytes.len()), flip),
        }
        prop_assert!(List::parse(&bytes).and_then(List::verify).is_err());
    }

    #[test]
    fn bytes_never_panic(noise in prop::collection::vec(any::<u8>(), 0..400), head in prop::bool::ANY) {
        let mut bytes = noise;
        if head && bytes.len() > 54 {
            // Past the header, where the entries are read.
            bytes[0] = 1;
            bytes[1] %= 2;
            let count = u32::from(bytes[50]) % 5;
            bytes[50..54].copy_from_slice(&count.to_le_bytes());
        }
        if let Ok(list) = List::parse(&bytes) {
            prop_assert_eq!(list.entries().count(), list.len());
            prop_assert_eq!(list.as_bytes(), &bytes[..]);
            let _ = list.verify();
        }
    }
}
