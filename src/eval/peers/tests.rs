use super::*;
use crate::distill::{Case, Distiller};
use crate::domain::Domain;
use crate::limits::OUTCOMES_MAX;
use crate::packet::{AuthorKey, Verified};
use std::sync::Arc;

const DOMAIN: &str = r#"
format = 1
name = "line"
[schema]
time_step = "1d"
[[feature]]
name = "a"
kind = "numeric"
centre = 0
scale = 1
missing = "refuse"
[[feature]]
name = "b"
kind = "numeric"
centre = 0
scale = 1
missing = "refuse"
[[outcome]]
name = "y"
kind = "KIND"
RANGE
direction = "higher"
[[view]]
name = "default"
prior = { kind = "mean", cases = 1.0 }
kernel = { table = [1] }
"#;

fn schema(binary: bool) -> Schema {
    let (kind, range) = if binary { ("binary", "") } else { ("real", "range = [0, 1]") };
    let text = DOMAIN.replace("KIND", kind).replace("RANGE", range);
    Domain::parse("line.toml", &text).map(|domain| domain.schema).unwrap_or_else(|e| panic!("{e:?}"))
}

/// Packets of some nodes from (signal, outcome) pairs, dealt in turn.
fn packets(schema: &Schema, nodes: usize, rows: &[([i8; 2], f64)]) -> Vec<Vec<Verified>> {
    let schema = Arc::new(schema.clone());
    let own = |node: usize| {
        let mut distiller = Distiller::new(AuthorKey::from_seed([node as u8 + 1; 32]), schema.clone(), 0);
        let own = rows.iter().enumerate().filter(|(index, _)| index % nodes == node);
        own.map(|(index, (slots, y))| distiller.observe(&[&case(index, *slots, *y)]).unwrap()).collect()
    };
    (0..nodes).map(own).collect()
}

fn case(index: usize, slots: [i8; 2], y: f64) -> Case {
    let mut signal = [0; SLOTS];
    signal[..2].copy_from_slice(&slots);
    let mut values = [None; OUTCOMES_MAX];
    values[0] = Some((y * 65_535.0) as u16);
    Case {
        row: index as u64 + 1,
        signal,
        scope: [0; 32],
        values,
        truth: vec![Some(y)],
        action: None,
        site: None,
        record: index.to_string(),
        observed_at: 0,
    }
}

fn grid() -> Vec<[i8; 2]> {
    (0..400).map(|i| [(i * 37 % 101 - 50) as i8, (i * 53 % 97 - 48) as i8]).collect()
}

fn first(found: &[Vec<Option<f64>>]) -> Vec<f64> {
    found.iter().map(|row| row[0].unwrap()).collect()
}

fn signals(slots: &[[i8; 2]]) -> Vec<[i8; SLOTS]> {
    slots.iter().map(|&slots| case(0, slots, 0.0).signal).collect()
}

#[test]
fn linear_outcomes_are_found_by_ridge_and_by_averaging() {
    let schema = schema(false);
    let line = |[a, b]: [i8; 2]| 0.5 + f64::from(a) * 0.006 - f64::from(b) * 0.002;
    let rows: Vec<([i8; 2], f64)> = grid().into_iter().map(|slots| (slots, line(slots))).collect();
    let training = Training::new(&packets(&schema, 8, &rows));
    let asked = [[30, 10], [-20, 40], [0, 0]];
    for (peer, tolerance) in [(Peer::Ridge, 1e-3), (Peer::FedAvg, 5e-3)] {
        let found = first(&peer.predict(&schema, &training, &signals(&asked)));
        for (slots, found) in asked.iter().zip(found) {
            assert!((found - line(*slots)).abs() < tolerance, "{peer:?} {slots:?}: {found}");
        }
    }
    let mean = rows.iter().map(|row| row.1).sum::<f64>() / rows.len() as f64;
    let found = first(&Peer::PooledMean.predict(&schema, &training, &signals(&asked)));
    assert!(found.iter().all(|x| (x - mean).abs() < 1e-4));
}

#[test]
fn averaging_finds_a_logistic_rate() {
    let schema = schema(true);
    // Five rows a place, whose share of ones is close to the rate.
    let rate = |[a, _]: [i8; 2]| logistic(f64::from(a) * 0.05);
    let rows: Vec<([i8; 2], f64)> = (0..2000)
        .map(|i| {
            let slots = grid()[i % 400];
            (slots, f64::from((i / 400) as f64 + 0.5 < 5.0 * rate(slots)))
        })
        .collect();
    let training = Training::new(&packets(&schema, 10, &rows));
    let found = first(&Peer::FedAvg.predict(&schema, &training, &signals(&[[40, 0], [-40, 0], [0, 0]])));
    assert!(found[0] > 0.8 && found[1] < 0.2 && (found[2] - 0.5).abs() < 0.05, "{found:?}");
}

/// One class, one node, one packet, slots that never vary: everybody says the mean.
#[test]
fn what_cannot_be_fitted_is_the_mean() {
    let schema = schema(true);
    let asked = signals(&[[30, 10], [-20, 40]]);
    for rows in [vec![([5, 5], 1.0)], vec![([5, 5], 1.0), ([5, 5], 0.0)], vec![([5, 1], 1.0), ([1, 5], 1.0)]]
    {
        let mean = rows.iter().map(|row| row.1).sum::<f64>() / rows.len() as f64;
        let training = Training::new(&packets(&schema, 1, &rows));
        for peer in [Peer::PooledMean, Peer::Ridge] {
            let found = first(&peer.predict(&schema, &training, &asked));
            assert!(found.iter().all(|x| (x - mean).abs() < 1e-6), "{peer:?} {rows:?}: {found:?}");
        }
        let found = first(&Peer::FedAvg.predict(&schema, &training, &asked));
        assert!(found.iter().all(|x| (0.0..=1.0).contains(x)), "{found:?}");
    }
    let nothing = Training::new(&[vec![], vec![]]);
    assert_eq!(Peer::Ridge.predict(&schema, &nothing, &asked), vec![vec![None]; 2]);
}
