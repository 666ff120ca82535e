//! `qis deposit`.

use super::places::{Joining, join, mailbox_url, open_objects};
use super::{Failure, data, output, peer_address, start_log};
use crate::domain::Domain;
use crate::net::{Multiaddr, SignedReceipt};
use crate::packet::{PacketFile, hex};
use crate::run::deposit::{Summary, file};
use indicatif::ProgressBar;
use serde_json::json;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long copies for the slower replicas may take after the last acknowledgement.
const HAND_OFF: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
#[command(after_help = "Examples:
  qis deposit heart.qpk --domain heart.toml --peer 192.0.2.7:4001
  qis deposit heart.qpk --domain heart.toml --peer 192.0.2.7:4001 --swarm ward.qsl --receipts kept.ndjson
  qis deposit heart.qpk --domain heart.toml --mailbox file:///mnt/shared")]
pub struct Arguments {
    /// The packet file
    file: PathBuf,
    /// The domain of the packets; they go to the mailboxes of all its views
    #[arg(long, value_name = "FILE")]
    domain: PathBuf,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    joining: Joining,
    /// Append what each node signs of the deposit, one JSON object a line: what it did with which
    /// packets, so that it cannot deny it later
    #[arg(long, value_name = "FILE")]
    receipts: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Where the packets go.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// A node of the swarm: IP:PORT or a multiaddress; may be repeated
    #[arg(long, value_name = "ADDRESS", value_parser = peer_address)]
    peer: Vec<Multiaddr>,
    /// Mailboxes in a shared folder, file:///FOLDER, or a bucket, s3://BUCKET/PREFIX; the bucket's
    /// settings come from the environment (AWS_REGION, AWS_ENDPOINT, AWS_ACCESS_KEY_ID, ..)
    #[arg(long, value_name = "URL", value_parser = mailbox_url)]
    mailbox: Option<String>,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    start_log();
    let domain = data::load(&arguments.domain)?;
    let packets = PacketFile::open(&arguments.file)?.count;
    let bar = output::progress(packets, "packets");
    let runtime = data::runtime()?;
    let summary = match &arguments.target.mailbox {
        None => runtime.block_on(into_swarm(&arguments, &domain, &bar)),
        Some(url) => {
            arguments.joining.refuse()?;
            if arguments.receipts.is_some() {
                let message =
                    "--receipts keeps what nodes of a swarm sign; nobody signs in a folder or bucket";
                return Err(Failure::usage(message));
            }
            let mailbox = open_objects(url, &domain)?;
            let deposit = file(&arguments.file, &domain, &mailbox, |done| bar.set_position(done));
            runtime.block_on(deposit).map_err(Failure::from)
        }
    };
    bar.finish_and_clear();
    let summary = summary?;
    print(&summary, packets, arguments.json);
    match summary.rejected {
        0 => Ok(()),
        rejected => Err(Failure::rejected(Rejected { file: arguments.file, rejected, packets })),
    }
}

async fn into_swarm(arguments: &Arguments, domain: &Domain, bar: &ProgressBar) -> Result<Summary, Failure> {
    let receipts = arguments.receipts.as_deref().map(Receipts::open).transpose()?;
    let client = join(arguments.target.peer.clone(), &arguments.joining).await?;
    let mut mailbox = client.mailbox();
    if let Some(receipts) = receipts.clone() {
        mailbox = mailbox.keeping_receipts(Arc::new(move |receipt| receipts.keep(&receipt)));
    }
    let summary = file(&arguments.file, domain, &mailbox, |done| bar.set_position(done)).await;
    let nodes = client.peers().len();
    let complete = mailbox.handed_off(HAND_OFF).await;
    let silent = client.peers().iter().filter(|peer| peer.silent).count();
    client.shutdown().await;
    if summary.is_ok() && !complete {
        tracing::warn!(silent, nodes, "silent nodes got no copies yet; the other replicas have them");
    }
    // Also after a deposit that broke off: what was acknowledged before stays.
    let kept = receipts.map_or(Ok(()), |receipts| receipts.sync());
    summary.map_err(Failure::from).and_then(|summary| kept.map(|()| summary))
}

/// A file of signed receipts, one JSON object a line.
#[derive(Clone)]
struct Receipts(Arc<Mutex<Kept>>);

struct Kept {
    path: PathBuf,
    file: File,
    failed: Option<io::Error>,
}

impl Receipts {
    fn open(path: &Path) -> Result<Receipts, Failure> {
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(|source| Failure::failed(NoReceipts { path: path.into(), source }))?;
        Ok(Receipts(Arc::new(Mutex::new(Kept { path: path.into(), file, failed: None }))))
    }

    fn keep(&self, receipt: &SignedReceipt) {
        let packets: Vec<_> = receipt
            .packets
            .iter()
            .map(|(address, id, result)| json!({ "address": hex(address), "packet": hex(id), "result": result }))
            .collect();
        let line = json!({
            "replica": receipt.replica.to_string(),
            "at_ms": receipt.at_ms,
            "signature": hex(&receipt.signature),
            "packets": packets,
        });
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One write a line: another process may append to the file too.
        if let Err(error) = kept.file.write_all(format!("{line}\n").as_bytes()) {
            kept.failed.get_or_insert(error);
        }
    }

    /// All receipts are on disk when this returns.
    fn sync(&self) -> Result<(), Failure> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = kept.failed.take().map_or(Ok(()), Err).and_then(|()| kept.file.sync_all());
        written.map_err(|source| Failure::failed(NoReceipts { path: kept.path.clone(), source }))
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "--receipts {path}: cannot be written: {source}; what was deposited stays, depositing again is harmless"
)]
struct NoReceipts {
    path: PathBuf,
    source: io::Error,
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
