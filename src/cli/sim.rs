//! `qis sim`: the swarm on one machine, without sockets.

mod learning;
mod page;

use super::node::RoutingName;
use super::{Failure, output};
use crate::net::Routing as How;
use crate::sim::routing::{self, Row};
use crate::sim::swarm::{
    self, Broken, Config, Fault, MEMBERSHIP_NODES_MAX, NODES_MAX, NODES_MIN, Plant, Report,
};
use clap::value_parser;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    swarm: Swarm,
}

/// Without a subcommand: what a swarm decides, under faults.
#[derive(clap::Args)]
struct Swarm {
    /// Storage nodes at the beginning; a quarter as many gateways come on top
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(NODES_MIN as i64..=NODES_MAX as i64))]
    nodes: u32,
    /// How the replicas of a mailbox are found: everybody knows everybody, or look-ups [default: membership up to
    /// 910 nodes, kademlia beyond]
    #[arg(long, value_enum, value_name = "HOW")]
    routing: Option<RoutingName>,
    /// Events; the calm in which all must come right follows them
    #[arg(long, value_name = "S", default_value_t = 1_000_000, value_parser = value_parser!(u64).range(1..))]
    steps: u64,
    #[arg(long, value_name = "X", default_value_t = 0)]
    seed: u64,
    /// Kinds of faults with commas between: loss, delay, duplication, partition, crash, torn, wipe, churn,
    /// clock, liars; or `all`, or `none`
    #[arg(long, value_name = "LIST", default_value = "all")]
    faults: String,
    /// A bug to be found
    #[arg(long, value_name = "NAME", hide = true)]
    plant: Option<String>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// Measure hops and messages of Kademlia from 10 to 1,000,000 nodes
    Routing(Routing),
    /// Let nodes act and learn in a world whose truth is known, beside rivals on the same cases
    Loop(Box<learning::Arguments>),
}

#[derive(clap::Args)]
struct Routing {
    /// Only this size of network [default: from 10 to 1000000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=routing::NODES_MAX as i64))]
    nodes: Option<u32>,
    /// Packets that a reader pulls once it has found the mailbox
    #[arg(long, value_name = "P", default_value_t = 1_000)]
    packets: u32,
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// One JSON object per size
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.what {
        Some(What::Routing(arguments)) => {
            routing(&arguments);
            Ok(())
        }
        Some(What::Loop(arguments)) => learning::run(&arguments),
        None => swarm(&arguments.swarm),
    }
}

fn swarm(arguments: &Swarm) -> Result<(), Failure> {
    let names = || Fault::ALL.map(Fault::name).join(", ");
    let faults = Fault::list(&arguments.faults)
        .ok_or_else(|| Failure::usage(format!("--faults: `all`, `none`, or some of {}", names())))?;
    let plant = match &arguments.plant {
        None => None,
        Some(name) => Some(Plant::named(name).ok_or_else(|| {
            Failure::usage(format!("--plant: one of {}", Plant::ALL.map(Plant::name).join(", ")))
        })?),
    };
    let nodes = arguments.nodes as usize;
    let routing = arguments.routing.map_or(Config::routing_for(nodes), How::from);
    if routing == How::Membership && nodes > MEMBERSHIP_NODES_MAX {
        let message =
            format!("--routing membership: {MEMBERSHIP_NODES_MAX} nodes at most, because each lists all");
        return Err(Failure::usage(message));
    }
    let config = Config { nodes, routing, steps: arguments.steps, seed: arguments.seed, faults, plant };
    let progress = output::progress(arguments.steps, "steps");
    let result = swarm::run(&config, |step| progress.set_position(step));
    progress.finish_and_clear();
    let report = result.map_err(|broken| {
        if !arguments.json {
            broken.recent.iter().for_each(|line| output::note(line));
        }
        output::note(&replay(arguments, &broken));
        Failure::failed(*broken)
    })?;
    if arguments.json {
        output::json(&report);
    } else {
        show(&report);
    }
    Ok(())
}

/// What to run to see it again.
fn replay(arguments: &Swarm, broken: &Broken) -> String {
    let plant = arguments.plant.as_ref().map(|name| format!(" --plant {name}")).unwrap_or_default();
    let routing = match arguments.routing.map(How::from) {
        None => "",
        Some(How::Membership) => " --routing membership",
        Some(How::Kademlia) => " --routing kademlia",
    };
    format!(
        "again: qis sim --nodes {} --steps {} --seed {} --faults {}{routing}{plant}",
        arguments.nodes, arguments.steps, broken.seed, arguments.faults
    )
}

fn show(report: &Report) {
    let counts = &report.counts;
    let line = |name: &str, text: String| output::line(&format!("{name:<13} {text}"));
    line("steps", format!("{}, {} virtual minutes", report.steps, report.virtual_seconds / 60));
    line(
        "packets",
        format!(
            "{} in {} deposits: {} acknowledged, {} refused, {} not acknowledged in time",
            report.packets, counts.deposits, counts.acknowledged, counts.rejected, counts.unacknowledged
        ),
    );
    line(
        "pulls",
        format!("{}, {} packets; {} failed", counts.pulls, counts.packets_pulled, counts.pulls_failed),
    );
    if counts.lookups > 0 {
        let (lookups, questions) = (counts.lookups, counts.lookup_questions);
        line("look-ups", format!("{lookups}, {:.1} questions each", questions as f64 / lookups as f64));
    }
    line(
        "repair",
        format!(
            "{} packets fetched, {} mailboxes handed over",
            counts.packets_repaired, counts.mailboxes_left
        ),
    );
    line("no answer", format!("{} questions; {} lies told", counts.questions_without_answer, counts.lies));
    let faults: Vec<String> = counts.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
    line("faults", if faults.is_empty() { "none".into() } else { faults.join(", ") });
    line(
        "calms",
        format!(
            "{}: all replicas agreed within {} s, and every reader had everything within {} s more",
            counts.calms,
            counts.calm_ms_max / 1_000,
            counts.reading_ms_max / 1_000
        ),
    );
    line("history", report.history.clone());
    output::line("no invariant broken");
}

fn routing(arguments: &Routing) {
    let sizes = arguments.nodes.map_or(routing::SIZES.to_vec(), |nodes| vec![nodes as usize]);
    let progress = output::progress(sizes.len() as u64, "networks");
    let mut rows = vec![];
    for nodes in sizes {
        if output::closed() {
            return;
        }
        let row = routing::measure(nodes, arguments.packets.into(), arguments.seed);
        if arguments.json {
            output::json(&row);
        }
        rows.push(row);
        progress.inc(1);
    }
    progress.finish_and_clear();
    let fit = routing::fit(&rows)
        .map(|fit| format!("hops = {:.3} + {:.3} log2 N, R^2 = {:.4}", fit.a, fit.b, fit.r_squared));
    if arguments.json {
        // Beside the objects, one per size, that a program reads.
        fit.iter().for_each(|fit| output::note(fit));
        return;
    }
    let header = [
        "nodes",
        "log2 N",
        "hops mean",
        "max",
        "messages",
        "to find 8",
        "recall of 8",
        "N(N-1)/2 pairs",
        "experts activated",
        "look-up KB",
    ];
    output::table(header, rows.iter().map(cells));
    fit.iter().for_each(|fit| output::line(fit));
    output::line(
        "hops      greedy steps on tables of 20 contacts a bucket until the closest node\n\
         messages  requests of the library's iterative look-up: 3 at a time until the 20 closest have answered, or 8\n\
         experts   what a mixture of N experts activates to choose, for every question",
    );
    if let Some(row) = rows.first() {
        output::line(&format!(
            "pulling   {} packets x 512 bytes = {} KB, whatever N is: this part grows with the packets pulled",
            row.packets_pulled,
            row.packet_bytes / 1_000
        ));
    }
}

fn cells(row: &Row) -> [String; 10] {
    [
        row.nodes.to_string(),
        format!("{:.2}", row.log2_nodes),
        format!("{:.2}", row.mean_hops),
        row.max_hops.to_string(),
        format!("{:.1}", row.messages),
        format!("{:.1}", row.messages_8_wanted),
        format!("{:.4}", row.recall),
        row.pairs.to_string(),
        row.expert_activations.to_string(),
        format!("{:.1}", row.lookup_bytes / 1_000.0),
    ]
}
