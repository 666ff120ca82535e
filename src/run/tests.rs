//! The loop over a store in memory.

use super::Learner;
use crate::address::Addresser;
use crate::distill::Case;
use crate::domain::{
    Addressing, Direction, Feature, FeatureKind, Missing, Outcome, OutcomeKind, Outside, Schema, View,
};
use crate::engine::{Backend, Choice, Engine};
use crate::limits::{OUTCOMES_MAX, SLOTS};
use crate::mailbox::{Admission, LocalMailbox};
use crate::merge::{self, Batch, Question, live};
use crate::packet::{AuthorKey, Draft, Kind, Verified};
use crate::store::MemoryStore;
use ndarray::ArrayView2;
use std::sync::Arc;
use std::time::Instant;

const NOW_MS: u64 = 1_000_000;

fn schema() -> Schema {
    let outcome = |name: &str| Outcome {
        name: name.into(),
        kind: OutcomeKind::Binary,
        unit: String::new(),
        low: 0.0,
        high: 1.0,
        direction: Direction::Lower,
        outside: Outside::Refuse,
    };
    Schema {
        name: "test".into(),
        features: vec![Feature {
            name: "x".into(),
            kind: FeatureKind::Numeric { centre: 0.0, scale: 1.0, thermometer: vec![] },
            unit: String::new(),
            weight: 1.0,
            missing: Missing::Slot,
        }],
        exact: vec![],
        actions: vec!["wait".into(), "treat".into(), "send".into()],
        outcomes: vec![outcome("ill"), outcome("pain")],
        time_step_ms: 1,
        levels: 32,
        cases_min: 1,
        curator: [0; 32],
    }
}

/// Signed packets of 32 authors, three actions, one to three cases, spread over the signal's slots.
fn packets(schema: &Schema, numbers: std::ops::Range<u32>) -> Vec<Verified> {
    let authors: Vec<AuthorKey> = (0..32).map(|i| AuthorKey::from_seed([i + 1; 32])).collect();
    let id = schema.id();
    let one = |number: u32| {
        let mut stream = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
        let mut bytes = [0u8; 160];
        stream.fill(&mut bytes);
        let mut values = [None; 16];
        values[0] = Some((u16::from(bytes[0] & 1) * 65_535, 0));
        values[1] = Some((u16::from(bytes[1] & 1) * 65_535, 0));
        let mut reference = [0; 32];
        reference[..4].copy_from_slice(&number.to_le_bytes());
        let draft = Draft {
            values,
            reference,
            signal: std::array::from_fn(|slot| (bytes[32 + slot] as i8) / 4),
            action: Some(u16::from(bytes[2] % 3)),
            cases: 1 + u16::from(bytes[3] % 3),
            sequence: number,
            observed_at: NOW_MS - 1,
            ..Draft::new(Kind::Observed, id, 2)
        };
        authors[number as usize % 32].sign(&draft).expect("a sound draft")
    };
    numbers.map(one).collect()
}

fn learner(view: View, engine: Engine) -> Learner<LocalMailbox<MemoryStore>> {
    let store = Arc::new(MemoryStore::new([9; 32]));
    let mailbox = LocalMailbox::new(store, Admission::default().carry_any_schema(), || NOW_MS);
    let key = AuthorKey::from_seed([1; 32]);
    Learner::new(mailbox, Arc::new(schema()), Arc::new(view), Arc::new(engine), key, 0)
}

fn engine() -> Engine {
    Engine::new(&Choice { backend: Backend::Cpu, adapter: None, threads: Some(1) }).unwrap()
}

/// Several tables and probes: mailboxes share packets, and each question reads its own list of them.
#[test]
fn answers_are_those_of_all_packets_read_afresh() {
    let schema = schema();
    let view = View {
        addressing: Addressing { tables: 3, bits: 2, probes: 2 },
        ..View::plain("v", &schema, 150.0, 2.0)
    };
    let mut learner = learner(view.clone(), engine());
    let addresser = Addresser::new(&view);
    let cases: Vec<Case> = (0..6)
        .map(|i| Case { signal: std::array::from_fn(|slot| (slot * (i + 3) % 61) as i8 - 30), ..case() })
        .collect();
    let mut deposited: Vec<Verified> = vec![];
    for first in (0..240).step_by(40) {
        let new = packets(&schema, first..first + 40);
        pollster::block_on(learner.deposit(&new)).unwrap();
        deposited.extend(new);
        let answers = pollster::block_on(learner.ask(&cases, NOW_MS)).unwrap();
        for (case, answer) in cases.iter().zip(answers) {
            let addresses = addresser.ask(&case.scope, &case.signal);
            let reads = |packet: &&Verified| {
                let lies = addresser.deposit(packet.scope(), packet.signal());
                lies.iter().any(|address| addresses.contains(address))
            };
            let batch = Batch::new(live(deposited.iter().filter(reads), NOW_MS), 2, |s| s.to_owned());
            let question = Question { schema: &schema, view: &view, batch: &batch, ask_ms: NOW_MS };
            let query = ArrayView2::from_shape((1, SLOTS), &case.signal).unwrap();
            assert_eq!(
                vec![answer],
                merge::answer(question, merge::Situations::public(query, query), merge::cpu::merge)
            );
        }
    }
}

fn case() -> Case {
    Case {
        row: 1,
        signal: [0; SLOTS],
        scope: [0; 32],
        values: [None; OUTCOMES_MAX],
        truth: vec![None, None],
        action: None,
        site: None,
        record: String::new(),
        observed_at: NOW_MS,
    }
}

/// What an ask costs on a mailbox of 10,000 packets that was pulled before, with 0 and 10 new ones.
#[test]
#[ignore = "a measurement: run with --ignored --nocapture"]
fn asks_of_a_known_mailbox_are_timed() {
    let schema = schema();
    let mut learner = learner(View::plain("v", &schema, 150.0, 2.0), engine());
    let case = case();
    let put = |learner: &mut Learner<_>, numbers| {
        pollster::block_on(learner.deposit(&packets(&schema, numbers))).unwrap();
    };
    put(&mut learner, 0..10_000);
    pollster::block_on(learner.ask(std::slice::from_ref(&case), NOW_MS)).unwrap();
    let mut next = 10_000;
    for new in [0, 10] {
        let mut times: Vec<(f64, f64)> = (0..60)
            .map(|_| {
                put(&mut learner, next..next + new);
                next += new;
                let (wall, before) = (Instant::now(), learner.moved().times);
                let answers = pollster::block_on(learner.ask(std::slice::from_ref(&case), NOW_MS)).unwrap();
                assert!(answers[0].packets > 0);
                let synthesise = learner.moved().times.synthesise - before.synthesise;
                (wall.elapsed().as_secs_f64() * 1e6, synthesise.as_secs_f64() * 1e6)
            })
            .collect();
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (least, median) = (times[0], times[times.len() / 2]);
        eprintln!(
            "{new} new: least {:.0} us ({:.0} us after the pull), median {:.0} us ({:.0} us)",
            least.0, least.1, median.0, median.1
        );
    }
}
