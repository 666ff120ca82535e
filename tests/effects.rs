//! Effects of treatments by subgroup, from packets, beside the trial's own figures.
//!
//! `cargo test --release --test effects -- --nocapture` prints the table. The trial is ACTG 175: 2,139
//! patients, four treatments dealt out by chance. Its rows are dealt to 32 nodes, each of which deposits
//! one packet a patient; a subgroup's effect is asked for with the subgroup's rows as situations.

use ndarray::ArrayView2;
use qis::distill::{Case, Distiller};
use qis::domain::{Domain, Purpose, Row, Table, Value};
use qis::embed::cpu::embed_one;
use qis::engine::{Backend, Choice, Engine};
use qis::limits::SLOTS;
use qis::merge::effect::{Effect, difference};
use qis::merge::robust::{Nearness, Pair, Propensity, Surroundings, effect};
use qis::merge::{Batch, Question, live};
use qis::packet::{AuthorKey, Verified};
use std::path::Path;
use std::sync::Arc;

const NODES: usize = 32;

fn trial() -> Option<(Domain, Vec<Row>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var("QIS_DATA_DIR").map_or_else(|_| root.join("../shared/data"), Into::into);
    let path = folder.join("actg175/ACTG175.txt");
    if !path.exists() {
        eprintln!("SKIPPED: no {}; set QIS_DATA_DIR (datasets/MANIFEST.toml)", path.display());
        return None;
    }
    let domain = Domain::load(root.join("datasets/actg175.toml")).unwrap();
    let rows = Table::open(path, &domain, Purpose::Evidence).unwrap().map(Result::unwrap).collect();
    Some((domain, rows))
}

/// Name, and whether a row belongs.
type Subgroup = (String, Box<dyn Fn(&Row) -> bool>);

fn subgroups(domain: &Domain) -> Vec<Subgroup> {
    let index = |name: &str| domain.schema.features.iter().position(|f| f.name == name).unwrap();
    let mut groups: Vec<Subgroup> = vec![("all".into(), Box::new(|_: &Row| true))];
    for name in [
        "male",
        "non_white",
        "homosexual_activity",
        "injected_drugs",
        "haemophilia",
        "symptomatic",
        "zidovudine_in_30_days_before",
    ] {
        let at = index(name);
        for wanted in [true, false] {
            groups.push((
                format!("{name} = {wanted}"),
                Box::new(move |row: &Row| row.values[at] == Value::Bool(wanted)),
            ));
        }
    }
    let at = index("therapy_history");
    for level in 0..3 {
        groups.push((
            format!("therapy_history = {}", level + 1),
            Box::new(move |row: &Row| row.values[at] == Value::Level(level)),
        ));
    }
    for (name, border) in [("age", 35.0), ("cd4_count", 350.0), ("karnofsky_score", 95.0)] {
        let at = index(name);
        for below in [true, false] {
            groups.push((
                format!("{name} {} {border}", if below { "<" } else { ">=" }),
                Box::new(
                    move |row: &Row| matches!(row.values[at], Value::Number(x) if (x < border) == below),
                ),
            ));
        }
    }
    groups
}

/// The difference of plain means among some rows, with the interval of Welch.
fn plain(rows: &[&Row], pair: Pair) -> Effect {
    let side = |action: u16| {
        let of = rows.iter().filter(|row| row.action == Some(action));
        let values: Vec<f64> = of.map(|row| row.outcome_numbers[pair.outcome].unwrap()).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / (n - 1.0) / n;
        (mean, variance, n)
    };
    let ((a, va, na), (b, vb, nb)) = (side(pair.action), side(pair.against));
    let degrees = (va + vb) * (va + vb) / (va * va / (na - 1.0) + vb * vb / (nb - 1.0));
    Effect::new(a - b, (va + vb).sqrt(), degrees, 90)
}

fn packets(domain: &Domain, rows: &[Row]) -> (Vec<Case>, Vec<Verified>) {
    let schema = Arc::new(domain.schema.clone());
    let cases: Vec<Case> = rows.iter().map(|row| Case::new(&schema, row.clone(), 0)).collect();
    let mut nodes: Vec<Distiller> = (0..NODES)
        .map(|node| Distiller::new(AuthorKey::from_seed([node as u8 + 1; 32]), schema.clone(), 0))
        .collect();
    let deal = |case: &Case| usize::from(blake3::hash(case.record.as_bytes()).as_bytes()[0]) % NODES;
    let packets = cases.iter().map(|case| nodes[deal(case)].observe(&[case]).unwrap()).collect();
    (cases, packets)
}

#[test]
fn subgroup_effects_are_those_of_the_trial() {
    let Some((domain, rows)) = trial() else { return };
    let (schema, view) = (&domain.schema, &domain.views[0]);
    let (cases, packets) = packets(&domain, &rows);
    let choice = Choice { backend: Backend::Cpu, adapter: None, threads: Some(2) };
    let engine = Engine::new(&choice).unwrap();
    let batch = Batch::new(live(&packets, 1), 1, |signals| engine.embed(&view.metric, signals));
    let question = Question { schema, view, batch: &batch, ask_ms: 1 };
    let around = Surroundings::new(question, |job| engine.merge(job)).unwrap();
    let design = Propensity::Known(vec![0.25; 4]);
    let pairs: Vec<Pair> = (1..4).map(|action| Pair { outcome: 0, action, against: 0 }).collect();

    eprintln!(
        "{:<40} {:<28} {:>5} {:>26} {:>26} {:>26} {:>6}",
        "subgroup",
        "against zidovudine",
        "rows",
        "trial's plain means",
        "packets, design known",
        "chances estimated",
        "width"
    );
    let (mut compared, mut held, mut held_estimated, mut wide) = (0, 0, 0, 0);
    let mut failed = vec![];
    let groups: Vec<(String, Vec<&Row>, Nearness)> = subgroups(&domain)
        .into_iter()
        .map(|(name, belongs)| {
            let (mut near, mut members) = (Nearness::default(), vec![]);
            for (row, case) in rows.iter().zip(&cases).filter(|(row, _)| belongs(row)) {
                members.push(row);
                let query = embed_one(&view.metric, &case.signal);
                assert!(near.add_of_many(&question, &around, &query));
            }
            (name, members, near)
        })
        .collect();
    for pair in pairs {
        let scores = [&design, &Propensity::Estimated].map(|p| around.scores(&question, pair, p).unwrap());
        for (name, members, near) in &groups {
            let trial = plain(members, pair);
            let [known, estimated] =
                [0, 1].map(|index| effect([(near, &scores[index])], view.level).unwrap());
            let inside = |effect: &Effect| (effect.lower..=effect.upper).contains(&trial.estimate);
            let width = (known.upper - known.lower) / (trial.upper - trial.lower);
            let shown = |e: &Effect| format!("{:+.3} ({:+.3} to {:+.3})", e.estimate, e.lower, e.upper);
            let good = inside(&known) && width <= 1.5;
            eprintln!(
                "{name:<40} {:<28} {:>5} {:>26} {:>26} {:>26} {width:>6.2}{}",
                schema.actions[usize::from(pair.action)],
                members.len(),
                shown(&trial),
                shown(&known),
                shown(&estimated),
                if good { "" } else { "  <- fails" },
            );
            compared += 1;
            held += usize::from(inside(&known));
            held_estimated += usize::from(inside(&estimated));
            wide += usize::from(width > 1.5);
            if !good {
                failed.push((name, pair.action));
            }
        }
    }
    eprintln!(
        "{compared} comparisons: the trial's estimate lies inside {held} intervals (chances estimated: {held_estimated}), {wide} are wider than 1.5 times the trial's; fails: {failed:?}"
    );
    assert!(compared >= 70);
    assert_eq!(wide, 0);
    assert!(held * 100 >= compared * 95, "{held} of {compared}");
    assert!(held_estimated * 100 >= compared * 95, "{held_estimated} of {compared}");
}

/// Where who is treated depends on the situation within the kernel's reach, the plain difference is
/// biased and the corrected one is not.
#[test]
fn unlike_cases_are_corrected() {
    let kernel = qis::domain::Kernel::gaussian(30.0).to_toml();
    let text = format!(
        r#"
format = 1
name = "logged"
[schema]
time_step = "1s"
levels = 256
actions = ["wait", "treat"]
[[feature]]
name = "x"
kind = "numeric"
centre = 0
scale = 1
[[outcome]]
name = "y"
kind = "real"
range = [0, 1]
direction = "lower"
[[view]]
name = "plain"
prior = {{ cases = 1 }}
{kernel}
"#
    );
    let domain = Domain::parse("logged.toml", &text).unwrap();
    let (schema, view) = (Arc::new(domain.schema.clone()), &domain.views[0]);
    // The sicker (larger x), the more often treated, and the worse off anyway; the effect is -0.1.
    let mut rows = String::from("x,action,y\n");
    let uniform = |at: usize, of: u32| {
        let hash = blake3::hash(&of.to_le_bytes());
        f64::from(u16::from_le_bytes([hash.as_bytes()[at], hash.as_bytes()[at + 1]])) / 65_536.0
    };
    for case in 0..1_500u32 {
        let x = 4.0 * uniform(0, case) - 2.0;
        let treated = uniform(2, case) < 1.0 / (1.0 + (-1.5 * x).exp());
        let y = 0.5 + 0.18 * x - 0.1 * f64::from(u8::from(treated)) + 0.04 * (uniform(4, case) - 0.5);
        rows += &format!("{x},{},{y}\n", if treated { "treat" } else { "wait" });
    }
    let bytes: qis::domain::table::Bytes = Box::new(std::io::Cursor::new(rows.into_bytes()));
    let table = Table::from_bytes("logged.csv", bytes, &domain, Purpose::Evidence).unwrap();
    let cases = Case::read_all(table, &schema, 0).unwrap();
    let mut nodes: Vec<Distiller> = (0..NODES)
        .map(|node| Distiller::new(AuthorKey::from_seed([node as u8 + 1; 32]), schema.clone(), 0))
        .collect();
    let packets: Vec<Verified> = cases
        .iter()
        .enumerate()
        .map(|(number, case)| nodes[number % NODES].observe(&[case]).unwrap())
        .collect();
    let engine = Engine::new(&Choice { backend: Backend::Cpu, ..Choice::default() }).unwrap();
    let batch = Batch::new(live(&packets, 1), 1, |signals| engine.embed(&view.metric, signals));
    let question = Question { schema: &schema, view, batch: &batch, ask_ms: 1 };
    let pair = Pair { outcome: 0, action: 1, against: 0 };
    let around = Surroundings::new(question, |job| engine.merge(job)).unwrap();
    let scores = around.scores(&question, pair, &Propensity::Estimated).unwrap();
    let query = embed_one(&view.metric, &schema.signal(&[Value::Number(0.0)]));
    let row = ArrayView2::from_shape((1, SLOTS), query.as_slice()).unwrap();
    let answer = &engine.answer(question, qis::merge::Situations::public(row, row))[0];
    let of = |action: usize| answer.actions[action].1[0].unwrap().finished;
    let plain = difference(&of(1), &of(0), 90);
    let mut here = Nearness::default();
    assert!(here.add(&question, &around, &query, 1));
    let robust = effect([(&here, &scores)], 90).unwrap();
    eprintln!(
        "truth -0.1; difference of estimates {:+.3}, corrected {:+.3} ({:+.3} to {:+.3})",
        plain.estimate, robust.estimate, robust.lower, robust.upper
    );
    assert!((plain.estimate + 0.1).abs() > 0.05, "the test's own world: {plain:?}");
    assert!((robust.estimate + 0.1).abs() < (plain.estimate + 0.1).abs() / 2.5, "{robust:?}");
    // The same once more is the same bits; nobody within reach is no effect.
    let mut again = Nearness::default();
    again.add(&question, &around, &query, 1);
    assert_eq!(effect([(&again, &scores)], 90), Some(robust));
    let far = embed_one(&view.metric, &[-127; SLOTS]);
    assert!(!Nearness::default().add_of_many(&question, &around, &far));
    assert_eq!(effect([(&Nearness::default(), &scores)], 90), None);
}
