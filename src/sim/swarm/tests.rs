use super::*;

fn config(seed: u64) -> Config {
    let (nodes, routing) = (24, Routing::Membership);
    Config { nodes, routing, steps: 10_000, seed, faults: Fault::ALL.to_vec(), plant: None }
}

#[test]
fn ten_thousand_steps_under_all_faults_break_nothing() {
    for seed in 0..4 {
        let report = run(&config(seed), |_| {}).unwrap_or_else(|broken| panic!("{broken}"));
        assert!(report.steps >= 10_000 && report.counts.calms >= 1, "{report:?}");
        assert!(report.counts.acknowledged > 100 && report.counts.pulls > 100, "{report:?}");
        let struck =
            Fault::ALL.iter().filter(|fault| report.counts.faults.contains_key(fault.name())).count();
        assert!(struck >= 8, "{report:?}");
    }
}

/// Replicas are looked up, and no node lists all the others.
#[test]
fn a_swarm_in_which_nobody_knows_everybody_breaks_nothing_either() {
    let config = Config { nodes: 400, routing: Routing::Kademlia, steps: 40_000, ..config(1) };
    let report = run(&config, |_| {}).unwrap_or_else(|broken| panic!("{broken}"));
    let counts = &report.counts;
    assert!(counts.calms >= 1 && counts.acknowledged > 100 && counts.pulls > 100, "{report:?}");
    let questions = counts.lookup_questions as f64 / counts.lookups as f64;
    assert!((20.0..60.0).contains(&questions), "{questions} questions a look-up");
}

#[test]
fn the_same_seed_is_the_same_history() {
    let run = |seed| run(&config(seed), |_| {}).unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).history, run(8).history);
}

#[test]
fn without_faults_everything_is_acknowledged_and_nothing_repaired() {
    let quiet = Config { faults: vec![], ..config(3) };
    let report = run(&quiet, |_| {}).unwrap_or_else(|broken| panic!("{broken}"));
    let counts = &report.counts;
    assert_eq!((counts.unacknowledged, counts.pulls_failed, counts.lies), (0, 0, 0), "{report:?}");
    assert!(counts.faults.is_empty(), "{report:?}");
}

/// Each invariant can fail: a planted bug breaks it within 300,000 steps and a calm, most at once. A
/// blind reader takes the most seeds: the one replica that it believes must be a liar each time.
#[test]
fn every_planted_bug_is_found_by_its_invariant() {
    for plant in Plant::ALL {
        let planted = |seed| Config { steps: 300_000, plant: Some(plant), ..config(seed) };
        let found = (0..24).find_map(|seed| run(&planted(seed), |_| {}).err());
        let broken = found.unwrap_or_else(|| panic!("{} is not found", plant.name()));
        assert_eq!(broken.invariant, plant.breaks(), "{}: {broken}", plant.name());
        let again = run(&planted(broken.seed), |_| {});
        assert_eq!(again, Err(broken), "a failure replays");
    }
}

#[test]
fn lists_of_faults_are_read() {
    assert_eq!(Fault::list("all").unwrap().len(), 10);
    assert_eq!(Fault::list("none"), Some(vec![]));
    assert_eq!(Fault::list("loss,crash"), Some(vec![Fault::Loss, Fault::Crash]));
    assert_eq!(Fault::list("loss,storm"), None);
    assert!(Plant::ALL.iter().all(|plant| Plant::named(plant.name()) == Some(*plant)));
}
