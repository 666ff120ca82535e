use super::*;
use crate::domain::{Domain, Purpose, Table};
use crate::engine::{Backend, Choice};
use poison::{FLOOD_COPIES, dishonest};
use std::path::Path;

fn domain(name: &str) -> (Domain, Vec<Case>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
    let domain = Domain::load(folder.join(format!("{name}.toml"))).unwrap_or_else(|e| panic!("{e}"));
    let table = Table::open(folder.join(format!("{name}.csv")), &domain, Purpose::Evidence).unwrap();
    let cases = Case::read_all(table, &domain.schema, 0).unwrap();
    (domain, cases)
}

fn engine() -> Engine {
    Engine::new(&Choice { backend: Backend::Cpu, threads: Some(2), ..Choice::default() }).unwrap()
}

const EIGHT: Nodes = Nodes::Drawn { count: 8, rows: None, dirichlet: None };

/// Each kind tells others what it says, and honest nodes' packets stay what they were.
#[test]
fn poison_flips_what_it_says() {
    let (domain, cases) = domain("breast_cancer");
    let (schema, engine) = (Arc::new(domain.schema.clone()), engine());
    let ground = Ground { schema: &schema, engine: &engine, outcome: None };
    let (train, test) = split::split(cases.len(), 0);
    let field = Field::new(ground, &cases, (&train, &test), EIGHT, 0).unwrap();
    for kind in [PoisonKind::Flip, PoisonKind::Flood, PoisonKind::Targeted, PoisonKind::Partial] {
        let (poisoned, lies) = field.poisoned(Poison { share: 0.25, kind }).unwrap();
        assert_eq!(lies.iter().filter(|lies| **lies).count(), 2);
        for (node, lies) in lies.iter().enumerate() {
            let (before, after) = (&field.packets[node], &poisoned.packets[node]);
            if !lies {
                assert_eq!(before, after);
                continue;
            }
            let high = |packets: &[crate::packet::Verified]| {
                packets.iter().filter(|packet| packet.value(0).0 > 32_767).count()
            };
            let (all, ill) = (before.len(), high(before));
            let references: std::collections::HashSet<_> =
                after.iter().map(|packet| *packet.reference()).collect();
            assert_eq!(references.len(), after.len(), "each is a record of its own");
            match kind {
                PoisonKind::Flip => assert_eq!((after.len(), high(after)), (all, all - ill)),
                PoisonKind::Flood => {
                    assert_eq!((after.len(), high(after)), (FLOOD_COPIES * all, FLOOD_COPIES * (all - ill)));
                }
                PoisonKind::Targeted => assert_eq!((after.len(), high(after)), (all, 0)),
                PoisonKind::Partial => {
                    let changed = before.iter().zip(after).filter(|(a, b)| a.value(0) != b.value(0)).count();
                    assert_eq!(changed, all / 2);
                }
            }
        }
        let found =
            poison::run(&field, &domain.views[0], None, &[Method::Swarm], Poison { share: 0.25, kind })
                .unwrap();
        let (_, clean, lied) = &found.methods[0];
        // Not the order but the rate suffers when one class is flipped.
        assert!(clean.brier < lied.brier, "{kind:?}: {found:?}");
    }
}

/// A label of several is replaced by the next one, so that a lie still is a possible row.
#[test]
fn a_flipped_label_is_the_next_label() {
    let (domain, cases) = domain("digits");
    let label = |case: &Case| (0..10).filter(|&o| case.values[o] > Some(32_767)).collect::<Vec<_>>();
    let lied = PoisonKind::Flip.cases(&domain.schema, &cases[..50], 0, 0);
    for (honest, lied) in cases.iter().zip(&lied) {
        assert_eq!(label(lied), vec![(label(honest)[0] + 1) % 10]);
    }
    let targeted = PoisonKind::Targeted.cases(&domain.schema, &cases[..50], 0, 0);
    assert!(targeted.iter().all(|case| label(case) != [0]));
    assert!(cases.iter().zip(&targeted).all(|(a, b)| label(a) == [0] || a == b));
}

#[test]
fn the_share_of_liars_is_a_number_of_nodes() {
    let count = |nodes, share| dishonest(nodes, share, 0).iter().filter(|lies| **lies).count();
    assert_eq!((count(10, 0.3), count(10, 0.01), count(2, 0.99), count(1, 0.5)), (3, 1, 1, 1));
    assert!(dishonest(10, 0.2, 0).iter().zip(dishonest(10, 0.4, 0)).all(|(few, many)| !few || many));
}

/// Address bits read fewer packets, and recall says what is lost; a mailbox of everything has none to tell.
#[test]
fn recall_belongs_to_views_with_address_bits() {
    let (domain, cases) = domain("breast_cancer");
    let (schema, engine) = (Arc::new(domain.schema.clone()), engine());
    let ground = Ground { schema: &schema, engine: &engine, outcome: None };
    let (train, test) = split::split(cases.len(), 0);
    let field = Field::new(ground, &cases, (&train, &test), EIGHT, 0).unwrap();
    let mut view = domain.views[0].clone();
    assert_eq!(field.swarm(&view).recall, None);
    let mut of = |probes| {
        view.addressing = crate::domain::Addressing { tables: 4, bits: 6, probes };
        let swarm = field.swarm(&view);
        (swarm.recall.unwrap(), swarm.read_share)
    };
    let (few, many, all) = (of(1), of(8), of(64));
    assert!(few.0 < many.0 && many.0 < all.0 && few.1 < many.1, "{few:?} {many:?} {all:?}");
    assert_eq!(all, (1.0, 1.0), "64 probes of 6 bits are every address");
}

/// Scrambled similarity is worse, and step 0 is the swarm itself.
#[test]
fn scrambling_begins_with_the_view_and_ends_worse() {
    let (domain, cases) = domain("digits");
    let (schema, engine) = (Arc::new(domain.schema.clone()), engine());
    let ground = Ground { schema: &schema, engine: &engine, outcome: None };
    let (train, test) = split::split(cases.len(), 0);
    let field = Field::new(ground, &cases, (&train, &test), EIGHT, 0).unwrap();
    let steps = scramble::run(&field, &domain.views[0], 2);
    let swarm = run(&field, &domain.views, &domain.views[0], &[]).methods.remove(0).metrics;
    assert_eq!(steps[0].metrics, swarm);
    let accuracy: Vec<f64> = steps.iter().map(|step| step.metrics.accuracy.unwrap()).collect();
    assert!(accuracy[0] > accuracy[1] && accuracy[1] > accuracy[2], "{accuracy:?}");
    assert!((steps[2].share - 1.0).abs() < 1e-12);
}

/// A view that competes with itself differs by nothing, in every split.
#[test]
fn a_rival_that_is_the_same_view_draws() {
    let (domain, cases) = domain("breast_cancer");
    let (schema, engine) = (Arc::new(domain.schema.clone()), engine());
    let ground = Ground { schema: &schema, engine: &engine, outcome: None };
    let views = [domain.views[0].clone(), View { name: "other".into(), ..domain.views[0].clone() }];
    let mut of = [vec![], vec![]];
    for seed in 0..3 {
        let (train, test) = split::split(cases.len(), seed);
        let field = Field::new(ground, &cases, (&train, &test), EIGHT, seed).unwrap();
        let found = run(&field, &views, &views[0], &[]);
        assert_eq!(
            found.methods.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(),
            ["swarm", "swarm under other"]
        );
        of.iter_mut().zip(&found.methods).for_each(|(list, method)| list.push(method.metrics));
    }
    let difference = metrics::differences(&of[0], &of[1])["auc"];
    assert_eq!((difference.mean, difference.low, difference.high), (0.0, Some(0.0), Some(0.0)));
}
