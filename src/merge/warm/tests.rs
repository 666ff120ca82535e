//! A warm batch against the cold one: [`live()`](crate::merge::live()) and [`Batch::new`] over all that was
//! taken.

use super::*;
use crate::domain::prior::{FoldsBy, Link, OutcomeScore, Prior, Score, Scores, Tree, logistic_table};
use crate::domain::view::{Bits, Calibration, Options, Trust};
use crate::domain::{Decay, OutcomeKind, View};
use crate::limits::{OUTCOMES_MAX, SLOTS};
use crate::merge::tests::schema;
use crate::merge::{Layout, Question, Situations, answer, cpu, live};
use crate::packet::{AuthorKey, Draft};
use proptest::prelude::*;
use std::sync::Arc;

const OUTCOMES: usize = 2;

/// One packet of the pool that a sequence draws from.
#[derive(Clone, Debug)]
struct Plan {
    author: u8,
    evidence: u8,
    sequence: u32,
    slot: i8,
    value: u16,
    action: Option<u16>,
    /// Which outcomes are present: 1, 2 or both.
    mask: u16,
    cases: u16,
    observed_at: u64,
    /// After the observation; 0 never.
    lasts: u64,
    /// Takes back the packet of that number instead, if it is an earlier one.
    retracts: Option<usize>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let action = prop_oneof![Just(None), (0u16..2).prop_map(Some)];
    let lasts = prop_oneof![3 => Just(0u64), 2 => 1u64..400];
    let what = (0u8..4, 0u8..8, 0u32..4, -50i8..50, any::<u16>(), action);
    let how = (1u16..4, 1u16..4, 0u64..500, lasts, prop::option::weighted(0.15, 0usize..30));
    (what, how).prop_map(
        |((author, evidence, sequence, slot, value, action), (mask, cases, observed_at, lasts, retracts))| {
            Plan {
                author,
                evidence,
                sequence,
                slot,
                value,
                action,
                mask,
                cases,
                observed_at,
                lasts,
                retracts,
            }
        },
    )
}

fn sign(plans: &[Plan]) -> Vec<Verified> {
    let mut packets: Vec<Verified> = vec![];
    for plan in plans {
        let schema = schema(OUTCOMES).id();
        let draft = match plan.retracts.and_then(|target| packets.get(target)) {
            Some(target) => {
                Draft { reference: target.id(), ..Draft::new(Kind::Retraction, schema, OUTCOMES) }
            }
            None => {
                let mut values = [None; OUTCOMES_MAX];
                for outcome in (0..OUTCOMES).filter(|outcome| plan.mask >> outcome & 1 == 1) {
                    values[outcome] = Some((plan.value.rotate_left(outcome as u32), 0));
                }
                let mut signal = [0; SLOTS];
                signal[0] = plan.slot;
                Draft {
                    values,
                    signal,
                    action: plan.action,
                    cases: plan.cases,
                    sequence: plan.sequence,
                    reference: [plan.evidence; 32],
                    observed_at: plan.observed_at,
                    expires_at: if plan.lasts == 0 { 0 } else { plan.observed_at + plan.lasts },
                    ..Draft::new(Kind::Observed, schema, OUTCOMES)
                }
            }
        };
        packets.push(AuthorKey::from_seed([plan.author; 32]).sign(&draft).unwrap());
    }
    packets
}

/// A view with scores that tell slots apart, own levels and trust.
fn scored(half_life_ms: u64) -> View {
    let schema = schema(OUTCOMES);
    let score = |base: i32| Score {
        base,
        shift: 2,
        linear: (0..SLOTS as i16).map(|slot| slot * 7 - 90).collect(),
        trees: vec![Tree { slots: vec![0], thresholds: vec![3], leaves: vec![-700, 900] }],
    };
    let outcome = |(index, outcome): (usize, &crate::domain::Outcome)| OutcomeScore {
        link: if outcome.kind == OutcomeKind::Binary { Link::Logistic } else { Link::Identity },
        whole: score(index as i32 * 100),
        without: std::array::from_fn(|fold| score(index as i32 * 100 + fold as i32 * 50)),
    };
    let outcomes: Vec<OutcomeScore> = schema.outcomes.iter().enumerate().map(outcome).collect();
    let logistic = outcomes.iter().any(|outcome| outcome.link == Link::Logistic);
    let scores = Scores {
        cases: Bits(2.0),
        folds: FoldsBy::Author,
        logistic: if logistic { logistic_table() } else { vec![] },
        outcomes,
    };
    assert!(scores.is_sound());
    let calibration = Calibration {
        scale: Bits(1.5),
        floor: Bits(0.1),
        lower: vec![Bits(0.1), Bits(0.3)],
        upper: vec![Bits(0.2), Bits(0.2)],
    };
    let options = Options {
        own_offset: Some(Bits(3.0)),
        trust: Some(Trust { spread: Bits(0.5), cases_max: 9 }),
        calibration: vec![calibration; OUTCOMES],
    };
    View { prior: Prior::Scores(Arc::new(scores)), finish: 2, options: Some(options), ..view(half_life_ms) }
}

fn view(half_life_ms: u64) -> View {
    let mut view = View::plain("v", &schema(OUTCOMES), 40.0, 2.0);
    if half_life_ms > 0 {
        view.decay = Decay::exponential(half_life_ms);
    }
    view
}

fn take<'a>(warm: &mut Warm, packets: impl IntoIterator<Item = &'a Verified>) {
    let packets = packets.into_iter().map(|packet| (packet.id(), packet));
    warm.add(packets, |signals| signals.to_owned());
}

/// Everything that can be seen of a batch when it is asked: answers, evidence by id, live ids, root.
fn seen(batch: &Batch, view: &View, ask_ms: u64) -> impl PartialEq + std::fmt::Debug + use<> {
    let schema = schema(OUTCOMES);
    let question = Question { schema: &schema, view, batch, ask_ms };
    let mut queries = Array2::zeros((3, SLOTS));
    (queries[[0, 0]], queries[[1, 0]]) = (-20, 30);
    let askers =
        [None, Some(0), Some(1)].map(|seed| seed.map(|seed| *AuthorKey::from_seed([seed; 32]).public()));
    let asked = Situations { signals: queries.view(), embeddings: queries.view(), askers: &askers };
    let answers = answer(question, asked, cpu::merge);
    let evidence: Vec<(Id, u16)> = question
        .evidence(&crate::embed::rows(&queries.view())[1])
        .into_iter()
        .map(|(row, weight)| (batch.ids[row], weight))
        .collect();
    let mut ids: Vec<Id> = batch.live_ids().collect();
    ids.sort_unstable();
    (answers, evidence, ids, batch.live(), lineage_root(batch.live_ids()))
}

fn cold(taken: &[Verified], ask_ms: u64, layout: &Layout) -> Batch {
    Batch::new(live(taken, ask_ms), layout, |signals| signals.to_owned())
}

proptest! {
    #[test]
    fn a_warm_batch_is_the_cold_one(
        plans in prop::collection::vec(plan(), 1..40),
        steps in prop::collection::vec((prop::collection::vec(0usize..40, 0..9), 0u64..1_000), 1..12),
        slack in prop_oneof![Just(0usize), Just(2), Just(SLACK)],
        half_life_ms in prop_oneof![Just(0u64), Just(100), Just(6_400)],
        has_scores in any::<bool>(),
    ) {
        let pool = sign(&plans);
        let view = if has_scores { scored(half_life_ms) } else { view(half_life_ms) };
        let layout = Layout::of(&schema(OUTCOMES), &view);
        let new = || Warm { slack, ..Warm::new(&layout) };
        let mut warm = new();
        let mut taken: Vec<Verified> = vec![];
        for (numbers, ask_ms) in steps {
            let more: Vec<Verified> = numbers.iter().map(|&number| pool[number % pool.len()]).collect();
            taken.extend(&more);
            take(&mut warm, &more);
            if warm.at(&view, ask_ms).is_none() {
                warm = new();
                take(&mut warm, &taken);
            }
            let batch = warm.at(&view, ask_ms).expect("a new batch has forgotten nothing");
            let (warm_seen, cold) = (seen(batch, &view, ask_ms), cold(&taken, ask_ms, &layout));
            prop_assert_eq!(warm_seen, seen(&cold, &view, ask_ms));
            prop_assert_eq!(warm.lineage_root(), lineage_root(cold.ids.iter().copied()));
        }
    }
}

const ONE: Plan = Plan {
    author: 1,
    evidence: 1,
    sequence: 1,
    slot: 0,
    value: 65_535,
    action: None,
    mask: 3,
    cases: 1,
    observed_at: 0,
    lasts: 0,
    retracts: None,
};

/// So many packets with evidence of their own.
fn many(count: u8) -> Vec<Plan> {
    (0..count).map(|evidence| Plan { evidence, author: 1 + evidence % 3, ..ONE }).collect()
}

#[test]
fn new_packets_are_appended_and_old_columns_kept() {
    let mut warm = Warm::new(OUTCOMES);
    let packets = sign(&many(200));
    take(&mut warm, &packets[..190]);
    let plain = view(0);
    let (id, rows) = warm.at(&plain, 10).map(|batch| (batch.columns.id(), batch.len())).unwrap();
    assert_eq!(rows, 190);
    take(&mut warm, &packets[180..]);
    let batch = warm.at(&plain, 20).unwrap();
    assert_eq!((batch.columns.id(), batch.len(), batch.live()), (id, 200, 200));
}

#[test]
fn dead_rows_are_cleared_out_once_they_are_many() {
    let mut warm = Warm::new(OUTCOMES);
    let plain = view(0);
    let mut taken = vec![];
    for sequence in 0..20 {
        let plans: Vec<Plan> = many(60).into_iter().map(|plan| Plan { sequence, ..plan }).collect();
        let packets = sign(&plans);
        take(&mut warm, &packets);
        taken.extend(packets);
        let batch = warm.at(&plain, 10).unwrap();
        assert_eq!(batch.live(), 60);
        assert!(batch.len() <= 60 + 60 + SLACK, "{} rows", batch.len());
        let columns = batch.columns.len();
        assert_eq!(columns, batch.len());
    }
    let view = view(0);
    assert_eq!(
        seen(warm.at(&plain, 10).unwrap(), &view, 10),
        seen(&cold(&taken, 10, &OUTCOMES.into()), &view, 10)
    );
}

#[test]
fn what_was_forgotten_is_not_asked_about() {
    let mut warm = Warm { slack: 0, ..Warm::new(OUTCOMES) };
    let plain = view(0);
    let mut plans = many(4);
    plans[0].lasts = 100;
    plans[1].lasts = 200;
    take(&mut warm, &sign(&plans));
    let mut live = |ask_ms| warm.at(&plain, ask_ms).map(Batch::live);
    assert_eq!((live(99), live(100)), (Some(4), Some(3)));
    assert_eq!(live(99), Some(4), "one dead row of four is borne, and comes back");
    assert_eq!(live(200), Some(2), "two of four are cleared out");
    assert_eq!((live(199), live(99)), (None, None));
    assert_eq!(live(201), Some(2));
}
