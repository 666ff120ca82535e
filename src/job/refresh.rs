//! One public synthesis per mailbox and action with evidence.

use super::checkpoint::{Partitioned, Plan, WORK_VERSION, Work};
use super::input::{Block, Input};
use super::partition::{Buckets, Layout, Partition, RECORD_BYTES, Record};
use super::{JobError, io_error};
use crate::address::{Address, Addresser};
use crate::domain::{Schema, View, mean_signal};
use crate::engine::Engine;
use crate::limits::{PACKET_BYTES, PACKET_SIGNED_BYTES, SLOTS, TALLY_PACKETS_MAX};
use crate::merge::{Batch, Question, Situation, answer, lineage_root, live, synthesis};
use crate::packet::{AuthorKey, Field, Kind, Packet, PacketError, Verified, hex, verify_batch};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// What to refresh, and how.
pub struct Refresh<'a> {
    pub input: &'a Input,
    pub schema: &'a Schema,
    pub view: &'a View,
    pub engine: &'a Engine,
    /// Who signs the result.
    pub key: &'a AuthorKey,
    /// Unix ms; `None` is the largest `observed at` of the input.
    pub as_of: Option<u64>,
    /// Whether signatures are checked; a store has checked its own.
    pub checks_signatures: bool,
    /// Memory for packets, in bytes.
    pub memory_bytes: u64,
    /// (index, count) of the part of the address space that is worked on.
    pub shard: (u32, u32),
    /// Folder for what is done so far; removed at the end.
    pub work: PathBuf,
    /// Go on with what an interrupted job left there.
    pub resume: bool,
    /// Where rejected packets are listed, one JSON object a line.
    pub rejected: PathBuf,
}

/// How far the work is, for a progress bar.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Packets read, of so many.
    Read { done: u64, total: u64 },
    /// Packets merged, of so many records.
    Merged { done: u64, total: u64 },
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

/// A line of the list of rejected packets.
#[derive(Serialize)]
struct Rejected {
    file: String,
    offset: u64,
    reason: String,
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
        let (announced, identity) = self.input.describe(&self.schema.id())?;
        let addresser = Addresser::new(self.view);
        let copies = addresser.of_fingerprint(&[0; 32], &[0; 32]).len() as u64;
        let plan = Plan {
            version: WORK_VERSION,
            input: identity,
            view: self.view.id(),
            author: *self.key.public(),
            as_of: self.as_of,
            shard: self.shard,
            checks_signatures: self.checks_signatures,
            layout: Layout::for_records(announced * copies, self.memory_bytes),
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
            None => self.partition(&work, plan.layout, &addresser, announced, &mut report, &progress)?,
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
        report.as_of_ms = self.schema.floor_time(self.as_of.unwrap_or(partitioned.latest_ms));

        let began = Instant::now();
        let mut results = Vec::with_capacity(partitioned.lengths.len());
        let mut done = 0;
        for (bucket, &length) in partitioned.lengths.iter().enumerate() {
            if !plan.layout.in_memory && work.has_result(bucket) {
                report.resumed = true;
                results.push(None);
            } else {
                let syntheses = self.mailboxes(buckets.take(bucket)?, report.as_of_ms)?;
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

    /// The first pass: every packet under its addresses.
    fn partition(
        &self,
        work: &Work,
        layout: Layout,
        addresser: &Addresser,
        announced: u64,
        report: &mut Report,
        progress: &(impl Fn(Progress) + Sync),
    ) -> Result<(Buckets, Partitioned), JobError> {
        let mut partition = Partition::create(layout, work.folder(), self.memory_bytes)?;
        let mut found = Partitioned { lengths: vec![], latest_ms: 0, packets: 0, syntheses: 0, rejected: 0 };
        let mut list = RejectedList::new(&self.rejected);
        // Reading, computing and writing overlap, a block or two ahead of each other.
        let (blocks_in, blocks) = sync_channel::<Block>(1);
        let (placed_in, placed) = sync_channel::<Placed>(1);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || self.input.read(|block| blocks_in.send(block).is_ok()));
            let computer = scope.spawn(move || {
                for block in blocks {
                    if placed_in.send(self.place(addresser, block)).is_err() {
                        return;
                    }
                }
            });
            for block in placed {
                block.records.iter().try_for_each(|record| partition.add(record))?;
                block.rejected.iter().try_for_each(|rejected| list.add(rejected))?;
                found.packets += block.packets;
                found.syntheses += block.syntheses;
                found.rejected += block.rejected.len() as u64;
                found.latest_ms = found.latest_ms.max(block.latest_ms);
                report.check_time += block.check_time;
                progress(Progress::Read { done: found.packets, total: announced });
            }
            computer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        list.finish()?;
        let buckets = partition.finish()?;
        found.lengths = buckets.lengths.clone();
        if !layout.in_memory {
            work.write("partition.json", &found)?;
        }
        Ok((buckets, found))
    }

    /// The records of a block.
    fn place(&self, addresser: &Addresser, block: Block) -> Placed {
        let mut placed = Placed { packets: (block.bytes.len() / PACKET_BYTES) as u64, ..Placed::default() };
        let reject = |index: usize, error: &PacketError| Rejected {
            file: block.path.display().to_string(),
            offset: block.offset + (index * PACKET_BYTES) as u64,
            reason: error.to_string(),
        };
        self.engine.install(|| {
            let schema = self.schema.id();
            let parse = |bytes: &[u8]| {
                let packet = Packet::parse(bytes)?;
                if *packet.schema() != schema {
                    return Err(PacketError::new(Field::Schema, "is not the schema of the domain"));
                }
                Ok(packet)
            };
            let parsed: Vec<Result<Packet, PacketError>> =
                block.bytes.par_chunks_exact(PACKET_BYTES).map(parse).collect();
            let mut good = Vec::with_capacity(parsed.len());
            for (index, packet) in parsed.into_iter().enumerate() {
                match packet {
                    Ok(packet) => good.push((index, packet)),
                    Err(error) => placed.rejected.push(reject(index, &error)),
                }
            }
            if self.checks_signatures && !block.checked {
                let began = Instant::now();
                let packets: Vec<Packet> = good.iter().map(|(_, packet)| *packet).collect();
                let mut verified = verify_batch(&packets).into_iter();
                good.retain(|(index, _)| match verified.next() {
                    Some(Err(error)) => {
                        placed.rejected.push(reject(*index, &error));
                        false
                    }
                    _ => true,
                });
                placed.check_time = began.elapsed();
            }
            placed.latest_ms = good.iter().map(|(_, packet)| packet.observed_at()).max().unwrap_or(0);
            let all = good.len();
            good.retain(|(_, packet)| packet.kind() != Kind::Synthesis);
            placed.syntheses = (all - good.len()) as u64;
            placed.records = self.address(addresser, &good);
        });
        placed
    }

    fn address(&self, addresser: &Addresser, packets: &[(usize, Packet)]) -> Vec<Record> {
        let fingerprints = addresser.needs_fingerprints().then(|| {
            let mut signals = Array2::zeros((packets.len(), SLOTS));
            for (mut row, (_, packet)) in signals.rows_mut().into_iter().zip(packets) {
                row.assign(&ndarray::aview1(packet.signal()));
            }
            self.engine.fingerprint(self.engine.embed(&self.view.metric, signals.view()).view())
        });
        let (shard, shards) = (u64::from(self.shard.0), u64::from(self.shard.1));
        let mine = |address: &Address| {
            let prefix = u64::from(u32::from_be_bytes([address[0], address[1], address[2], address[3]]));
            (prefix * shards) >> 32 == shard
        };
        packets
            .par_iter()
            .enumerate()
            .flat_map_iter(|(index, (_, packet))| {
                let fingerprint = fingerprints.as_ref().map_or([0; 32], |all| all[index]);
                let addresses = addresser.of_fingerprint(packet.scope(), &fingerprint);
                let mut bytes = [0; PACKET_SIGNED_BYTES];
                bytes.copy_from_slice(&packet.as_bytes()[..PACKET_SIGNED_BYTES]);
                addresses.into_iter().filter(mine).map(move |address| Record { address, bytes })
            })
            .collect()
    }

    /// The syntheses of a bucket's mailboxes, unsigned, by ascending (address, action).
    fn mailboxes(&self, records: Vec<Record>, as_of_ms: u64) -> Result<Vec<Record>, JobError> {
        self.engine.install(|| {
            let mut order: Vec<u32> = (0..records.len() as u32).collect();
            order.par_sort_unstable_by_key(|&index| &records[index as usize].address);
            let mailboxes: Vec<&[u32]> =
                order.chunk_by(|&a, &b| records[a as usize].address == records[b as usize].address).collect();
            let syntheses: Result<Vec<Vec<Record>>, JobError> =
                mailboxes.into_par_iter().map(|mailbox| self.mailbox(&records, mailbox, as_of_ms)).collect();
            Ok(syntheses?.concat())
        })
    }

    fn mailbox(&self, records: &[Record], order: &[u32], as_of_ms: u64) -> Result<Vec<Record>, JobError> {
        let address = records[order[0] as usize].address;
        if order.len() as u64 > TALLY_PACKETS_MAX {
            return Err(JobError::TooMany {
                packets: order.len() as u64,
                address: hex(&address),
                max: TALLY_PACKETS_MAX,
            });
        }
        let packet =
            |&index: &u32| Verified::checked_before(Packet::parsed_before(&records[index as usize].bytes));
        let packets: Vec<Verified> = order.iter().map(packet).collect();
        let live = live(&packets, as_of_ms);
        let lineage = lineage_root(live.iter().map(|live| live.id));
        let mut by_action: Vec<(Option<u16>, Vec<[i8; SLOTS]>)> = Vec::new();
        for live in &live {
            let (action, signal) = (live.packet.action(), *live.packet.signal());
            match by_action.binary_search_by_key(&action, |(action, _)| *action) {
                Ok(at) => by_action[at].1.push(signal),
                Err(at) => by_action.insert(at, (action, vec![signal])),
            }
        }
        let Some(first) = live.first() else { return Ok(vec![]) };
        let scope = *first.packet.scope();
        let signals: Vec<[i8; SLOTS]> = by_action.iter().map(|(_, signals)| mean_signal(signals)).collect();
        let batch = Batch::new(live, self.schema.outcomes.len(), |signals| self.embed(signals));
        let queries = ArrayView2::from_shape((signals.len(), SLOTS), signals.as_flattened());
        let queries = self.embed(queries.expect("whole rows of 128 slots"));
        let question = Question { schema: self.schema, view: self.view, batch: &batch, ask_ms: as_of_ms };
        let answers = answer(question, queries.view(), |job| self.engine.merge(job));
        let mut syntheses = Vec::with_capacity(signals.len());
        for ((signal, answer), (action, _)) in signals.iter().zip(&answers).zip(&by_action) {
            let situation = Situation { signal, scope };
            let draft = synthesis(self.schema, self.view, answer, *action, situation, lineage, as_of_ms);
            if let Some(draft) = draft {
                let mut bytes = [0; PACKET_SIGNED_BYTES];
                bytes.copy_from_slice(&self.key.build(&draft)?.as_bytes()[..PACKET_SIGNED_BYTES]);
                syntheses.push(Record { address, bytes });
            }
        }
        Ok(syntheses)
    }

    fn embed(&self, signals: ArrayView2<i8>) -> Array2<i8> {
        self.engine.embed(&self.view.metric, signals)
    }
}

/// A block after the first pass.
#[derive(Default)]
struct Placed {
    records: Vec<Record>,
    packets: u64,
    syntheses: u64,
    latest_ms: u64,
    rejected: Vec<Rejected>,
    check_time: Duration,
}

/// The list of rejected packets; there is none where nothing was rejected.
struct RejectedList<'a> {
    path: &'a Path,
    file: Option<BufWriter<File>>,
}

impl<'a> RejectedList<'a> {
    fn new(path: &'a Path) -> RejectedList<'a> {
        RejectedList { path, file: None }
    }

    fn add(&mut self, rejected: &Rejected) -> Result<(), JobError> {
        if self.file.is_none() {
            self.file = Some(BufWriter::new(File::create(self.path).map_err(io_error(self.path))?));
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let line = serde_json::to_string(rejected).unwrap_or_default();
        writeln!(file, "{line}").map_err(io_error(self.path))
    }

    fn finish(self) -> Result<(), JobError> {
        match self.file {
            Some(mut file) => file.flush().map_err(io_error(self.path)),
            None => Ok(()),
        }
    }
}
