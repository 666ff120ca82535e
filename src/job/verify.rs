//! Whether the syntheses of a set of packets are what their evidence gives, bit for bit.

use super::JobError;
use super::checkpoint::Partitioned;
use super::mailboxes::each_mailbox;
use super::partition::Layout;
use super::pass::{Pass, Progress};
use crate::limits::SLOTS;
use crate::merge::{self, Batch, Live, Question, Situation, Situations, answer, lineage_root, live, synthesis};
use crate::packet::{AuthorKey, Id, Kind, Verified};
use ndarray::ArrayView2;
use std::path::Path;
use std::time::Duration;

/// What is known of one synthesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Its evidence is there and gives the same bits.
    Equal,
    /// Its evidence is there and gives other bits.
    Forged,
    /// Evidence is missing, retracted or expired, or it names another view.
    NotVerifiable,
}

/// The findings of a job.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub packets: u64,
    pub rejected: u64,
    pub equal: u64,
    pub not_verifiable: u64,
    /// Ids of forged syntheses, ascending.
    pub forged: Vec<Id>,
    pub check_time: Duration,
}

/// Verifies every synthesis that the pass brings along ([`Pass::keeps_syntheses`]). `folder` is for
/// buckets that do not fit into memory.
///
/// # Errors
/// Whatever stops the job.
pub fn verify(pass: &Pass, folder: &Path, progress: impl Fn(Progress) + Sync) -> Result<Report, JobError> {
    let (announced, _) = pass.input.describe(&pass.schema.id())?;
    let layout = Layout::for_records(announced * pass.copies(), pass.memory_bytes);
    let (mut buckets, found, check_time) = pass.run(layout, folder, announced, &progress)?;
    let Partitioned { packets, rejected, lengths, .. } = found;
    let total = lengths.iter().sum();
    let mut findings = Vec::new();
    let mut done = 0;
    for (bucket, length) in lengths.iter().enumerate() {
        let records = buckets.take(bucket)?;
        findings.extend(each_mailbox(pass.engine, &records, |_, packets| Ok(mailbox(pass, &packets)))?);
        done += length;
        progress(Progress::Merged { done, total });
    }
    // Under several tables a synthesis lies, and is found, at several addresses: at one of them it
    // stands beside the evidence it was made from.
    findings.sort_unstable_by_key(|&(id, finding)| (id, finding as u8));
    findings.dedup_by_key(|(id, _)| *id);
    let mut report = Report { packets, rejected, check_time, ..Report::default() };
    for (id, finding) in findings {
        match finding {
            Finding::Equal => report.equal += 1,
            Finding::NotVerifiable => report.not_verifiable += 1,
            Finding::Forged => report.forged.push(id),
        }
    }
    Ok(report)
}

fn mailbox(pass: &Pass, packets: &[Verified]) -> Vec<(Id, Finding)> {
    let (syntheses, evidence): (Vec<&Verified>, Vec<&Verified>) =
        packets.iter().partition(|packet| packet.kind() == Kind::Synthesis);
    syntheses.into_iter().map(|packet| (packet.id(), finding(pass, packet, &evidence))).collect()
}

fn finding(pass: &Pass, packet: &Verified, evidence: &[&Verified]) -> Finding {
    let Pass { schema, view, engine, .. } = *pass;
    let Some(record) = packet.synthesis() else { return Finding::NotVerifiable };
    let asked_at = packet.observed_at();
    if record.view != view.id() {
        return Finding::NotVerifiable;
    }
    // Evidence that came after the synthesis was made is not in its lineage.
    let all = live(evidence.iter().copied(), asked_at);
    let earlier = || live(evidence.iter().copied().filter(|p| p.observed_at() <= asked_at), asked_at);
    let fits = |live: &Vec<Live>| lineage_root(live.iter().map(|live| live.id)) == *packet.reference();
    let Some(live) = Some(all).filter(fits).or_else(|| Some(earlier()).filter(fits)) else {
        return Finding::NotVerifiable;
    };
    let batch = Batch::new(live, merge::Layout::of(schema, view), |signals| engine.embed(&view.metric, signals));
    let signal = ArrayView2::from_shape((1, SLOTS), packet.signal().as_slice());
    let signal = signal.expect("a row of 128 slots");
    let query = engine.embed(&view.metric, signal);
    let question = Question { schema, view, batch: &batch, ask_ms: asked_at };
    let answers = answer(question, Situations::public(signal, query.view()), |job| engine.merge(job));
    let situation = Situation { signal: packet.signal(), scope: *packet.scope() };
    let draft = answers.first().and_then(|answer| {
        synthesis(schema, view, answer, packet.action(), situation, *packet.reference(), asked_at)
    });
    // What others may add: a note and an expiry. All else follows from the evidence.
    let key = AuthorKey::from_seed([0; 32]);
    let expected = draft.and_then(|mut draft| {
        draft.expires_at = packet.expires_at();
        draft.note = packet.note().to_owned();
        key.build(&draft).ok()
    });
    match expected {
        Some(expected) if super::digest::content(&expected) == super::digest::content(packet) => {
            Finding::Equal
        }
        _ => Finding::Forged,
    }
}
