//! `qis sim loop`: nodes that learn in a world with a known truth, and comparisons that can fail.

use qis::engine::{Backend, Choice, Engine};
use qis::sim::learning::{Config, Contestant, Exponents, Plan, Rules, Summary, Track, World, grow, run};
use std::process::{Command, Output};

fn engine(threads: usize) -> Engine {
    Engine::new(&Choice { backend: Backend::Cpu, threads: Some(threads), ..Choice::default() }).unwrap()
}

/// A short life: drift in the fourth month, joiners in the sixth.
fn config(world: World, silent: bool) -> Config {
    let plan = Plan {
        rules: Rules { world, silent },
        nodes: 8,
        joiners: 0,
        cases: 4,
        months: 2,
        drift_month: 4,
        join_month: 6,
        tune_months: vec![],
    };
    Config { plan, seeds: 1, seed: 3, half_life_days: 90, sizes: vec![], growth_seeds: 1 }
}

fn tracks(config: &Config, threads: usize) -> Vec<Vec<Track>> {
    run(config, &engine(threads), || ()).unwrap()
}

/// Regret of each seed per case over some months, counted from 1.
fn regret(seeds: &[Vec<Track>], contestant: Contestant, months: std::ops::RangeInclusive<usize>) -> Vec<f64> {
    let of = |tracks: &Vec<Track>| {
        let track = tracks.iter().find(|track| track.contestant == contestant).unwrap();
        let chosen = &track.months[months.start() - 1..*months.end()];
        chosen.iter().map(|month| month.sum).sum::<f64>()
            / chosen.iter().map(|month| month.cases).sum::<u64>() as f64
    };
    seeds.iter().map(of).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn the_seed_decides_and_threads_do_not() {
    for world in World::ALL {
        let mut config = config(world, false);
        (config.plan.cases, config.plan.tune_months) = (10, vec![1]);
        let one = tracks(&config, 1);
        assert_eq!(one, tracks(&config, 2), "{}", world.name());
        assert_eq!(one[0].len(), Contestant::ALL.len());
        // The first month of those three is one and the same.
        let first = |contestant| regret(&one, contestant, 1..=1);
        assert_eq!(first(Contestant::Swarm), first(Contestant::Mixture));
        assert_eq!(first(Contestant::Swarm), first(Contestant::SwarmAndMixture));
        config.seed += 1;
        assert_ne!(one, tracks(&config, 2));
    }
}

#[test]
fn a_swarm_recovers_from_drift_and_gives_a_newcomer_a_start() {
    let mut config = config(World::Links, false);
    (config.plan.nodes, config.plan.joiners, config.plan.months) = (16, 8, 10);
    (config.plan.tune_months, config.seeds) = (vec![1, 3, 5, 7], 2);
    let seeds = tracks(&config, 2);
    let month = |months| mean(&regret(&seeds, Contestant::Swarm, months));
    let (before, drift, after) = (month(3..=3), month(4..=4), month(9..=10));
    assert!(drift > 1.2 * before, "the drift is felt: {before} then {drift}");
    assert!(after < 0.75 * drift, "and passes: {drift} then {after}");
    // Who learns nothing new does not recover.
    let frozen = |months| mean(&regret(&seeds, Contestant::Mixture, months));
    assert!(frozen(9..=10) > 1.2 * frozen(3..=3));
    let summary = Summary::of(&config.plan, &seeds);
    assert!(summary.joined.mean < 0.8 * summary.fresh.mean, "{:?} {:?}", summary.joined, summary.fresh);
}

#[test]
fn a_world_without_a_signal_gives_no_advantage() {
    let gains = |silent: bool| {
        let mut config = config(World::Links, silent);
        (config.plan.months, config.plan.drift_month, config.seeds) = (6, 99, 4);
        let seeds = tracks(&config, 2);
        let [swarm, alone, chance] = [Contestant::Swarm, Contestant::Isolated, Contestant::Chance]
            .map(|contestant| mean(&regret(&seeds, contestant, 2..=6)));
        (swarm / chance, swarm / alone)
    };
    let (of_chance, of_alone) = gains(true);
    assert!((of_chance - 1.0).abs() < 0.15 && (of_alone - 1.0).abs() < 0.15, "{of_chance} {of_alone}");
    let (of_chance, _) = gains(false);
    assert!(of_chance < 0.75, "with a signal there is something to learn: {of_chance}");
}

#[test]
fn what_grows_grows_as_measured() {
    let mut config = config(World::Machines, false);
    config.sizes = vec![1, 4, 16, 64];
    let sizes = grow(&config, &engine(2)).unwrap();
    let found = Exponents::of(&sizes);
    assert!((found.pairs.unwrap() - 2.0).abs() < 0.15, "{found:?}");
    assert!((found.bytes.unwrap() - 1.0).abs() < 0.15, "{found:?}");
    assert!((0.6..1.3).contains(&found.effective_cases.unwrap()), "{found:?}");
    // The error falls, and no faster than chance averages out, give or take the noise of one seed.
    assert!((-0.65..-0.1).contains(&found.error.unwrap()), "{found:?}");
    assert!(sizes.iter().all(|size| size.pairs_sharing <= size.pairs as f64));
    assert_eq!((sizes[0].hops, sizes[0].pairs), (0.0, 0));
}

fn qis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qis")).args(arguments).output().unwrap()
}

#[test]
fn the_command_prints_objects_and_writes_a_page_that_loads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("loop.html");
    let shown = page.display().to_string();
    let small =
        ["sim", "loop", "--nodes", "3", "--months", "2", "--seeds", "2", "--tune", "9", "--growth", "1,4"];
    let output = qis(&[&small[..], &["--json", "--report", &shown]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let objects: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let months = objects.iter().filter(|object| object["month"].is_u64());
    assert_eq!(months.count(), 2 * Contestant::ALL.len());
    assert_eq!(objects.iter().filter(|object| object["nodes"].is_u64()).count(), 2);
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.matches("<svg").count() == 3 && !html.contains("<script") && !html.contains("src="));
    assert_eq!(qis(&["sim", "loop", "--world", "moon"]).status.code(), Some(2));
}
