//! `qis sim loop`: nodes that act and learn in a world whose truth is known, beside rivals.

use super::page;
use crate::cli::{Compute, Failure, output};
use crate::sim::learning::summary::Over;
use crate::sim::learning::{
    self, Config, Contestant, Difference, Exponents, Plan, Rules, Size, Summary, World, growth,
};
use clap::value_parser;
use serde::Serialize;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// `links`: radio links to be tuned; `machines`: machines to be maintained
    #[arg(long, value_name = "NAME", default_value = "links", value_parser = ["links", "machines"])]
    world: String,
    /// Nodes from the beginning
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = value_parser!(u32).range(1..=1_000))]
    nodes: u32,
    /// Nodes that join in the twelfth month; 0 is none
    #[arg(long, value_name = "J", default_value_t = 8, value_parser = value_parser!(u32).range(0..=1_000))]
    joiners: u32,
    /// Cases of a node per week
    #[arg(long, value_name = "C", default_value_t = 4, value_parser = value_parser!(u32).range(1..=1_000))]
    cases: u32,
    /// Months of four weeks
    #[arg(long, value_name = "M", default_value_t = 18, value_parser = value_parser!(u32).range(1..=120))]
    months: u32,
    /// The truth changes at the beginning of this month
    #[arg(long, value_name = "MONTH", default_value_t = 6, value_parser = value_parser!(u32).range(1..))]
    drift: u32,
    /// Views are tuned at the end of these months
    #[arg(long, value_name = "M,M,..", value_delimiter = ',', default_value = "1,3,7,11", value_parser = value_parser!(u32).range(1..))]
    tune: Vec<u32>,
    /// Evidence halves in so many days; 0 is never
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    half_life: u64,
    /// Outcomes say nothing of what was done: nobody may learn anything then
    #[arg(long)]
    silent: bool,
    /// Worlds over which means and standard errors are taken
    #[arg(long, value_name = "K", default_value_t = 4, value_parser = value_parser!(u64).range(1..=1_000))]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Numbers of nodes to measure growth over
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', default_value = "1,4,16,64,256", value_parser = value_parser!(u32).range(1..=1_000))]
    growth: Vec<u32>,
    /// Do not measure growth
    #[arg(long, conflicts_with = "growth")]
    no_growth: bool,
    /// Write a page with tables and plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    /// One JSON object per month and contestant, then per difference, then per number of nodes
    #[arg(long)]
    json: bool,
}

/// The month in which the joiners come.
const JOIN_MONTH: usize = 12;

/// Everything that was found.
pub struct Found {
    pub plan: Plan,
    pub seeds: u64,
    pub summary: Summary,
    pub sizes: Vec<Size>,
    pub exponents: Exponents,
}

#[derive(Serialize)]
struct Joined<'a> {
    joined: &'a Over,
    fresh: &'a Over,
    joined_minus_fresh: &'a Over,
    bytes_per_question: f64,
    both: &'static str,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let world = World::named(&arguments.world).unwrap_or(World::Links);
    let plan = Plan {
        rules: Rules { world, silent: arguments.silent },
        nodes: arguments.nodes as usize,
        joiners: arguments.joiners as usize,
        cases: arguments.cases as usize,
        months: arguments.months as usize,
        drift_month: arguments.drift as usize,
        join_month: JOIN_MONTH,
        tune_months: arguments.tune.iter().map(|&month| month as usize).collect(),
    };
    let mut sizes: Vec<usize> = arguments.growth.iter().map(|&size| size as usize).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let config = Config {
        plan,
        seeds: arguments.seeds,
        seed: arguments.seed,
        half_life_days: arguments.half_life,
        sizes: if arguments.no_growth { vec![] } else { sizes },
        growth_seeds: growth::SEEDS.min(arguments.seeds),
    };
    let engine = arguments.compute.engine()?;
    let bar = output::progress(arguments.seeds + u64::from(!config.sizes.is_empty()), "worlds");
    let tracks = learning::run(&config, &engine, || bar.inc(1)).map_err(Failure::failed)?;
    let sizes = learning::grow(&config, &engine).map_err(Failure::failed)?;
    bar.finish_and_clear();
    let found = Found {
        summary: Summary::of(&config.plan, &tracks),
        exponents: Exponents::of(&sizes),
        sizes,
        seeds: config.seeds,
        plan: config.plan,
    };
    output::note(&format!("computed on {}", engine.ran()));
    if let Some(path) = &arguments.report {
        page::write(path, &found)?;
        output::note(&format!("report: {}", path.display()));
    }
    if arguments.json {
        print_json(&found);
    } else {
        print(&found);
    }
    Ok(())
}

fn print_json(found: &Found) {
    let Summary { joined, fresh, joined_minus_fresh, bytes_per_question, .. } = &found.summary;
    found.summary.months.iter().for_each(output::json);
    found.summary.differences.iter().for_each(output::json);
    output::json(&Joined {
        joined,
        fresh,
        joined_minus_fresh,
        bytes_per_question: *bytes_per_question,
        both: found.summary.both_verdict(),
    });
    found.sizes.iter().for_each(output::json);
    if !found.sizes.is_empty() {
        output::json(&found.exponents);
    }
}

fn print(found: &Found) {
    let header: Vec<&str> = std::iter::once("month").chain(Contestant::ALL.map(Contestant::name)).collect();
    output::line(
        "regret per case, in thousandths of the benefit's range: the best action's benefit minus the chosen one's",
    );
    output::columns(&header, month_cells(found));
    output::line("differences of regret per case from the second month on, in pairs by seed");
    output::table(DIFFERENCE_HEADER, difference_cells(&found.summary));
    found.events().iter().for_each(|line| output::line(line));
    if !found.sizes.is_empty() {
        output::table(GROWTH_HEADER, growth_cells(&found.sizes));
        found.growth_sentences().iter().for_each(|line| output::line(line));
    }
}

/// A mean with its standard error, in thousandths.
fn thousandths(mean: f64, se: Option<f64>) -> String {
    se.map_or_else(|| format!("{:.1}", 1e3 * mean), |se| format!("{:.1} \u{b1} {:.1}", 1e3 * mean, 1e3 * se))
}

/// Per month: regret of each contestant.
pub fn month_cells(found: &Found) -> Vec<Vec<String>> {
    let row = |month: usize| {
        let mark = match month {
            _ if month == found.plan.drift_month => " drift",
            _ if month == found.plan.join_month && found.plan.joiners > 0 => " joiners",
            _ => "",
        };
        let cells = Contestant::ALL.iter().map(|&contestant| {
            let month = found.summary.month(contestant, month);
            month.map_or_else(|| "-".into(), |row| thousandths(row.regret, row.regret_se))
        });
        std::iter::once(format!("{month}{mark}")).chain(cells).collect()
    };
    (1..=found.plan.months).map(row).collect()
}

pub const DIFFERENCE_HEADER: [&str; 4] = ["", "minus", "difference, thousandths", "95% interval over seeds"];

/// Differences in pairs.
pub fn difference_cells(summary: &Summary) -> Vec<[String; 4]> {
    let row = |difference: &Difference| {
        let Over { mean, se, reach } = difference.over;
        [
            difference.of.name().into(),
            difference.than.name().into(),
            thousandths(mean, se),
            reach.map_or_else(
                || "-".into(),
                |reach| format!("{:.1} to {:.1}", 1e3 * (mean - reach), 1e3 * (mean + reach)),
            ),
        ]
    };
    summary.differences.iter().map(row).collect()
}

pub const GROWTH_HEADER: [&str; 8] = [
    "nodes",
    "pairs N(N-1)/2",
    "pairs at one address",
    "effective cases",
    "1/variance",
    "error (RMSE)",
    "KB pulled, first answer",
    "hops",
];

pub fn growth_cells(sizes: &[Size]) -> Vec<[String; 8]> {
    let row = |size: &Size| {
        [
            size.nodes.to_string(),
            size.pairs.to_string(),
            format!("{:.0}", size.pairs_sharing),
            format!("{:.1}", size.effective_cases),
            format!("{:.0}", size.precision),
            format!("{:.4}", size.error),
            format!("{:.1}", size.bytes / 1e3),
            format!("{:.2}", size.hops),
        ]
    };
    sizes.iter().map(row).collect()
}

impl Found {
    /// Drift, joiners and both together in sentences.
    pub fn events(&self) -> Vec<String> {
        let Summary { joined, fresh, joined_minus_fresh, bytes_per_question, .. } = &self.summary;
        let mut lines = vec![];
        let last = self.plan.months;
        let totals: Vec<String> = Contestant::ALL
            .iter()
            .filter_map(|&contestant| {
                let row = self.summary.month(contestant, last)?;
                let se = row.cumulative_se.map_or_else(String::new, |se| format!(" \u{b1} {se:.2}"));
                Some(format!("{} {:.2}{se}", contestant.name(), row.cumulative))
            })
            .collect();
        lines.push(format!("cumulative regret per node after {last} months: {}", totals.join(", ")));
        let drift = self.plan.drift_month;
        if (2..=last).contains(&drift) {
            let of = |month: usize| {
                let row = self.summary.month(Contestant::Swarm, month);
                row.map_or_else(|| "-".into(), |row| thousandths(row.regret, row.regret_se))
            };
            lines.push(format!(
                "drift: the swarm loses {} in month {}, {} in month {drift} when the truth changes, {} in month {last}",
                of(drift - 1),
                drift - 1,
                of(drift),
                of(last)
            ));
        }
        if self.plan.joiners > 0 && last >= self.plan.join_month {
            lines.push(format!(
                "joining in month {}: first week {} with a full mailbox, {} in an empty swarm, difference {}",
                self.plan.join_month,
                thousandths(joined.mean, joined.se),
                thousandths(fresh.mean, fresh.se),
                thousandths(joined_minus_fresh.mean, joined_minus_fresh.se)
            ));
        }
        lines.push(format!(
            "pulling: {:.2} KB per question of the swarm, in the mean",
            bytes_per_question / 1e3
        ));
        lines.push(format!("both: {}", self.summary.both_verdict()));
        lines
    }

    /// What grows how fast, as fitted.
    pub fn growth_sentences(&self) -> Vec<String> {
        let e = &self.exponents;
        let power = |exponent: Option<f64>| exponent.map_or_else(|| "-".into(), |e| format!("N^{e:.2}"));
        let hops = match (e.hops_per_doubling, e.hops_r_squared) {
            (Some(slope), Some(share)) => format!("hops by {slope:.2} per doubling of N (R^2 {share:.2})"),
            _ => "hops not at all".into(),
        };
        vec![format!(
            "Fitted to this table: pairs grow as {}, those at one address as {}, effective cases as {}, 1/variance as {}, \
             the error as {} (at best N^-0.5, and never below what the view cannot see), bytes of a first answer as {} \
             (as the packets pulled), {hops}. A view is tuned where an action has {tuned} packets.",
            power(e.pairs),
            power(e.pairs_sharing),
            power(e.effective_cases),
            power(e.precision),
            power(e.error),
            power(e.bytes),
            tuned = learning::TUNED_PACKETS_MIN,
        )]
    }
}
