use super::lookup::lookup;
use super::tables::{Key, Network};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The definition: every node by its distance.
fn ranked(network: &Network, target: &Key) -> Vec<usize> {
    let mut all: Vec<usize> = (0..network.len()).collect();
    all.sort_by_key(|&node| network.key(node).distance(target));
    all
}

/// Bits that two keys share at their beginning.
fn shared_bits(a: &Key, b: &Key) -> usize {
    (0..256).take_while(|&bit| a.bit(bit) == b.bit(bit)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn closest_and_walks_agree_with_brute_force(nodes in 1usize..300, seed: u64, words: [u64; 4]) {
        let network = Network::new(nodes, seed);
        let target = Key(words);
        let truth = ranked(&network, &target);
        prop_assert_eq!(network.closest(&target, REPLICAS), &truth[..REPLICAS.min(nodes)]);
        for start in [0, nodes / 2, nodes - 1] {
            let mut node = start;
            while let Some(closer) = network.next_hop(node, &target) {
                prop_assert!(network.key(closer).distance(&target) < network.key(node).distance(&target));
                node = closer;
            }
            prop_assert_eq!(node, truth[0]);
        }
    }

    #[test]
    fn buckets_are_draws_from_their_subtrees(nodes in 1usize..400, seed: u64, pick: prop::sample::Index) {
        let network = Network::new(nodes, seed);
        let node = pick.index(nodes);
        let table = network.table(node);
        let mut classes = vec![BTreeSet::new(); 256];
        for other in (0..nodes).filter(|&other| other != node) {
            classes[shared_bits(network.key(node), network.key(other))].insert(other);
        }
        let full: Vec<&BTreeSet<usize>> = classes.iter().filter(|class| !class.is_empty()).collect();
        prop_assert_eq!(full.len(), table.len());
        for (bucket, class) in table.iter().zip(full) {
            let distinct: BTreeSet<usize> = bucket.iter().copied().collect();
            prop_assert_eq!(distinct.len(), class.len().min(BUCKET_CONTACTS));
            prop_assert!(distinct.is_subset(class));
        }
        prop_assert_eq!(&network.table(node), &table, "a table is the same whenever it is looked at");
    }

    #[test]
    fn an_answer_is_the_closest_of_the_table(
        nodes in 2usize..300, seed: u64, words: [u64; 4], pick: prop::sample::Index,
    ) {
        let (network, target) = (Network::new(nodes, seed), Key(words));
        let node = pick.index(nodes);
        let except = (node + 1) % nodes;
        let mut all: Vec<usize> = network.table(node).concat();
        all.retain(|&contact| contact != except);
        all.sort_by_key(|&contact| network.key(contact).distance(&target));
        all.truncate(BUCKET_CONTACTS);
        prop_assert_eq!(network.contacts(node, &target, BUCKET_CONTACTS, except), all);
    }

    #[test]
    fn a_look_up_finds_the_closest(nodes in 2usize..600, seed: u64, words: [u64; 4]) {
        let (network, target) = (Network::new(nodes, seed), Key(words));
        let source = nodes / 3;
        let found = lookup(&network, source, &target, BUCKET_CONTACTS, seed);
        let mut truth = ranked(&network, &target);
        truth.retain(|&node| node != source);
        truth.truncate(REPLICAS);
        prop_assert_eq!(&found.closest[..truth.len()], &truth[..]);
        prop_assert!(found.messages as usize >= found.closest.len());
        prop_assert!(found.messages as usize <= nodes);
    }
}

/// Where buckets are draws: the first hop corrects one bit at least, and no table is ever whole.
#[test]
fn tables_of_a_large_network_stay_small() {
    let network = Network::new(20_000, 3);
    for node in [0, 7_000, 19_999] {
        let contacts: usize = network.table(node).iter().map(Vec::len).sum();
        assert!((100..400).contains(&contacts), "{contacts}");
    }
}

#[test]
fn hops_and_messages_grow_with_the_logarithm() {
    let rows: Vec<Row> = [100, 1_000, 10_000, 100_000].map(|nodes| measure(nodes, 1_000, 5)).to_vec();
    for pair in rows.windows(2) {
        assert!(pair[0].mean_hops < pair[1].mean_hops, "{pair:?}");
        assert!(pair[0].messages < pair[1].messages, "{pair:?}");
        assert_eq!(pair[0].packet_bytes, pair[1].packet_bytes);
    }
    let last = &rows[3];
    assert!(last.mean_hops <= 3.3, "{last:?}");
    assert!(rows.iter().all(|row| row.recall == 1.0), "{rows:?}");
    let fit = fit(&rows).unwrap();
    assert!(fit.r_squared > 0.97 && fit.b > 0.1 && fit.b < 0.5, "{fit:?}");
    assert_eq!(rows[1], measure(1_000, 1_000, 5), "the seed decides");
    assert_ne!(rows[1], measure(1_000, 1_000, 6));
}

#[test]
fn everybody_knows_everybody_in_small_networks() {
    let row = measure(2, 0, 1);
    assert_eq!((row.max_hops, row.recall, row.messages, row.pairs), (1, 1.0, 1.0, 1));
    let alone = measure(1, 0, 1);
    assert_eq!((alone.max_hops, alone.recall, alone.messages, alone.pairs), (0, 1.0, 0.0, 0));
    // The member certificates of a thousand nodes are one hop; so are tables of twenty a bucket here.
    assert!(measure(20, 0, 1).max_hops <= 1);
}

#[test]
fn a_line_is_fitted_by_least_squares() {
    let row = |log2_nodes, mean_hops| Row { log2_nodes, mean_hops, ..measure(2, 0, 1) };
    let fit = fit(&[row(1.0, 3.0), row(2.0, 5.0), row(3.0, 7.0)]).unwrap();
    assert_eq!((fit.a, fit.b, fit.r_squared), (1.0, 2.0, 1.0));
    assert_eq!(super::fit(&[row(1.0, 3.0), row(2.0, 5.0)]), None);
    assert_eq!(super::fit(&[row(1.0, 3.0), row(1.0, 3.0), row(1.0, 3.0)]), None);
}
