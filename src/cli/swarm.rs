//! `qis swarm`: found a swarm, and admit or revoke its storage nodes and authors.

use super::places::{Joining, join};
use super::{Failure, data, output, peer_address};
use crate::domain::table::{parse_time, time_text};
use crate::net::{Multiaddr, PeerId};
use crate::node::lists::{ListKind, Lists, Validity, is_public_key};
use crate::packet::{Id, hex, unhex};
use crate::run::AuthorFile;
use crate::run::swarm::{Change, Keeper, Subject, What, load, name};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Found a swarm: a secret key, and two signed lists that admit nobody yet
    #[command(after_help = "Example:
  qis swarm create ward
  qis swarm admit ward --node 12D3KooW.. --author me.json --days 365
Then give ward/swarm.qsl to the nodes, and keep ward/swarm.key safe: it alone admits and revokes.")]
    Create(Create),
    /// Admit storage nodes and authors, or extend their time
    Admit(Admit),
    /// Take storage nodes and authors off the lists
    Revoke(Revoke),
    /// Check the signatures of the lists, and show who is on them
    Show(Show),
    /// Give the lists to running nodes, which pass them on
    Publish(Publish),
}

#[derive(clap::Args)]
struct Create {
    /// Folder of the swarm, made where it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Let every node keep mailboxes, until the first node is admitted
    #[arg(long)]
    open_nodes: bool,
    /// Take the packets of every author, until the first author is admitted
    #[arg(long)]
    open_authors: bool,
    /// For a swarm whose swarm.qsl is lost everywhere: begin anew with empty lists of higher epochs
    #[arg(long, conflicts_with_all = ["open_nodes", "open_authors"])]
    new_lists: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct Who {
    /// Peer id of a storage node, as `qis node` prints it; may be repeated
    #[arg(long, value_name = "PEER_ID", num_args = 1.., value_parser = peer_id)]
    node: Vec<PeerId>,
    /// Author key in hexadecimal, or an author file, of which only the public key is taken; may be
    /// repeated
    #[arg(long, value_name = "HEX|FILE", num_args = 1..)]
    author: Vec<String>,
}

#[derive(clap::Args)]
struct Admit {
    /// Folder of the swarm
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    who: Who,
    /// For so many days from now [default: without end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: Option<u64>,
    /// Until this time, UTC: 2030-12-31, or 2030-12-31T08:30
    #[arg(long, value_name = "DATE", value_parser = time, conflicts_with = "days")]
    until: Option<u64>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Revoke {
    /// Folder of the swarm
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    who: Who,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Show {
    /// Folder of the swarm or of a node's store, or a file of signed lists
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Publish {
    /// Folder of the swarm, or a file of signed lists
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// A node of the swarm: IP:PORT or a multiaddress; one is enough
    #[arg(long, value_name = "ADDRESS", value_parser = peer_address, required = true)]
    peer: Vec<Multiaddr>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

fn peer_id(text: &str) -> Result<PeerId, String> {
    text.parse().map_err(|_| "no peer id: `qis node` prints its own, like 12D3KooW..".into())
}

fn time(text: &str) -> Result<u64, String> {
    parse_time(text).ok_or_else(|| "no time: write 2030-12-31, or 2030-12-31T08:30 in UTC".into())
}

impl Who {
    fn subjects(&self) -> Result<BTreeSet<Subject>, Failure> {
        let mut subjects: BTreeSet<Subject> =
            self.node.iter().map(|peer| Subject { kind: ListKind::Nodes, key: peer.to_bytes() }).collect();
        for text in &self.author {
            subjects.insert(Subject { kind: ListKind::Authors, key: author(text)?.to_vec() });
        }
        Ok(subjects)
    }
}

/// The author key that an argument means.
fn author(text: &str) -> Result<Id, Failure> {
    let wrong = |problem: &str| Failure::usage(format!("--author {text}: {problem}"));
    match unhex(text).and_then(|bytes| Id::try_from(bytes).ok()) {
        Some(key) if is_public_key(&key) => Ok(key),
        Some(_) => Err(wrong("is no author key (not a point of the curve, or of small order): copy it anew")),
        None => AuthorFile::public(Path::new(text))?.ok_or_else(|| {
            wrong("is neither an author key, 64 hexadecimal digits, nor the path of an author file")
        }),
    }
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Create(arguments) => create(&arguments),
        Command::Admit(arguments) => admit(&arguments),
        Command::Revoke(arguments) => {
            let subjects = arguments.who.subjects()?;
            let mut keeper = Keeper::open(&arguments.folder)?;
            let changes = keeper.revoke(&subjects, data::now_ms())?;
            report(&keeper, &changes, arguments.json);
            Ok(())
        }
        Command::Show(arguments) => {
            let lists = load(&arguments.path)?;
            show(&lists, arguments.json);
            Ok(())
        }
        Command::Publish(arguments) => publish(arguments),
    }
}

fn publish(arguments: Publish) -> Result<(), Failure> {
    super::start_log();
    let lists = load(&arguments.path)?;
    let told = data::runtime()?.block_on(async {
        let client = join(arguments.peer, &Joining::default()).await?;
        let told = client.give_lists(&lists).await;
        client.shutdown().await;
        Ok::<_, Failure>(told)
    })?;
    let refused: Vec<(&PeerId, &String)> =
        told.iter().filter_map(|(peer, result)| Some((peer, result.as_ref().err()?))).collect();
    let news = told.iter().filter(|(_, result)| *result == Ok(true)).count();
    if arguments.json {
        let refused: Vec<Json> = refused
            .iter()
            .map(|(peer, reason)| json!({ "peer": peer.to_string(), "reason": reason }))
            .collect();
        output::json(&json!({ "nodes": told.len(), "news": news, "refused": refused }));
    } else {
        let nodes = output::count(told.len() as u64, "node");
        output::line(&format!(
            "{nodes} told: news to {news}, known to {}",
            told.len() - news - refused.len()
        ));
        refused.iter().for_each(|(peer, reason)| output::note(&format!("{peer}: {reason}")));
    }
    match told.len() > refused.len() {
        true => Ok(()),
        false => Err(Failure::failed(NobodyTook)),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no node took the lists: are they of this swarm?")]
struct NobodyTook;

fn create(arguments: &Create) -> Result<(), Failure> {
    let folder = &arguments.folder;
    let closed = [(ListKind::Nodes, arguments.open_nodes), (ListKind::Authors, arguments.open_authors)];
    let closed: Vec<ListKind> = closed.into_iter().filter(|(_, open)| !open).map(|(kind, _)| kind).collect();
    let keeper = match arguments.new_lists {
        true => Keeper::renew_lists(folder, data::now_ms())?,
        false => Keeper::create(folder, &closed, data::now_ms())?,
    };
    report(&keeper, &[], arguments.json);
    Ok(())
}

fn admit(arguments: &Admit) -> Result<(), Failure> {
    let now_ms = data::now_ms();
    let until_ms = match (arguments.days, arguments.until) {
        (Some(days), _) => now_ms + days * DAY_MS,
        (None, Some(until)) if until <= now_ms => {
            let problem = format!("--until {}: is over; to end an admission, use revoke", time_text(until));
            return Err(Failure::usage(problem));
        }
        (None, until) => until.unwrap_or(0),
    };
    let subjects = arguments.who.subjects()?;
    let mut keeper = Keeper::open(&arguments.folder)?;
    let changes = keeper.admit(&subjects, until_ms, now_ms)?;
    report(&keeper, &changes, arguments.json);
    Ok(())
}

/// `node` or `author`.
fn noun(kind: ListKind) -> &'static str {
    match kind {
        ListKind::Nodes => "node",
        ListKind::Authors => "author",
    }
}

fn end(validity: &Validity) -> String {
    match validity.until_ms {
        0 => "without end".into(),
        until_ms => format!("until {}", time_text(until_ms)),
    }
}

fn word(what: What) -> &'static str {
    match what {
        What::Admitted => "admitted",
        What::Extended => "extended",
        What::Unchanged => "unchanged",
        What::Revoked => "revoked",
    }
}

/// What a command did, and what to do with it.
fn report(keeper: &Keeper, changes: &[Change], json: bool) {
    let (lists, path) = (keeper.lists(), keeper.path().display().to_string());
    if json {
        let changes: Vec<Json> = changes
            .iter()
            .map(|change| {
                let Subject { kind, key } = &change.subject;
                json!({
                    "kind": noun(*kind),
                    "key": name(*kind, key),
                    "change": word(change.what),
                    "from_ms": change.validity.from_ms,
                    "until_ms": change.validity.until_ms,
                })
            })
            .collect();
        let (nodes, authors) = lists.epochs();
        output::json(&json!({
            "swarm": hex(lists.swarm()),
            "nodes_epoch": nodes,
            "authors_epoch": authors,
            "file": path,
            "changes": changes,
        }));
        return;
    }
    for change in changes {
        let Subject { kind, key } = &change.subject;
        let until = match change.what {
            What::Revoked => String::new(),
            _ => format!(" {}", end(&change.validity)),
        };
        output::line(&format!("{} {} {}{until}", word(change.what), noun(*kind), name(*kind, key)));
    }
    header(lists);
    match changes.iter().all(|change| change.what == What::Unchanged) && !changes.is_empty() {
        true => output::line("nothing to sign anew"),
        false => output::line(&format!("signed {path}: give it to a node, which tells the others")),
    }
}

fn header(lists: &Lists) {
    let now_ms = data::now_ms();
    output::line(&format!("swarm   {}", hex(lists.swarm())));
    for kind in ListKind::ALL {
        let said = match lists.list(kind) {
            None => "open to everybody: no list".into(),
            Some(list) => {
                let admitted = list.entries().filter(|(_, validity)| validity.holds(now_ms)).count();
                let (epoch, issued, listed) = (list.epoch(), time_text(list.issued_at_ms()), list.len());
                format!("epoch {epoch}, signed {issued}, {listed} listed, {admitted} admitted now")
            }
        };
        output::line(&format!("{:<7} {said}", kind.name()));
    }
}

fn show(lists: &Lists, json: bool) {
    if json {
        let list = |kind: ListKind| {
            lists.list(kind).map(|list| {
                let entries: Vec<Json> = list
                    .entries()
                    .map(|(key, validity)| {
                        json!({
                            "key": name(kind, key),
                            "from_ms": validity.from_ms,
                            "until_ms": validity.until_ms,
                            "admitted": validity.holds(data::now_ms()),
                        })
                    })
                    .collect();
                json!({
                    "epoch": list.epoch(),
                    "issued_at_ms": list.issued_at_ms(),
                    "digest": hex(&list.digest()),
                    "entries": entries,
                })
            })
        };
        output::json(&json!({
            "swarm": hex(lists.swarm()),
            "nodes": list(ListKind::Nodes),
            "authors": list(ListKind::Authors),
        }));
        return;
    }
    header(lists);
    let now_ms = data::now_ms();
    let rows = ListKind::ALL.into_iter().flat_map(|kind| {
        let entries = lists.list(kind).into_iter().flat_map(|list| list.entries());
        entries.map(move |(key, validity)| {
            let state = match (validity.holds(now_ms), validity.ended(now_ms)) {
                (true, _) => "admitted",
                (_, true) => "ended",
                _ => "not yet",
            };
            let until = match validity.until_ms {
                0 => "without end".into(),
                until_ms => time_text(until_ms),
            };
            [noun(kind).into(), name(kind, key), time_text(validity.from_ms), until, state.into()]
        })
    });
    output::table(["kind", "key", "from", "until", "state"], rows);
}
