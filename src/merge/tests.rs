use super::layout::COLUMNS_PER_OUTCOME;
use super::*;
use crate::domain::{Direction, Feature, FeatureKind, Missing, Outcome, OutcomeKind, Outside, Schema, View};
use crate::limits::{OUTCOMES_MAX, SLOTS, WEIGHT_ONE};
use crate::packet::{AuthorKey, Draft, Kind, Verdict, Verified};
use ndarray::Array2;
use proptest::prelude::*;

pub(super) fn schema(outcomes: usize) -> Schema {
    let outcome = |i: usize| Outcome {
        name: format!("outcome {i}"),
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
        actions: vec!["wait".into(), "treat".into()],
        outcomes: (0..outcomes).map(outcome).collect(),
        time_step_ms: 1,
        levels: 32,
        cases_min: 1,
        curator: [0; 32],
    }
}

/// One observed packet: author, evidence, sequence, first slot, first outcome, action.
#[derive(Clone, Copy, Debug)]
struct Seen {
    author: u8,
    evidence: u8,
    sequence: u32,
    slot: i8,
    value: u16,
    action: Option<u16>,
    cases: u16,
}

fn packet(seen: Seen) -> Verified {
    let mut values = [None; OUTCOMES_MAX];
    values[0] = Some((seen.value, 0));
    let mut signal = [0; SLOTS];
    signal[0] = seen.slot;
    let draft = Draft {
        values,
        signal,
        action: seen.action,
        cases: seen.cases,
        sequence: seen.sequence,
        reference: [seen.evidence; 32],
        observed_at: 1_000,
        ..Draft::new(Kind::Observed, schema(1).id(), 1)
    };
    AuthorKey::from_seed([seen.author; 32]).sign(&draft).unwrap()
}

fn retraction(of: &Verified, author: u8) -> Verified {
    let draft = Draft { reference: of.id(), ..Draft::new(Kind::Retraction, schema(1).id(), 1) };
    AuthorKey::from_seed([author; 32]).sign(&draft).unwrap()
}

fn seen() -> impl Strategy<Value = Seen> {
    let action = prop_oneof![Just(None), (0u16..2).prop_map(Some)];
    (0u8..4, 0u8..6, 0u32..3, -50i8..50, any::<u16>(), action, 1u16..4).prop_map(
        |(author, evidence, sequence, slot, value, action, cases)| Seen {
            author,
            evidence,
            sequence,
            slot,
            value,
            action,
            cases,
        },
    )
}

fn batch(packets: &[Verified], ask_ms: u64) -> Batch {
    Batch::new(live(packets, ask_ms), 1, |signals| signals.to_owned())
}

fn ask(packets: &[Verified], slot: i8) -> Answer {
    let schema = schema(1);
    let view = View::plain("v", &schema, 40.0, 2.0);
    let batch = batch(packets, 2_000);
    let question = Question { schema: &schema, view: &view, batch: &batch, ask_ms: 2_000 };
    let mut query = Array2::zeros((1, SLOTS));
    query[[0, 0]] = slot;
    answer(question, Situations::public(query.view(), query.view()), cpu::merge).remove(0)
}

proptest! {
    #[test]
    fn order_and_repetition_do_not_matter(mut all in prop::collection::vec(seen(), 1..40), slot in -50i8..50) {
        let packets: Vec<Verified> = all.iter().copied().map(packet).collect();
        let expected = ask(&packets, slot);
        all.reverse();
        all.extend_from_within(..all.len() / 2);
        let again: Vec<Verified> = all.iter().copied().map(packet).collect();
        prop_assert_eq!(ask(&again, slot), expected);
    }

    /// Leave-author-out is a subtraction, and parts add up to the whole.
    #[test]
    fn tallies_are_a_group(all in prop::collection::vec(seen(), 1..40), without in 0u8..4, slot in -50i8..50) {
        let packets: Vec<Verified> = all.iter().copied().map(packet).collect();
        let whole = |packets: &[Verified]| {
            let view = View::plain("v", &schema(1), 40.0, 2.0);
            let batch = batch(packets, 2_000);
            let gains = vec![WEIGHT_ONE; batch.len()];
            let mut query = Array2::zeros((1, SLOTS));
            query[[0, 0]] = slot;
            let spans = batch.spans_by_author(1);
            let tallies = cpu::merge(&batch.job(&view.kernel, &gains, query.view(), &spans));
            let mut sum = Tally::zero(COLUMNS_PER_OUTCOME);
            (0..tallies.rows()).for_each(|row| sum.add(&tallies.tally(row)));
            let dense = [Span { queries: 0..1, packets: 0..batch.len() }];
            assert_eq!(cpu::merge(&batch.job(&view.kernel, &gains, query.view(), &dense)).tally(0), sum);
            sum
        };
        let author = AuthorKey::from_seed([without; 32]);
        let (theirs, others): (Vec<Verified>, Vec<Verified>) =
            packets.iter().partition(|packet| packet.author() == author.public());
        let mut rest = whole(&packets);
        rest.subtract(&whole(&theirs));
        prop_assert_eq!(rest, whole(&others));
    }
}

const ONE: Seen =
    Seen { author: 1, evidence: 1, sequence: 1, slot: 0, value: 65_535, action: None, cases: 1 };

#[test]
fn supersede_comes_before_retraction() {
    let old = packet(ONE);
    let new = packet(Seen { sequence: 2, value: 0, ..ONE });
    let ids = |packets: &[Verified]| live(packets, 2_000).iter().map(|live| live.id).collect::<Vec<_>>();
    assert_eq!(ids(&[new, old]), [new.id()]);
    assert_eq!(ids(&[old, new, retraction(&new, 1)]), [] as [crate::packet::Id; 0], "revives no older one");
    assert_eq!(ids(&[old, new, retraction(&old, 1)]), [new.id()]);
    assert_eq!(ids(&[retraction(&new, 2), new]), [new.id()], "another author cannot retract");
    let other = packet(Seen { author: 2, ..ONE });
    assert_eq!(ids(&[new, other]).len(), 2, "another author's evidence of the same name");
}

#[test]
fn expired_at_the_millisecond() {
    let mut values = [None; OUTCOMES_MAX];
    values[0] = Some((1, 0));
    let draft = Draft { values, expires_at: 50, ..Draft::new(Kind::Observed, schema(1).id(), 1) };
    let packet = AuthorKey::from_seed([1; 32]).sign(&draft).unwrap();
    assert_eq!(live(&[packet], 49).len(), 1);
    assert_eq!(live(&[packet], 50).len(), 0);
}

/// The echo promise: what syntheses say never counts, however often they are deposited.
#[test]
fn a_redeposited_synthesis_changes_no_bit() {
    let schema = schema(1);
    let view = View::plain("v", &schema, 40.0, 2.0);
    let mut packets: Vec<Verified> = (0..30u8)
        .map(|i| {
            packet(Seen { author: i % 5, evidence: i, slot: i as i8, value: u16::from(i) * 2_000, ..ONE })
        })
        .collect();
    let before = ask(&packets, 7);
    let lineage = |packets: &[Verified]| lineage_root(live(packets, 2_000).iter().map(|live| live.id));
    let root = lineage(&packets);
    for round in 0..50 {
        let answer = ask(&packets, 7);
        let situation = Situation { signal: &[0; SLOTS], scope: [0; 32] };
        let mut draft =
            synthesis(&schema, &view, &answer, None, situation, lineage(&packets), 2_000).unwrap();
        draft.sequence = round;
        packets.push(AuthorKey::from_seed([round as u8 % 7; 32]).sign(&draft).unwrap());
    }
    assert_eq!(ask(&packets, 7), before);
    assert_eq!(lineage(&packets), root);
    let record = packets.last().unwrap().synthesis().unwrap();
    assert_eq!(record.view, view.id());
    assert_eq!(u64::from(record.evidence_packets), before.packets);
    assert_eq!(record.authors, 5);
}

#[test]
fn an_empty_mailbox_gives_an_honest_nothing() {
    let answer = ask(&[], 0);
    assert_eq!(answer.verdict, Verdict::Thin);
    assert_eq!((answer.packets, answer.authors, answer.effective_cases), (0, 0, 0.0));
    assert_eq!(answer.outcomes, [None]);
    // Evidence that is too far to count: the plain mean, a wide interval, no effective case.
    let far = ask(
        &[packet(Seen { slot: 127, ..ONE }), packet(Seen { slot: 127, value: 0, author: 2, ..ONE })],
        -127,
    );
    let estimate = far.outcomes[0].unwrap();
    assert_eq!((far.packets, far.verdict), (0, Verdict::Thin));
    assert_eq!((estimate.estimate, estimate.lower, estimate.upper), (0.5, 0.0, 1.0));
}

#[test]
fn estimates_follow_the_near_packets_and_intervals_narrow() {
    let near = |count: u8| -> Vec<Verified> {
        (0..count)
            .map(|i| {
                packet(Seen {
                    author: i % 8,
                    evidence: i,
                    value: if (i + i / 8) % 4 == 0 { 65_535 } else { 0 },
                    ..ONE
                })
            })
            .collect()
    };
    let width = |count: u8| {
        let answer = ask(&near(count), 0);
        let estimate = answer.outcomes[0].unwrap();
        assert_eq!(answer.effective_cases, f64::from(count), "identical cases count in full");
        assert!(estimate.lower <= 0.25 && 0.25 <= estimate.upper);
        estimate.upper - estimate.lower
    };
    assert!(width(16) > width(64) && width(64) > width(200));
    assert_eq!(ask(&near(200), 0).verdict, Verdict::Answer);
    assert_eq!(ask(&near(4), 0).verdict, Verdict::Thin);
}

#[test]
fn authors_who_contradict_each_other_are_a_conflict() {
    let camps: Vec<Verified> = (0..60u8)
        .map(|i| {
            packet(Seen { author: i % 6, evidence: i, value: if i % 2 == 0 { 65_535 } else { 0 }, ..ONE })
        })
        .collect();
    assert_eq!(ask(&camps, 0).verdict, Verdict::Conflict);
}

#[test]
fn the_better_action_is_recommended() {
    // The outcome is better when lower; action 1 lowers it.
    let packets: Vec<Verified> = (0..80u8)
        .map(|i| {
            let action = u16::from(i) % 2;
            let bad = if action == 0 { i % 4 < 3 } else { i % 16 == 1 };
            let value = if bad { 65_535 } else { 0 };
            packet(Seen { author: i % 7, evidence: i, value, action: Some(action), ..ONE })
        })
        .collect();
    let answer = ask(&packets, 0);
    assert_eq!(answer.action, Some(1));
    assert_eq!(answer.actions.len(), 2);
    let without = packet(Seen { author: 9, action: None, ..ONE });
    let mixed = ask(&[packets, vec![without]].concat(), 0);
    assert_eq!(mixed.actions.iter().map(|(action, _)| *action).collect::<Vec<_>>(), [None, Some(0), Some(1)]);
}

#[test]
fn further_cases_are_the_smallest_number_that_may_flip() {
    use super::finish::further_cases;
    let (distance, variance, cases) = (0.08, 0.25, 20.0);
    let k = further_cases(distance, variance, cases).unwrap();
    // A move of 1.2816 standard deviations has a chance of 10%.
    let chance = |k: f64| 1.281_551_565_5 * (variance * k / (cases * (cases + k))).sqrt();
    assert!(chance(k as f64) >= distance && chance(k as f64 - 1.0) < distance, "{k}");
    assert_eq!(further_cases(0.4, 0.01, 1_000.0), None, "no number of cases moves that");
    assert_eq!(further_cases(0.0, 0.25, 10.0), Some(1));
}

#[test]
fn evidence_is_listed_by_weight() {
    let schema = schema(1);
    let view = View::plain("v", &schema, 40.0, 2.0);
    let packets: Vec<Verified> =
        [0i8, 30, 60, 127].map(|slot| packet(Seen { evidence: slot as u8, slot, ..ONE })).to_vec();
    let batch = batch(&packets, 2_000);
    let question = Question { schema: &schema, view: &view, batch: &batch, ask_ms: 2_000 };
    let found = question.evidence(&[0; SLOTS]);
    let ids: Vec<_> = found.iter().map(|&(row, _)| batch.ids[row]).collect();
    assert_eq!(ids[..3], [packets[0].id(), packets[1].id(), packets[2].id()]);
    assert!(found.windows(2).all(|pair| pair[0].1 >= pair[1].1));
}
