//! One public synthesis per mailbox and action with evidence.

use super::JobError;
use super::checkpoint::{Partitioned, Plan, WORK_VERSION, Work};
use super::mailboxes::each_mailbox;
use super::partition::{Buckets, Layout, RECORD_BYTES, Record};
use super::pass::{Pass, Progress};
use crate::address::Address;
use crate::domain::mean_signal;
use crate::limits::{PACKET_BYTES, PACKET_SIGNED_BYTES, SLOTS};
use crate::merge::{self, Batch, Question, Situation, Situations, answer, lineage_root, live, synthesis};
use crate::packet::{AuthorKey, Verified};
use ndarray::ArrayView2;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What to refresh, and how.
pub struct Refresh<'a> {
    pub pass: Pass<'a>,
    /// Who signs the result.
    pub key: &'a AuthorKey,
    /// Unix ms; `None` is the largest `observed at` of the input.
    pub as_of: Option<u64>,
    /// Folder for what is done so far; removed at the end.
    pub work: PathBuf,
    /// Go on with what an interrupted job left there.
    pub resume: bool,
}

/// What the work was and took.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub packets: u64,
    pub syntheses_read: u64,
    pub rejected: u64,
    /// Mailboxes with at least one synthesis.
    pub mailboxes: u64,
    /// Bytes read from the input, spilled to disk and read back.
    pub bytes: u64,
    pub as_of_ms: u64,
    /// Time in which signatures were checked; part of `read_time`.
    pub check_time: Duration,
    pub read_time: Duration,
    pub merge_time: Duration,
    /// Whether something of an interrupted job was used.
    pub resumed: bool,
}

/// Unsigned syntheses by ascending (address, action), bucket by bucket.
pub struct Refreshed {
    pub report: Report,
    pub work: Work,
    results: Vec<Option<Vec<Record>>>,
}

impl Refreshed {
    pub fn buckets(&self) -> usize {
        self.results.len()
    }

    /// The syntheses of one bucket.
    ///
    /// # Errors
    /// I/O; damage.
    pub fn bucket(&self, bucket: usize) -> Result<Vec<Record>, JobError> {
        match &self.results[bucket] {
            Some(records) => Ok(records.clone()),
            None => Ok(self.work.read_result(bucket)?.unwrap_or_default()),
        }
    }
}

impl Refresh<'_> {
    /// Does all the work but signing and writing.
    ///
    /// # Errors
    /// Whatever stops the job; what is done stays for `resume`.
    pub fn run(&self, progress: impl Fn(Progress) + Sync) -> Result<Refreshed, JobError> {
        let Pass { schema, view, shard, checks_signatures, memory_bytes, .. } = self.pass;
        let (announced, identity) = self.pass.input.describe(&schema.id())?;
        let plan = Plan {
            version: WORK_VERSION,
            input: identity,
            view: view.id(),
            author: *self.key.public(),
            as_of: self.as_of,
            shard,
            checks_signatures,
            layout: Layout::for_records(announced * self.pass.copies(), memory_bytes),
        };
        let (work, plan) = Work::open(&self.work, &plan, self.resume)?;
        let mut report = Report::default();
        let began = Instant::now();
        let known = if plan.layout.in_memory { None } else { work.read::<Partitioned>("partition.json")? };
        let (mut buckets, partitioned) = match known {
            Some(partitioned) => {
                report.resumed = true;
                (Buckets::reopen(work.folder(), partitioned.lengths.clone())?, partitioned)
            }
            None => {
                let (buckets, found, check_time) =
                    self.pass.run(plan.layout, work.folder(), announced, &progress)?;
                report.check_time = check_time;
                if !plan.layout.in_memory {
                    work.write("partition.json", &found)?;
                }
                (buckets, found)
            }
        };
        report.read_time = began.elapsed();
        report.packets = partitioned.packets;
        report.syntheses_read = partitioned.syntheses;
        report.rejected = partitioned.rejected;
        let records: u64 = partitioned.lengths.iter().sum();
        report.bytes = partitioned.packets * PACKET_BYTES as u64;
        if !plan.layout.in_memory {
            report.bytes += 2 * records * RECORD_BYTES as u64;
        }
        report.as_of_ms = schema.floor_time(self.as_of.unwrap_or(partitioned.latest_ms));

        let began = Instant::now();
        let mut results = Vec::with_capacity(partitioned.lengths.len());
        let mut done = 0;
        for (bucket, &length) in partitioned.lengths.iter().enumerate() {
            if !plan.layout.in_memory && work.has_result(bucket) {
                report.resumed = true;
                results.push(None);
            } else {
                let syntheses = self.syntheses(buckets.take(bucket)?, report.as_of_ms)?;
                if plan.layout.in_memory {
                    results.push(Some(syntheses));
                } else {
                    work.write_result(bucket, &syntheses)?;
                    results.push(None);
                }
            }
            done += length;
            progress(Progress::Merged { done, total: records });
        }
        report.merge_time = began.elapsed();
        Ok(Refreshed { report, work, results })
    }

    /// The syntheses of a bucket's mailboxes, unsigned, by ascending (address, action).
    fn syntheses(&self, records: Vec<Record>, as_of_ms: u64) -> Result<Vec<Record>, JobError> {
        each_mailbox(self.pass.engine, &records, |address, packets| self.mailbox(address, &packets, as_of_ms))
    }

    fn mailbox(
        &self,
        address: &Address,
        packets: &[Verified],
        as_of_ms: u64,
    ) -> Result<Vec<Record>, JobError> {
        let Pass { schema, view, engine, .. } = self.pass;
        let live = live(packets, as_of_ms);
        let Some(first) = live.first() else { return Ok(vec![]) };
        let scope = *first.packet.scope();
        let lineage = lineage_root(live.iter().map(|live| live.id));
        let mut by_action: Vec<(Option<u16>, Vec<[i8; SLOTS]>)> = Vec::new();
        for live in &live {
            let (action, signal) = (live.packet.action(), *live.packet.signal());
            match by_action.binary_search_by_key(&action, |(action, _)| *action) {
                Ok(at) => by_action[at].1.push(signal),
                Err(at) => by_action.insert(at, (action, vec![signal])),
            }
        }
        let signals: Vec<[i8; SLOTS]> = by_action.iter().map(|(_, signals)| mean_signal(signals)).collect();
        let batch =
            Batch::new(live, merge::Layout::of(schema, view), |signals| engine.embed(&view.metric, signals));
        let rows = ArrayView2::from_shape((signals.len(), SLOTS), signals.as_flattened());
        let rows = rows.expect("whole rows of 128 slots");
        let queries = engine.embed(&view.metric, rows);
        let question = Question { schema, view, batch: &batch, ask_ms: as_of_ms };
        let answers = answer(question, Situations::public(rows, queries.view()), |job| engine.merge(job));
        let mut syntheses = Vec::with_capacity(signals.len());
        for ((signal, answer), (action, _)) in signals.iter().zip(&answers).zip(&by_action) {
            let situation = Situation { signal, scope };
            if let Some(draft) = synthesis(schema, view, answer, *action, situation, lineage, as_of_ms) {
                let mut bytes = [0; PACKET_SIGNED_BYTES];
                bytes.copy_from_slice(&self.key.build(&draft)?.as_bytes()[..PACKET_SIGNED_BYTES]);
                syntheses.push(Record { address: *address, bytes });
            }
        }
        Ok(syntheses)
    }
}
