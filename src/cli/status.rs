//! `qis status`: how a running node is doing.

use super::{Failure, data, output};
use crate::serve::client::{Place, fetch};
use crate::serve::{Participant, Peer, Replication, Status};
use indicatif::{BinaryBytes, HumanDuration};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Participants shown to people; `--json` has them all.
const PARTICIPANTS_SHOWN: usize = 20;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  qis status --store /var/lib/qis
  qis status --http 127.0.0.1:9464 --json")]
pub struct Arguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct PlaceArguments {
    /// Store of a node that runs on this machine
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Where a node serves its status over HTTP
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
}

/// How the command ends when the node has said that it should get no requests.
#[derive(Debug, thiserror::Error)]
#[error("the node at {place} is not healthy: {reason}")]
struct Unhealthy {
    place: Place,
    reason: String,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let place = match arguments.place {
        PlaceArguments { store: Some(folder), .. } => Place::Store(folder),
        PlaceArguments { http, .. } => Place::Http(http.unwrap_or_default()),
    };
    let (sent, status) = data::runtime()?.block_on(fetch(&place)).map_err(Failure::failed)?;
    if arguments.json {
        output::json(&sent);
    } else {
        print(&status);
    }
    status.health().map_err(|reason| Failure::failed(Unhealthy { place, reason }))
}

fn print(status: &Status) {
    summary(status).iter().for_each(|(name, text)| output::line(&format!("{name:<16} {text}")));
    if !status.peers.is_empty() {
        output::table(["peer", "state", "last heard", "addresses"], status.peers.iter().map(peer));
    }
    let rows = &status.participation.rows;
    if !rows.is_empty() {
        let header = ["who", "key", "deposits", "asks", "deposits per ask"];
        output::table(header, rows.iter().take(PARTICIPANTS_SHOWN).map(participant));
    }
    if let Some(more) = rows.len().checked_sub(PARTICIPANTS_SHOWN).filter(|more| *more > 0) {
        output::line(&format!("and {more} less active; --json names all of them"));
    }
}

/// Names and values, everything but peers and participants.
fn summary(status: &Status) -> Vec<(&'static str, String)> {
    let (identity, ranges, repair) = (&status.identity, &status.ranges, &status.repair);
    let admission = &status.admission;
    let up = HumanDuration(Duration::from_secs(identity.uptime_s));
    let silent = status.peers.iter().filter(|peer| peer.silent).count();
    let mut rows = vec![
        ("node", identity.peer.clone()),
        ("runs as", format!("{}, version {}, up {up}", identity.mode.name(), identity.version)),
        ("swarm", identity.swarm.clone().unwrap_or_else(|| "open: everybody is admitted".into())),
    ];
    let epochs = [("nodes", admission.nodes_epoch), ("authors", admission.authors_epoch)];
    for (list, epoch) in epochs {
        rows.extend(epoch.map(|epoch| ("list", format!("{list}, epoch {epoch}"))));
    }
    rows.extend(identity.listen.iter().map(|address| ("listens", address.clone())));
    rows.push(("health", status.health().err().unwrap_or_else(|| "ok".into())));
    rows.push(("peers", format!("{} known, {silent} silent", status.peers.len())));
    if let Some(store) = &status.store {
        let packets = output::count(store.packets, "packet");
        let mailboxes = format!("{packets} in {}", count(store.mailboxes, "mailbox", "mailboxes"));
        let (used, free) = (BinaryBytes(store.disk_bytes), BinaryBytes(store.disk_free_bytes));
        let damaged = output::count(store.damaged_records, "damaged record");
        rows.push(("store", format!("{mailboxes}, epoch {}, {damaged}", store.epoch)));
        rows.push(("disk", format!("{used} used, {free} free")));
    }
    let held = count(ranges.held, "mailbox", "mailboxes");
    let responsible = ranges.responsible;
    rows.push(("ranges", format!("{held} held, responsible for {responsible}")));
    let acknowledged = output::count(status.replication.deposits_acknowledged, "packet");
    rows.push(("deposits", format!("{acknowledged} acknowledged")));
    rows.push(("replication lag", lag(&status.replication)));
    let waiting = count(repair.queue_mailboxes, "mailbox waits", "mailboxes wait");
    let round = repair
        .last_comparison_ms
        .map_or("no comparison yet".into(), |ms| format!("last comparison {} ago", age(ms)));
    rows.push(("repair queue", format!("{waiting}; {round}")));
    let fetched = output::count(repair.fetched_packets, "packet");
    let bytes = BinaryBytes(repair.fetched_bytes);
    let (compared, differing) = (repair.compared_mailboxes, repair.differing_mailboxes);
    rows.push(("repair", format!("{compared} compared, {differing} differed, {fetched} ({bytes}) fetched")));
    rows.push(("not admitted", reasons(&admission.refused)));
    rows.push(("over quota", reasons(&status.quotas.refused)));
    let participation = &status.participation;
    let ratio = output::number(participation.deposits_per_ask(), 2);
    let (deposits, asks) = (participation.deposits, participation.asks);
    rows.push(("participation", format!("{deposits} deposits, {asks} asks: {ratio} deposits per ask")));
    rows.push(("traffic", reasons(&status.traffic)));
    rows
}

fn lag(replication: &Replication) -> String {
    match replication.oldest_hand_off_ms {
        Some(ms) => {
            let copies = count(replication.hand_off_packets, "copy waits", "copies wait");
            format!("{}: {copies} for silent replicas", age(ms))
        }
        None => "none: every copy is delivered".into(),
    }
}

fn peer(peer: &Peer) -> [String; 4] {
    let state = if peer.silent { "silent" } else { "answers" };
    let heard = peer.last_heard_ms.map_or("never".into(), |ms| format!("{} ago", age(ms)));
    [peer.peer.clone(), state.into(), heard, peer.addresses.join("\n")]
}

fn participant(row: &Participant) -> [String; 5] {
    let ratio = output::number(row.deposits_per_ask, 2);
    [row.who.name().into(), row.key.clone(), row.deposits.to_string(), row.asks.to_string(), ratio]
}

/// `future 3, not listed 1`, or a word for nothing.
fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let shown: Vec<String> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{} {count}", name.replace('_', " ")))
        .collect();
    if shown.is_empty() { "none".into() } else { shown.join(", ") }
}

fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Milliseconds below ten seconds, whole units above.
fn age(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { HumanDuration(Duration::from_millis(ms)).to_string() }
}
