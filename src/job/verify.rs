//! Whether the syntheses of a set of packets are what their evidence gives, bit for bit.

use super::JobError;
use super::checkpoint::Partitioned;
use super::mailboxes::each_mailbox;
use super::partition::Layout;
use super::pass::{Pass, Progress};
use crate::packet::{Id, Verified};
use crate::proof::{Finding, judge_mailbox};
use std::path::Path;
use std::time::Duration;

/// The findings of a job.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub packets: u64,
    pub rejected: u64,
    pub equal: u64,
    pub not_verifiable: u64,
    /// Ids of forged syntheses, ascending.
    pub forged: Vec<Id>,
    /// Every synthesis, ascending by id.
    pub findings: Vec<(Id, Finding)>,
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
        let Pass { schema, view, engine, .. } = *pass;
        let judged = |packets: &[Verified]| judge_mailbox(packets, schema, view, engine);
        findings.extend(each_mailbox(engine, &records, |_, packets| Ok(judged(&packets)))?);
        done += length;
        progress(Progress::Merged { done, total });
    }
    // Under several tables a synthesis lies, and is found, at several addresses: at one of them it
    // stands beside the evidence it was made from.
    findings.sort_unstable();
    findings.dedup_by_key(|(id, _)| *id);
    let mut report = Report { packets, rejected, check_time, ..Report::default() };
    for &(id, finding) in &findings {
        match finding {
            Finding::Equal => report.equal += 1,
            Finding::NotVerifiable(_) => report.not_verifiable += 1,
            Finding::Forged => report.forged.push(id),
        }
    }
    report.findings = findings;
    Ok(report)
}
