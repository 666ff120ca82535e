//! `qis sim`: the swarm on one machine, without sockets.

use super::{Failure, output};
use crate::sim::routing::{self, Row};
use clap::value_parser;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_required = true)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Measure hops and messages of Kademlia from 10 to 1,000,000 nodes
    Routing(Routing),
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
        What::Routing(arguments) => routing(&arguments),
    }
    Ok(())
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
