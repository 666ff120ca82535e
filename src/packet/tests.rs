use super::*;
use crate::limits::CASES_MAX;
use proptest::prelude::*;

fn key(seed: u8) -> AuthorKey {
    AuthorKey::from_seed([seed; 32])
}

fn draft() -> Draft {
    let mut values = [None; OUTCOMES_MAX];
    values[0] = Some((40_000, 1_000));
    values[2] = Some((65_535, 0));
    Draft {
        action: Some(3),
        observed_at: 86_400_000,
        expires_at: 86_400_001,
        cases: 4,
        sequence: 7,
        reference: [9; 32],
        signal: std::array::from_fn(|i| (i as i8).wrapping_sub(64).max(-127)),
        values,
        scope: [5; 32],
        note: "Zürich, ward 4".into(),
        ..Draft::new(Kind::Observed, [1; 32], 3)
    }
}

fn arbitrary_packet() -> impl Strategy<Value = Draft> {
    let value = prop_oneof![Just(None), (any::<u16>(), 0u16..300).prop_map(Some)];
    (0u8..3, 1usize..=16, prop::collection::vec(value, 16), 2u16..=CASES_MAX, any::<u32>(), "[a-zäß]{0,20}")
        .prop_map(|(kind, outcomes, drawn, cases, sequence, note)| {
            let kind = [Kind::Observed, Kind::Synthesis, Kind::Retraction][kind as usize];
            let mut values = [None; OUTCOMES_MAX];
            if kind != Kind::Retraction {
                values[..outcomes].copy_from_slice(&drawn[..outcomes]);
                values[0] = values[0].or(Some((1, 0)));
            }
            Draft {
                values,
                cases: if kind == Kind::Observed { cases } else { 0 },
                sequence,
                note,
                synthesis: (kind == Kind::Synthesis).then_some(SynthesisRecord {
                    view: [8; 32],
                    evidence_packets: sequence,
                    authors: 3,
                    effective_cases_256: 999,
                    verdict: Verdict::Thin,
                    level: 90,
                }),
                ..Draft::new(kind, [1; 32], outcomes)
            }
        })
}

proptest! {
    #[test]
    fn what_parses_is_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1100)) {
        if let Ok(packet) = Packet::parse(&bytes) {
            prop_assert_eq!(&packet.as_bytes()[..], &bytes[..]);
        }
    }

    /// Random bytes hardly get past the magic, so most of the rules are reached from good packets
    /// with a few bytes changed.
    #[test]
    fn a_bent_packet_parses_to_its_bytes_or_is_refused(
        draft in arbitrary_packet(),
        changes in prop::collection::vec((0usize..448, any::<u8>()), 1..4),
    ) {
        let packet = key(1).sign(&draft).unwrap();
        let mut bytes = *packet.as_bytes();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        match Packet::parse(&bytes) {
            Ok(parsed) => {
                prop_assert_eq!(parsed.as_bytes(), &bytes);
                // Every accessor is total on whatever parses.
                let _ = (parsed.note().len(), parsed.synthesis(), parsed.value(15), parsed.action());
                prop_assert_eq!(parsed.verify().is_ok(), bytes == *packet.as_bytes());
            }
            Err(error) => prop_assert!(error.to_string().contains("packet field `")),
        }
    }

    #[test]
    fn built_packets_say_what_the_draft_said(draft in arbitrary_packet()) {
        let packet = key(2).sign(&draft).unwrap();
        let again = Packet::parse(packet.as_bytes()).unwrap().verify().unwrap();
        prop_assert_eq!(again.kind(), draft.kind);
        prop_assert_eq!(again.cases(), draft.cases);
        prop_assert_eq!(again.note(), &draft.note);
        prop_assert_eq!(again.synthesis(), draft.synthesis);
        for (index, value) in draft.values.iter().enumerate() {
            prop_assert_eq!(again.mask() >> index & 1 == 1, value.is_some());
            prop_assert_eq!(again.value(index), value.unwrap_or_default());
        }
    }
}

fn refused(change: impl FnOnce(&mut Draft)) -> Field {
    let mut draft = draft();
    change(&mut draft);
    key(1).sign(&draft).unwrap_err().field
}

#[test]
fn every_refusal_names_its_field() {
    assert!(key(1).sign(&draft()).is_ok());
    assert_eq!(refused(|d| d.outcomes = 0), Field::Outcomes);
    assert_eq!(refused(|d| d.outcomes = 17), Field::Outcomes);
    assert_eq!(refused(|d| d.outcomes = 999), Field::Outcomes);
    assert_eq!(refused(|d| d.action = Some(ACTION_NONE)), Field::Action);
    assert_eq!(refused(|d| d.expires_at = d.observed_at), Field::ExpiresAt);
    assert_eq!(refused(|d| d.cases = 0), Field::Cases);
    assert_eq!(refused(|d| d.cases = CASES_MAX + 1), Field::Cases);
    assert_eq!(refused(|d| d.outcomes = 2), Field::Mask);
    assert_eq!(refused(|d| d.values = [None; 16]), Field::Mask);
    assert_eq!(refused(|d| d.signal[77] = i8::MIN), Field::Signal);
    assert_eq!(refused(|d| d.cases = 1), Field::Value(0));
    assert_eq!(refused(|d| d.values[2] = Some((65_535, 256))), Field::Value(2));
    assert_eq!(refused(|d| d.note = "x".repeat(97)), Field::Note);
    assert_eq!(refused(|d| d.note = "a\0b".into()), Field::Note);
    assert_eq!(refused(|d| d.kind = Kind::Synthesis), Field::Kind);
    let bend = |at: usize, byte: u8| {
        let mut bytes = *key(1).sign(&draft()).unwrap().as_bytes();
        bytes[at] = byte;
        Packet::parse(&bytes).and_then(Packet::verify).unwrap_err().field
    };
    assert_eq!(bend(0, b'q'), Field::Magic);
    assert_eq!(bend(4, 3), Field::Kind);
    assert_eq!(bend(447, 1), Field::NotePadding);
    assert_eq!(bend(352, 0xFF), Field::Note);
    assert_eq!(bend(500, 1), Field::Signature);
    assert_eq!(Packet::parse(&[0; 511]).unwrap_err().field, Field::Length);
}

#[test]
fn a_synthesis_has_a_level_a_verdict_and_nothing_reserved() {
    let mut draft = Draft {
        synthesis: Some(SynthesisRecord {
            view: [3; 32],
            evidence_packets: 1,
            authors: 1,
            effective_cases_256: 256,
            verdict: Verdict::Conflict,
            level: 99,
        }),
        ..Draft::new(Kind::Synthesis, [1; 32], 1)
    };
    draft.values[0] = Some((1, 65_535));
    let packet = key(1).sign(&draft).unwrap();
    assert_eq!(packet.synthesis(), draft.synthesis);
    for (at, byte, field) in [
        (352 + 44, 3, Field::Verdict),
        (352 + 45, 0, Field::Level),
        (352 + 45, 100, Field::Level),
        (352 + 46, 1, Field::Reserved),
        (24, 1, Field::Cases),
    ] {
        let mut bytes = *packet.as_bytes();
        bytes[at] = byte;
        assert_eq!(Packet::parse(&bytes).unwrap_err().field, field);
    }
}

#[test]
fn keys_of_small_order_are_refused() {
    // The neutral element: with it, (R = neutral, s = 0) is a valid signature of every message.
    let mut bytes = *key(1).sign(&draft()).unwrap().as_bytes();
    bytes[64..96].fill(0);
    bytes[64] = 1;
    bytes[448..].fill(0);
    bytes[448] = 1;
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.verify().unwrap_err().field, Field::Author);
    assert_eq!(verify_batch(&[packet])[0].as_ref().unwrap_err().field, Field::Author);
}

#[test]
fn batches_find_exactly_the_bad_ones() {
    let mut packets: Vec<Packet> = (0..300)
        .map(|i| *key((i % 5) as u8).sign(&Draft { sequence: i, ..draft() }).unwrap().packet())
        .collect();
    for bad in [0, 127, 128, 299] {
        packets[bad].0.signature[3] ^= 1;
    }
    packets[200].0.sequence = 0;
    let single: Vec<_> = packets.iter().map(|packet| packet.verify()).collect();
    assert_eq!(verify_batch(&packets), single);
    assert_eq!(single.iter().filter(|result| result.is_err()).count(), 5);
    assert!(verify_batch(&[]).is_empty());
}

#[test]
fn evidence_ids_are_stable_and_secret() {
    let (a, b) = (key(1), key(2));
    assert_eq!(a.evidence_id(&[0; 32], "Zu\u{308}rich"), a.evidence_id(&[0; 32], "Z\u{fc}rich"));
    assert_ne!(a.evidence_id(&[0; 32], "1"), b.evidence_id(&[0; 32], "1"));
    assert_ne!(a.evidence_id(&[0; 32], "1"), a.evidence_id(&[1; 32], "1"));
}

mod files {
    use super::*;

    fn write(count: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.qpk");
        let mut writer = PacketFileWriter::create(&path, [1; 32], [0; 32]).unwrap();
        for sequence in 0..count {
            writer.write(&key(1).sign(&Draft { sequence, ..draft() }).unwrap()).unwrap();
        }
        assert!(!path.exists(), "nothing is there before it is whole");
        assert_eq!(writer.finish().unwrap(), u64::from(count));
        (folder, path)
    }

    #[test]
    fn packets_come_back_in_order() {
        for count in [0, 1, 600] {
            let (_folder, path) = write(count);
            let file = PacketFile::open(&path).unwrap();
            assert_eq!((file.schema, file.view, file.count), ([1; 32], [0; 32], u64::from(count)));
            let read: Vec<u32> = file.map(|packet| packet.unwrap().sequence()).collect();
            assert_eq!(read, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn damage_is_named() {
        let (_folder, path) = write(3);
        let good = std::fs::read(&path).unwrap();
        let message = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            match PacketFile::open(&path) {
                Err(error) => error.to_string(),
                Ok(file) => file.filter_map(Result::err).map(|e| e.to_string()).collect(),
            }
        };
        assert_eq!(message(&|_| {}), "");
        assert!(message(&|b| b.truncate(2_000)).contains("truncated: the header announces 3 packets"));
        assert!(message(&|b| b.truncate(100)).contains("not a packet file"));
        assert!(message(&|b| b[0] = b'X').contains("does not begin with `QISP`"));
        assert!(message(&|b| b[4] = 2).contains("version 2; this program reads version 1"));
        assert!(message(&|b| b[300] = 1).contains("not zero"));
        assert!(message(&|b| b.push(0)).contains("bytes of packets"));
        assert!(message(&|b| b[1024 + 4] = 9).contains("packet 1 (byte 1024): packet field `kind`"));
        assert!(message(&|b| b[8..16].fill(0xFF)).contains("truncated"));
    }
}
