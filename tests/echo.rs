//! The echo promise: answers that are deposited again and again change nothing, as long as they are
//! deposited as what they are; and what becomes of a node that calls its answers observations.
//!
//! `cargo test --release --test echo -- --nocapture` prints the table.

use qis::distill::Case;
use qis::domain::{Domain, Kernel, Purpose, Table};
use qis::engine::{Backend, Choice, Engine};
use qis::limits::OUTCOMES_MAX;
use qis::mailbox::{Admission, LocalMailbox};
use qis::merge::Answer;
use qis::packet::{AuthorKey, Draft, Kind, Verified};
use qis::run::Learner;
use qis::store::MemoryStore;
use std::sync::Arc;

const NOW_MS: u64 = 1_000_000_000;
const NODES: u8 = 12;
const ROUNDS: usize = 1_000;
/// A naive node's rounds: more add nothing but packets.
const NAIVE_ROUNDS: usize = 20;

type Node = Learner<LocalMailbox<MemoryStore>>;

fn domain() -> Domain {
    let kernel = Kernel::gaussian(5.0).to_toml();
    let text = format!(
        r#"
format = 1
name = "echo"
[schema]
time_step = "1s"
levels = 256
[[feature]]
name = "x"
kind = "numeric"
centre = 0
scale = 1
[[outcome]]
name = "bad"
kind = "binary"
direction = "lower"
[[view]]
name = "plain"
level = 90
prior = {{ cases = 1 }}
{kernel}
"#
    );
    Domain::parse("echo.toml", &text).unwrap_or_else(|error| panic!("{error:?}"))
}

/// The chance that the world has at x.
fn truth(x: f64) -> f64 {
    0.15 + 0.7 / (1.0 + (-2.0 * x).exp())
}

fn situation(question: usize) -> f64 {
    -1.8 + 0.15 * question as f64
}

const QUESTIONS: usize = 25;

fn cases(domain: &Domain, rows: &str, purpose: Purpose) -> Vec<Case> {
    let bytes: qis::domain::table::Bytes = Box::new(std::io::Cursor::new(rows.as_bytes().to_vec()));
    let table = Table::from_bytes("echo.csv", bytes, domain, purpose).unwrap();
    Case::read_all(table, &domain.schema, NOW_MS - 1_000).unwrap()
}

/// A swarm with some evidence: 12 nodes with 60 cases each.
struct World {
    domain: Domain,
    nodes: Vec<Node>,
    questions: Vec<Case>,
}

impl World {
    async fn new() -> World {
        let domain = domain();
        let choice = Choice { backend: Backend::Cpu, adapter: None, threads: Some(2) };
        let engine = Arc::new(Engine::new(&choice).unwrap());
        let (schema, view) = (Arc::new(domain.schema.clone()), Arc::new(domain.views[0].clone()));
        let store = Arc::new(MemoryStore::new([9; 32]));
        let mailbox = LocalMailbox::new(store, Admission::default().carry_any_schema(), || NOW_MS);
        let mut nodes: Vec<Node> = (0..NODES)
            .map(|node| {
                let key = AuthorKey::from_seed([node + 1; 32]);
                Learner::new(mailbox.clone(), schema.clone(), view.clone(), engine.clone(), key, 0)
            })
            .collect();
        for (number, node) in nodes.iter_mut().enumerate() {
            let mut rows = String::from("x,bad\n");
            for case in 0..60 {
                let hash = blake3::hash(&[number as u8, case]);
                let share = |at: usize| {
                    f64::from(u16::from_le_bytes([hash.as_bytes()[at], hash.as_bytes()[at + 1]])) / 65_536.0
                };
                let x = 4.0 * share(0) - 2.0;
                rows += &format!("{x},{}\n", u8::from(share(2) < truth(x)));
            }
            let groups: Vec<Vec<Case>> =
                cases(&domain, &rows, Purpose::Evidence).into_iter().map(|case| vec![case]).collect();
            node.observe(&groups).await.unwrap();
        }
        let rows: String = (0..QUESTIONS).map(|question| format!("{}\n", situation(question))).collect();
        let questions = cases(&domain, &format!("x\n{rows}"), Purpose::Questions);
        World { domain, nodes, questions }
    }

    async fn ask(&mut self) -> Vec<Answer> {
        self.nodes[0].ask(&self.questions, NOW_MS).await.unwrap()
    }

    fn mailbox(&self) -> Vec<Verified> {
        self.nodes[0].packets(&self.nodes[0].addresses(&self.questions[0]))
    }
}

/// What a round shows: effective cases and width in the mean, and how many intervals cover the truth.
fn line(what: &str, round: usize, answers: &[Answer], packets: &[Verified]) -> (f64, f64, f64) {
    let mean = |of: &dyn Fn(&Answer) -> f64| answers.iter().map(of).sum::<f64>() / answers.len() as f64;
    let interval = |answer: &Answer| answer.outcomes[0].unwrap();
    let cases = mean(&|answer| answer.effective_cases);
    let width = mean(&|answer| interval(answer).upper - interval(answer).lower);
    let covered = answers.iter().enumerate().filter(|(question, answer)| {
        let (e, truth) = (interval(answer), truth(situation(*question)));
        (e.lower..=e.upper).contains(&truth)
    });
    let coverage = covered.count() as f64 / answers.len() as f64;
    let of = |kind: Kind| packets.iter().filter(|packet| packet.kind() == kind).count();
    eprintln!(
        "{what:<10} round {round:>4}: {:>5} observed, {:>6} syntheses; {cases:>10.1} effective cases, width {width:.4}, {:>3.0}% covered",
        of(Kind::Observed),
        of(Kind::Synthesis),
        100.0 * coverage,
    );
    (cases, width, coverage)
}

/// 1,000 rounds in which nodes deposit their public answers, and each other's again: not one bit of
/// any answer changes.
#[tokio::test]
async fn a_thousand_rounds_of_syntheses_change_no_bit() {
    let mut world = World::new().await;
    let first = world.ask().await;
    let packets = world.mailbox();
    let (_, _, coverage) = line("honest", 0, &first, &packets);
    assert!(coverage >= 0.8, "the test's own world: {coverage}");
    for round in 1..=ROUNDS {
        // Three nodes publish, a fourth deposits what it has pulled again, twice.
        for turn in 0..3 {
            let question = world.questions[(round * 3 + turn) % QUESTIONS].clone();
            let node = &mut world.nodes[(round + turn) % usize::from(NODES)];
            let receipts = node.publish(&question, None, NOW_MS).await.unwrap();
            assert!(receipts.is_some());
        }
        let other = (round + 5) % usize::from(NODES);
        let addresses = world.nodes[other].addresses(&world.questions[0]);
        world.nodes[other].pull(&addresses).await.unwrap();
        let known = world.nodes[other].packets(&addresses);
        let syntheses = known.iter().rev().filter(|packet| packet.kind() == Kind::Synthesis).take(4);
        let again: Vec<Verified> = syntheses.copied().collect();
        world.nodes[other].deposit(&again).await.unwrap();
        world.nodes[other].deposit(&again).await.unwrap();
        if round % 50 == 0 || round < 5 {
            let now = world.ask().await;
            assert!(now == first, "round {round}: an answer has changed");
        }
        if [1, 10, 100, ROUNDS].contains(&round) {
            let now = world.ask().await;
            line("honest", round, &now, &world.mailbox());
        }
    }
    let packets = world.mailbox();
    let syntheses = packets.iter().filter(|packet| packet.kind() == Kind::Synthesis).count();
    // How many a mailbox keeps is the store's affair; that some lie there is the test's.
    assert!(syntheses >= QUESTIONS, "{syntheses}");
    // Somebody who starts now, with all of them in the mailbox, gets the same bits.
    let mut fresh = World::new().await;
    fresh.nodes[3].deposit(&packets).await.unwrap();
    assert!(fresh.ask().await == first, "a newcomer's answers");
    let observed = |packets: &[Verified]| packets.iter().filter(|p| p.kind() == Kind::Observed).count();
    assert_eq!(observed(&packets), usize::from(NODES) * 60);
}

/// The same world with nodes that deposit their answers as observations of as many cases as stood
/// behind them: evidence explodes, intervals shrink to nothing and miss the truth.
#[tokio::test]
async fn answers_that_pose_as_observations_collapse() {
    let mut world = World::new().await;
    let first = world.ask().await;
    let (cases_before, width_before, coverage_before) = line("naive", 0, &first, &world.mailbox());
    let mut last = (0.0, 0.0, 0.0);
    let schema = world.domain.schema.id();
    for round in 1..=NAIVE_ROUNDS {
        for node in 0..usize::from(NODES) {
            let answers = world.nodes[node].ask(&world.questions, NOW_MS).await.unwrap();
            let key = AuthorKey::from_seed([node as u8 + 1; 32]);
            let mut packets = vec![];
            for (question, (case, answer)) in world.questions.iter().zip(&answers).enumerate() {
                let finished = answer.outcomes[0].unwrap().finished;
                let mut values = [None; OUTCOMES_MAX];
                let mean = finished.estimate * 65_535.0;
                let spread = (finished.estimate * (1.0 - finished.estimate)).sqrt() * 65_535.0;
                let cases = (finished.effective_cases as u16).clamp(1, 4_095);
                values[0] = Some((mean as u16, if cases == 1 { 0 } else { spread as u16 }));
                let draft = Draft {
                    values,
                    cases,
                    observed_at: NOW_MS - 1_000,
                    sequence: (10_000 + round * 100 + question) as u32,
                    reference: key.evidence_id(&schema, &format!("{round}/{question}")),
                    signal: case.signal,
                    scope: case.scope,
                    ..Draft::new(Kind::Observed, schema, 1)
                };
                packets.push(key.sign(&draft).unwrap());
            }
            world.nodes[node].deposit(&packets).await.unwrap();
        }
        let now = world.ask().await;
        if [1, 2, 5, 10, NAIVE_ROUNDS].contains(&round) {
            last = line("naive", round, &now, &world.mailbox());
        }
    }
    let (cases, width, coverage) = last;
    assert!(cases > 500.0 * cases_before, "{cases} effective cases after {cases_before}");
    assert!(width < width_before / 4.0, "{width} after {width_before}");
    assert!(coverage < coverage_before / 2.0, "{coverage} after {coverage_before}");
}
