//! Who gets which rows: splits and nodes, from a seed.

use crate::distill::Case;
use rand::prelude::*;
use rand_chacha::ChaCha12Rng;
use rand_distr::{Distribution, Gamma};
use std::collections::{BTreeMap, BTreeSet};

/// How training rows become nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Nodes {
    /// One node per site; rows without one share a node.
    Sites,
    /// The nodes of so many sites, drawn by the seed; a larger number takes those of a smaller one and more.
    SomeSites { count: usize },
    /// `count` nodes with `rows` rows each, or all rows dealt out; `dirichlet` makes each node's mix
    /// of classes uneven (smaller is more uneven).
    Drawn { count: usize, rows: Option<usize>, dirichlet: Option<f64> },
}

/// A generator for one purpose of one seed; purposes do not disturb each other.
pub fn generator(seed: u64, purpose: &str) -> ChaCha12Rng {
    let mut hasher = blake3::Hasher::new_derive_key("qis 1 eval seed");
    hasher.update(&seed.to_le_bytes()).update(purpose.as_bytes());
    ChaCha12Rng::from_seed(hasher.finalize().into())
}

/// Indices of training rows (70%, rounded) and test rows, each ascending.
pub fn split(rows: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut generator(seed, "split"));
    let train = (rows * 7 + 5) / 10;
    let (train, test) = order.split_at(train);
    let sorted = |part: &[usize]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part
    };
    (sorted(train), sorted(test))
}

/// As [`split`], but whole sites are training or test: 70% of the sites (rounded, at least one) with all their rows.
/// Rows without a site are each their own.
pub fn split_by_site(sites: &[Option<&str>], seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut groups: BTreeMap<(Option<&str>, usize), Vec<usize>> = BTreeMap::new();
    for (row, site) in sites.iter().enumerate() {
        groups.entry((*site, if site.is_some() { 0 } else { row })).or_default().push(row);
    }
    let groups: Vec<Vec<usize>> = groups.into_values().collect();
    let (train, test) = split(groups.len(), seed);
    let rows = |chosen: Vec<usize>| {
        let mut rows: Vec<usize> =
            chosen.into_iter().flat_map(|group| groups[group].iter().copied()).collect();
        rows.sort_unstable();
        rows
    };
    (rows(train), rows(test))
}

/// The training rows of each node: indices into `cases`. Nodes may be empty.
pub fn deal(cases: &[Case], train: &[usize], nodes: Nodes, seed: u64) -> Vec<Vec<usize>> {
    match nodes {
        Nodes::Sites => by_site(cases, train),
        Nodes::SomeSites { count } => {
            let all = by_site(cases, train);
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.shuffle(&mut generator(seed, "sites"));
            order.truncate(count);
            order.sort_unstable();
            order.into_iter().map(|node| all[node].clone()).collect()
        }
        Nodes::Drawn { count, rows, dirichlet } => {
            let mut generator = generator(seed, "nodes");
            let mut order = train.to_vec();
            order.shuffle(&mut generator);
            let limit = rows.map_or(order.len(), |rows| rows.saturating_mul(count).min(order.len()));
            match dirichlet {
                None => deal_evenly(&order[..limit], count),
                Some(concentration) => {
                    deal_unevenly(cases, &order, count, limit, concentration, &mut generator)
                }
            }
        }
    }
}

/// The rows of each site, in the order of the sites' names.
fn by_site(cases: &[Case], train: &[usize]) -> Vec<Vec<usize>> {
    let mut by_site: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    for &row in train {
        by_site.entry(cases[row].site.as_deref()).or_default().push(row);
    }
    by_site.into_values().collect()
}

fn deal_evenly(order: &[usize], count: usize) -> Vec<Vec<usize>> {
    let mut nodes = vec![vec![]; count];
    for (turn, &row) in order.iter().enumerate() {
        nodes[turn % count].push(row);
    }
    nodes
}

/// Every node draws its own mix of classes from a Dirichlet distribution and fills it from what is
/// left of each class; nodes take turns, so that none is left with the leftovers alone.
fn deal_unevenly(
    cases: &[Case],
    order: &[usize],
    count: usize,
    limit: usize,
    concentration: f64,
    generator: &mut ChaCha12Rng,
) -> Vec<Vec<usize>> {
    let mut classes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for &row in order {
        classes.entry(class(&cases[row])).or_default().push(row);
    }
    let mut left: Vec<Vec<usize>> = classes.into_values().collect();
    // A Dirichlet draw is independent Gamma draws over their sum; the sum cancels in the choice below.
    let gamma = Gamma::new(concentration.max(1e-3), 1.0).expect("a positive shape");
    let mixes: Vec<Vec<f64>> =
        (0..count).map(|_| left.iter().map(|_| gamma.sample(generator).max(1e-300)).collect()).collect();
    let mut nodes = vec![vec![]; count];
    for turn in 0..limit {
        let mix = &mixes[turn % count];
        let chance = |class: usize| if left[class].is_empty() { 0.0 } else { mix[class] };
        let total: f64 = (0..left.len()).map(chance).sum();
        let mut mark = generator.random::<f64>() * total;
        let mut choice = left.iter().position(|class| !class.is_empty());
        for class in (0..left.len()).filter(|&class| !left[class].is_empty()) {
            choice = Some(class);
            mark -= mix[class];
            if mark < 0.0 {
                break;
            }
        }
        if let Some(row) = choice.and_then(|class| left[class].pop()) {
            nodes[turn % count].push(row);
        }
    }
    nodes
}

/// The class of a case: which outcomes are in the upper half of their range.
fn class(case: &Case) -> u64 {
    case.values.iter().enumerate().fold(0, |bits, (i, value)| bits | u64::from(*value > Some(32_767)) << i)
}

/// The node that asks about each test row: its site's, else a seeded random one.
pub fn askers(cases: &[Case], test: &[usize], nodes: &[Vec<usize>], by_site: bool, seed: u64) -> Vec<usize> {
    let mut generator = generator(seed, "askers");
    let sites: BTreeMap<&str, usize> = match by_site {
        false => BTreeMap::new(),
        true => nodes
            .iter()
            .enumerate()
            .filter_map(|(node, rows)| Some((cases[*rows.first()?].site.as_deref()?, node)))
            .collect(),
    };
    test.iter()
        .map(|&row| {
            // Drawn for every row, so that one site more or less moves no other row.
            let random = generator.random_range(0..nodes.len().max(1));
            cases[row].site.as_deref().and_then(|site| sites.get(site).copied()).unwrap_or(random)
        })
        .collect()
}

/// Whether each test row comes from a site that has a node.
pub fn at_home(cases: &[Case], test: &[usize], nodes: &[Vec<usize>]) -> Vec<bool> {
    let site = |row: usize| cases[row].site.as_deref();
    let sites: BTreeSet<&str> = nodes.iter().filter_map(|rows| site(*rows.first()?)).collect();
    test.iter().map(|&row| site(row).is_some_and(|site| sites.contains(site))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{OUTCOMES_MAX, SLOTS};

    fn case(row: u64, class: usize) -> Case {
        let mut values = [None; OUTCOMES_MAX];
        values[class] = Some(65_535);
        Case {
            row,
            signal: [0; SLOTS],
            scope: [0; 32],
            values,
            truth: vec![],
            action: None,
            site: Some(format!("s{}", row % 3)),
            record: row.to_string(),
            observed_at: 0,
        }
    }

    fn cases() -> Vec<Case> {
        (0..200).map(|row| case(row, row as usize % 4)).collect()
    }

    #[test]
    fn a_split_is_seven_tenths_without_overlap() {
        let (train, test) = split(101, 5);
        assert_eq!((train.len(), test.len()), (71, 30));
        let mut all = [train.clone(), test].concat();
        all.sort_unstable();
        assert_eq!(all, (0..101).collect::<Vec<_>>());
        assert_eq!(split(101, 5).0, train);
        assert_ne!(split(101, 6).0, train);
    }

    #[test]
    fn sites_are_not_torn() {
        let names: Vec<String> = (0..90).map(|row| format!("s{}", row % 9)).collect();
        let sites: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
        let (train, test) = split_by_site(&sites, 4);
        assert_eq!((train.len(), test.len()), (60, 30));
        let of = |rows: &[usize]| rows.iter().map(|row| row % 9).collect::<BTreeSet<_>>();
        assert!(of(&train).is_disjoint(&of(&test)));
    }

    #[test]
    fn dealing_gives_every_row_once_and_dirichlet_makes_nodes_uneven() {
        let (cases, train) = (cases(), (0..200).collect::<Vec<_>>());
        let largest_class_share = |dirichlet| {
            let nodes = deal(&cases, &train, Nodes::Drawn { count: 10, rows: Some(12), dirichlet }, 3);
            let mut all = nodes.concat();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), 120, "each row at most once, twelve a node");
            let share = |rows: &Vec<usize>| {
                (0..4).map(|c| rows.iter().filter(|&r| r % 4 == c).count()).max().unwrap()
            };
            nodes.iter().map(share).sum::<usize>()
        };
        assert!(largest_class_share(Some(0.1)) > largest_class_share(None) + 20);
    }

    #[test]
    fn more_sites_are_the_fewer_ones_and_others() {
        let (cases, train) = (cases(), (0..100).collect::<Vec<_>>());
        let some = |count| deal(&cases, &train, Nodes::SomeSites { count }, 1);
        let all = deal(&cases, &train, Nodes::Sites, 1);
        assert_eq!((some(1).len(), some(2).len(), some(9)), (1, 2, all));
        assert!(some(2).contains(&some(1)[0]));
    }

    #[test]
    fn a_test_row_is_asked_by_its_site() {
        let cases = cases();
        let nodes = deal(&cases, &(0..100).collect::<Vec<_>>(), Nodes::Sites, 0);
        assert_eq!(nodes.len(), 3);
        let test: Vec<usize> = (100..110).collect();
        assert_eq!(
            askers(&cases, &test, &nodes, true, 0),
            test.iter().map(|row| row % 3).collect::<Vec<_>>()
        );
    }
}
