//! Recomputes the answers of a proof.

use super::fields::{difference, fields};
use super::file::{Proof, ProofError};
use super::recompute;
use crate::address::{Address, Addresser};
use crate::domain::{Domain, View};
use crate::embed::cpu::embed_one;
use crate::engine::Engine;
use crate::limits::{SLOTS, TALLY_PACKETS_MAX};
use crate::merge::{lineage_root, live};
use crate::packet::{Id, Verified, hex, verify_batch};
use std::collections::{BTreeMap, HashMap};

/// What is known of one answer, or of a whole proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These packets give this answer, bit for bit.
    Equal,
    /// They give another one, or are not what they seem; why.
    Forged(String),
    /// Something is missing; what.
    NotVerifiable(String),
}

/// The findings about a proof.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Name of the domain and of the view.
    pub domain: String,
    pub view: String,
    pub packets: usize,
    /// Authors of the packets.
    pub authors: usize,
    /// One per answer, with its row and lineage root.
    pub answers: Vec<(u64, Id, Outcome)>,
    /// The worst of all.
    pub outcome: Outcome,
}

impl Outcome {
    /// `equal`, `forged` or `not verifiable`.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Equal => "equal",
            Outcome::Forged(_) => "forged",
            Outcome::NotVerifiable(_) => "not verifiable",
        }
    }
}

/// Questions that read the same mailboxes at the same time: addresses and ask time.
type Reading = (Vec<Address>, u64);

/// Checks signatures, recomputes every answer and compares it.
///
/// # Errors
/// The domain inside is none that this program can read: nothing of the proof can be checked.
pub fn check(proof: &Proof, engine: &Engine) -> Result<Checked, ProofError> {
    let field = |field: &str, problem: String| ProofError::Field { field: field.into(), problem };
    let domain = Domain::parse("the proof's domain", &proof.domain)
        .map_err(|error| field("domain", error.to_string()))?;
    let view = domain
        .view(Some(&proof.view_name))
        .ok_or_else(|| field("view_name", format!("the domain has no view `{}`", proof.view_name)))?;
    let mut checked = Checked {
        domain: domain.name.clone(),
        view: view.name.clone(),
        packets: proof.packets.len(),
        authors: 0,
        answers: vec![],
        outcome: Outcome::Equal,
    };
    let whole = match packets(proof, &domain, view) {
        Ok(packets) => {
            let mut authors: Vec<&Id> = packets.iter().map(|packet| packet.author()).collect();
            authors.sort_unstable();
            authors.dedup();
            checked.authors = authors.len();
            answers(proof, &domain, view, engine, &packets, &mut checked)
        }
        Err(problem) => Some(problem),
    };
    if let Some(problem) = whole {
        checked.outcome = Outcome::Forged(problem);
        return Ok(checked);
    }
    let found = |wanted: fn(&Outcome) -> bool| {
        let first = checked.answers.iter().find(|(_, _, outcome)| wanted(outcome));
        first.map(|(row, _, outcome)| match outcome {
            Outcome::Forged(why) => Outcome::Forged(format!("row {row}: {why}")),
            Outcome::NotVerifiable(why) => Outcome::NotVerifiable(format!("row {row}: {why}")),
            Outcome::Equal => Outcome::Equal,
        })
    };
    checked.outcome = found(|outcome| matches!(outcome, Outcome::Forged(_)))
        .or_else(|| found(|outcome| matches!(outcome, Outcome::NotVerifiable(_))))
        .unwrap_or(Outcome::Equal);
    Ok(checked)
}

/// The packets, where ids and signatures are what they should be; else the first thing that is not.
fn packets(proof: &Proof, domain: &Domain, view: &View) -> Result<Vec<Verified>, String> {
    let compare = |what: &str, said: &Id, found: Id| match *said == found {
        true => Ok(()),
        false => Err(format!("{what}: the header says {}, the domain inside has {}", hex(said), hex(&found))),
    };
    compare("schema", &proof.schema, domain.schema.id())?;
    compare("view", &proof.view, view.id())?;
    let mut last: Option<Id> = None;
    let mut verified = Vec::with_capacity(proof.packets.len());
    for (index, packet) in verify_batch(&proof.packets).into_iter().enumerate() {
        let packet = packet.map_err(|error| format!("packet {index}: {error}"))?;
        let id = packet.id();
        if *packet.schema() != proof.schema {
            return Err(format!("packet {index}: it is of another schema, {}", hex(packet.schema())));
        }
        if last.is_some_and(|last| last >= id) {
            return Err(format!("packet {index}: packets stand in ascending order of id, each once"));
        }
        last = Some(id);
        verified.push(packet);
    }
    Ok(verified)
}

/// Judges each answer; gives what is wrong with the proof as a whole.
fn answers(
    proof: &Proof,
    domain: &Domain,
    view: &View,
    engine: &Engine,
    packets: &[Verified],
    checked: &mut Checked,
) -> Option<String> {
    let addresser = Addresser::new(view);
    let mut mailboxes: HashMap<Address, Vec<usize>> = HashMap::new();
    for (index, packet) in packets.iter().enumerate() {
        let embedding = match addresser.needs_fingerprints() {
            true => embed_one(&view.metric, packet.signal()),
            false => [0; SLOTS],
        };
        for address in addresser.deposit(packet.scope(), &embedding) {
            mailboxes.entry(address).or_default().push(index);
        }
    }
    let mut readings: BTreeMap<Reading, Vec<usize>> = BTreeMap::new();
    for (index, claim) in proof.claims.iter().enumerate() {
        let embedding = embed_one(&view.metric, &claim.asked.signal);
        let mut addresses: Vec<Address> =
            claim.asked.scopes.iter().flat_map(|scope| addresser.ask(scope, &embedding)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        readings.entry((addresses, claim.asked.ask_ms)).or_default().push(index);
    }
    let mut used = vec![false; packets.len()];
    let mut outcomes: Vec<Option<Outcome>> = vec![None; proof.claims.len()];
    for ((addresses, ask_ms), claims) in &readings {
        let rows = addresses.iter().filter_map(|address| mailboxes.get(address)).flatten();
        let mut rows: Vec<usize> = rows.copied().collect();
        rows.sort_unstable();
        rows.dedup();
        rows.iter().for_each(|&row| used[row] = true);
        let live = live(rows.iter().map(|&row| &packets[row]), *ask_ms);
        if live.len() as u64 > TALLY_PACKETS_MAX {
            return Some(format!("{} packets are more than one exact sum holds", live.len()));
        }
        let (dead, lineage) = (rows.len() - live.len(), lineage_root(live.iter().map(|live| live.id)));
        let signals: Vec<[i8; SLOTS]> =
            claims.iter().map(|&index| proof.claims[index].asked.signal).collect();
        let found = recompute::answers(engine, &domain.schema, view, live, &signals, *ask_ms);
        for (&index, answer) in claims.iter().zip(&found) {
            let claim = &proof.claims[index];
            let outcome = match difference(&claim.answer, &fields(&domain.schema, answer)) {
                _ if claim.lineage != lineage => Outcome::NotVerifiable(format!(
                    "the live packets here have the lineage root {}, the answer was made from {}: packets are missing, or were added, retracted or have expired by its ask time ({dead} of {} here do not count)",
                    hex(&lineage[..8]),
                    hex(&claim.lineage[..8]),
                    rows.len(),
                )),
                None => Outcome::Equal,
                Some((field, said, found)) => {
                    Outcome::Forged(format!("{field}: the proof says {said}, its packets give {found}"))
                }
            };
            outcomes[index] = Some(outcome);
        }
    }
    for (claim, outcome) in proof.claims.iter().zip(outcomes) {
        let outcome = outcome.unwrap_or(Outcome::NotVerifiable("no answer".into()));
        checked.answers.push((claim.asked.row, claim.lineage, outcome));
    }
    let stray = used.iter().position(|used| !used)?;
    Some(format!(
        "packet {stray} ({}) lies in no mailbox that a question reads",
        hex(&packets[stray].id()[..8])
    ))
}
