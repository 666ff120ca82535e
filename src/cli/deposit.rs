//! `qis deposit`.

use super::{Failure, peer_address, start_log};
use crate::domain::Domain;
use crate::net::{Config, Identity, Multiaddr, start};
use crate::packet::PacketFile;
use crate::run::deposit::{Summary, file};
use crate::run::node::NodeError;
use crate::run::runtime;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// How long the swarm may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// How long copies for the slower replicas may take after the last acknowledgement.
const HAND_OFF: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub struct Arguments {
    /// The packet file
    file: PathBuf,
    /// The domain of the packets; they go to the mailboxes of all its views
    #[arg(long, value_name = "FILE")]
    domain: PathBuf,
    /// A node of the swarm: IP:PORT or a multiaddress
    #[arg(long, value_name = "ADDRESS", value_parser = peer_address, required = true)]
    peer: Vec<Multiaddr>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    start_log();
    let domain = Domain::load(&arguments.domain).map_err(Failure::diagnosed)?;
    let packets = PacketFile::open(&arguments.file).map_err(Failure::rejected)?.count;
    let runtime = runtime().map_err(NodeError::Runtime).map_err(Failure::failed)?;
    let result = runtime.block_on(async {
        let named: Vec<String> = arguments.peer.iter().map(Multiaddr::to_string).collect();
        let config = Config::client(Identity::random(), arguments.peer);
        let client = start(config).await.map_err(Failure::failed)?;
        if !client.settled(INTRODUCTION).await {
            return Err(Failure::failed(NobodyAnswers(named.join(", "))));
        }
        let bar = progress_bar(packets);
        let mailbox = client.mailbox();
        let summary = file(&arguments.file, &domain, &mailbox, |done| bar.set_position(done)).await;
        bar.finish_and_clear();
        let nodes = client.peers().len();
        let complete = mailbox.handed_off(HAND_OFF).await;
        let silent = client.peers().iter().filter(|peer| peer.silent).count();
        client.shutdown().await;
        if summary.is_ok() && !complete {
            tracing::warn!(silent, nodes, "silent nodes got no copies yet; the other replicas have them");
        }
        summary
            .map_err(|error| if error.is_input() { Failure::rejected(error) } else { Failure::failed(error) })
    });
    let summary = result?;
    print(&summary, packets, arguments.json);
    match summary.rejected {
        0 => Ok(()),
        rejected => Err(Failure::rejected(Rejected { file: arguments.file, rejected, packets })),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no node that keeps mailboxes answers at {0}: is it running, and is the address right?")]
struct NobodyAnswers(String);

#[derive(Debug, thiserror::Error)]
#[error("{file}: {rejected} of {packets} packets were rejected")]
struct Rejected {
    file: PathBuf,
    rejected: u64,
    packets: u64,
}

fn print(summary: &Summary, packets: u64, as_json: bool) {
    let Summary { stored, duplicate, rejected, reasons } = summary;
    if as_json {
        let reasons: Vec<_> =
            reasons.iter().map(|(index, reason)| json!({ "packet": index, "reason": reason })).collect();
        let object = json!({ "packets": packets, "stored": stored, "duplicate": duplicate, "rejected": rejected, "reasons": reasons });
        println!("{object}");
    } else {
        println!("{packets} packets: {stored} stored, {duplicate} duplicate, {rejected} rejected");
        reasons.iter().for_each(|(index, reason)| eprintln!("packet {index}: {reason}"));
    }
}

/// On a terminal only.
fn progress_bar(packets: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} packets {per_sec} {eta}");
    ProgressBar::new(packets).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
