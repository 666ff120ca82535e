//! `qis inspect`: what is in a packet file, a store or a mailbox.

mod syntheses;

use super::places::Origin;
use super::{Compute, Failure, data, output};
use crate::address::Address;
use crate::domain::Domain;
use crate::limits::PACKET_BYTES;
use crate::packet::{FILE_HEADER_BYTES, FileError, Kind, Packet, PacketFile, hex, unhex};
use crate::store::{DiskStore, PacketStore};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  qis inspect heart.qpk --domain heart.toml --verify
  qis inspect /var/lib/qis --domain heart.toml --verify-synthesis
  qis inspect --address 5f2c.. --peer 192.0.2.7:4001 --domain heart.toml --verify-synthesis")]
pub struct Arguments {
    /// Packet file, or folder of a store that no node uses now
    #[arg(required_unless_present = "address")]
    path: Option<PathBuf>,
    /// Mailbox, by the 64 hexadecimal digits of its address; with --verify-synthesis
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox_address, requires = "verify_synthesis", conflicts_with = "path")]
    address: Option<Address>,
    #[command(flatten)]
    origin: Origin,
    /// Domain file, to show actions and outcomes by name and in their units
    #[arg(long, value_name = "FILE")]
    domain: Option<PathBuf>,
    /// First packet to show
    #[arg(long, value_name = "I", default_value_t = 0)]
    from: u64,
    /// Packets or mailboxes to show at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Check the signatures of all packets, not only of those shown
    #[arg(long)]
    verify: bool,
    /// Recompute every synthesis from the evidence beside it: equal, forged or not verifiable
    #[arg(long, requires = "domain")]
    verify_synthesis: bool,
    /// View under which syntheses are recomputed [default: the domain's first]
    #[arg(long, value_name = "NAME", requires = "verify_synthesis")]
    view: Option<String>,
    #[command(flatten)]
    compute: Compute,
    /// One JSON object per packet, synthesis or mailbox
    #[arg(long)]
    json: bool,
}

fn mailbox_address(text: &str) -> Result<Address, String> {
    let bytes = unhex(text).and_then(|bytes| Address::try_from(bytes).ok());
    bytes.ok_or_else(|| "64 hexadecimal digits expected".into())
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    if arguments.path.is_some() && arguments.origin.is_named() {
        return Err(Failure::usage(
            "--peer, --mailbox, --store and --packets go with --address, not with a path",
        ));
    }
    if arguments.verify_synthesis {
        return verify_syntheses(&arguments);
    }
    // Without an address there is a path.
    let Some(path) = &arguments.path else { return Ok(()) };
    if path.is_dir() {
        return store(path, &arguments);
    }
    packets(path, &arguments)
}

fn verify_syntheses(arguments: &Arguments) -> Result<(), Failure> {
    let Some(domain) = arguments.domain.as_deref().map(data::load).transpose()? else { return Ok(()) };
    let judging = syntheses::Judging {
        domain: &domain,
        view: arguments.view.as_deref(),
        compute: &arguments.compute,
        limit: arguments.limit,
        json: arguments.json,
    };
    match (&arguments.address, &arguments.path) {
        (Some(address), _) => judging.mailbox(address, &arguments.origin),
        (None, Some(path)) => judging.path(path),
        (None, None) => Ok(()),
    }
}

/// The packets of a file.
fn packets(path: &Path, arguments: &Arguments) -> Result<(), Failure> {
    let domain = arguments.domain.as_deref().map(data::load).transpose()?;
    let file = PacketFile::open(path)?;
    if !arguments.json {
        output::line(&format!("{} packets of schema {}", file.count, hex(&file.schema)));
    }
    let (shown_path, count) = (path.display().to_string(), file.count);
    let (mut good, mut damaged, mut shown) = (0u64, 0u64, 0);
    // A damaged packet is named; the others can still be looked at.
    let mut problems = vec![];
    let mut rows = vec![];
    for (index, packet) in file.enumerate() {
        let index = index as u64;
        let show = index >= arguments.from && shown < arguments.limit;
        if output::closed() || shown == arguments.limit && !arguments.verify {
            break;
        }
        if !show && !arguments.verify {
            continue;
        }
        let packet = match packet.and_then(|packet| verified(path, index, &packet)) {
            Ok(packet) => packet,
            Err(error) => {
                damaged += 1;
                if problems.len() < arguments.limit {
                    problems.push(error);
                }
                continue;
            }
        };
        good += 1;
        if !show {
            continue;
        }
        shown += 1;
        match arguments.json {
            true => output::json(&object(index, &packet, domain.as_ref())),
            false => rows.push(row(index, &packet, domain.as_ref())),
        }
    }
    let unchecked = count.saturating_sub(good + damaged);
    let not_checked = format!("{unchecked} not checked; --verify checks all");
    if !arguments.json {
        output::table(["index", "packet", "kind", "author", "seq", "cases", "action", "outcomes"], rows);
        let verdict = format!("{good} of {} have good signatures", output::count(count, "packet"));
        match unchecked {
            0 => output::line(&verdict),
            _ => output::line(&format!("{verdict}, {not_checked}")),
        }
    } else if unchecked > 0 {
        output::note(&format!("{}: {not_checked}", output::count(count, "packet")));
    }
    problems.iter().for_each(|error| output::note(&error.to_string()));
    match damaged {
        0 => Ok(()),
        damaged => Err(Failure::rejected(Damaged { path: shown_path, damaged, count })),
    }
}

/// The packet, if its author signed it.
fn verified(path: &Path, index: u64, packet: &Packet) -> Result<Packet, FileError> {
    let offset = FILE_HEADER_BYTES as u64 + PACKET_BYTES as u64 * index;
    let named = |source| FileError::Packet { path: path.into(), index, offset, source };
    packet.verify().map(|verified| *verified.packet()).map_err(named)
}

#[derive(Debug, thiserror::Error)]
#[error("{path}: {damaged} of {count} packets are damaged or not signed by their author")]
struct Damaged {
    path: String,
    damaged: u64,
    count: u64,
}

fn kind(packet: &Packet) -> &'static str {
    match packet.kind() {
        Kind::Observed => "observed",
        Kind::Synthesis => "synthesis",
        Kind::Retraction => "retraction",
    }
}

fn action(packet: &Packet, domain: Option<&Domain>) -> Option<String> {
    let index = packet.action()?;
    let named = domain.and_then(|domain| domain.schema.actions.get(usize::from(index)));
    Some(named.cloned().unwrap_or_else(|| index.to_string()))
}

/// Name, value and standard deviation (or half-width) of each outcome present: in its unit where the
/// domain is known, else over 0..=65,535.
fn outcomes(packet: &Packet, domain: Option<&Domain>) -> Vec<(String, f64, f64)> {
    (0..packet.outcomes())
        .filter(|index| packet.mask() >> index & 1 == 1)
        .map(|index| {
            let (mean, spread) = packet.value(index);
            let (mean, spread) = (f64::from(mean), f64::from(spread));
            match domain.and_then(|domain| domain.schema.outcomes.get(index)) {
                None => (format!("outcome {index}"), mean, spread),
                Some(outcome) => {
                    let width = outcome.high - outcome.low;
                    (outcome.name.clone(), outcome.value(mean), spread / 65_535.0 * width)
                }
            }
        })
        .collect()
}

fn row(index: u64, packet: &Packet, domain: Option<&Domain>) -> [String; 8] {
    let values = outcomes(packet, domain);
    let values = values.iter().map(|(name, mean, spread)| format!("{name} {mean:.3} ± {spread:.3}"));
    [
        index.to_string(),
        hex(&packet.id()[..8]),
        kind(packet).into(),
        hex(&packet.author()[..8]),
        packet.sequence().to_string(),
        packet.cases().to_string(),
        action(packet, domain).unwrap_or_else(|| "-".into()),
        values.collect::<Vec<_>>().join(", "),
    ]
}

fn object(index: u64, packet: &Packet, domain: Option<&Domain>) -> Json {
    let values: Vec<Json> = outcomes(packet, domain)
        .into_iter()
        .map(|(name, mean, spread)| json!({"name": name, "value": mean, "spread": spread}))
        .collect();
    let mut object = json!({
        "index": index,
        "packet": hex(&packet.id()),
        "kind": kind(packet),
        "author": hex(packet.author()),
        "sequence": packet.sequence(),
        "schema": hex(packet.schema()),
        "scope": hex(packet.scope()),
        "reference": hex(packet.reference()),
        "cases": packet.cases(),
        "action": action(packet, domain),
        "observed_at_ms": packet.observed_at(),
        "expires_at_ms": packet.expires_at(),
        "outcomes": values,
        "note": packet.note(),
    });
    if let Some(record) = packet.synthesis() {
        object["synthesis"] = json!({
            "view": hex(&record.view),
            "evidence_packets": record.evidence_packets,
            "authors": record.authors,
            "effective_cases": f64::from(record.effective_cases_256) / 256.0,
            "verdict": record.verdict.name(),
            "level_percent": record.level,
        });
    }
    object
}

/// The mailboxes of a store.
fn store(folder: &Path, arguments: &Arguments) -> Result<(), Failure> {
    let (store, report) = DiskStore::open(folder)?;
    if let Some(loss) = report.loss {
        output::note(&loss.to_string());
    }
    let mailboxes = store.addresses()?;
    if arguments.json {
        for (address, stat) in mailboxes.iter().take(arguments.limit) {
            output::json(&json!({
                "address": hex(address),
                "packets": stat.packets,
                "observed": stat.observed,
                "syntheses": stat.syntheses,
                "retractions": stat.retractions,
            }));
        }
        return Ok(());
    }
    output::line(&format!("{}: {} mailboxes", folder.display(), mailboxes.len()));
    output::table(
        ["address", "packets", "observed", "syntheses", "retractions"],
        mailboxes.iter().take(arguments.limit).map(|(address, stat)| {
            [
                hex(&address[..16]),
                stat.packets.to_string(),
                stat.observed.to_string(),
                stat.syntheses.to_string(),
                stat.retractions.to_string(),
            ]
        }),
    );
    Ok(())
}
