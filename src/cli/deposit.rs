//! `qis deposit`.

use super::places::join;
use super::{Failure, data, output, peer_address, start_log};
use crate::net::Multiaddr;
use crate::packet::PacketFile;
use crate::run::deposit::{Summary, file};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

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
    let domain = data::load(&arguments.domain)?;
    let packets = PacketFile::open(&arguments.file)?.count;
    let result = data::runtime()?.block_on(async {
        let client = join(arguments.peer).await?;
        let bar = output::progress(packets, "packets");
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
        summary.map_err(Failure::from)
    });
    let summary = result?;
    print(&summary, packets, arguments.json);
    match summary.rejected {
        0 => Ok(()),
        rejected => Err(Failure::rejected(Rejected { file: arguments.file, rejected, packets })),
    }
}

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
        output::json(&object);
    } else {
        output::line(&format!(
            "{packets} packets: {stored} stored, {duplicate} duplicate, {rejected} rejected"
        ));
        reasons.iter().for_each(|(index, reason)| output::note(&format!("packet {index}: {reason}")));
    }
}
