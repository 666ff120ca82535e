//! The first pass of a job: read, check, and put every packet under its addresses.

use super::checkpoint::Partitioned;
use super::input::{Block, Input};
use super::partition::{Buckets, Layout, Partition, Record};
use super::{JobError, io_error};
use crate::address::{Address, Addresser};
use crate::domain::{Schema, View};
use crate::engine::Engine;
use crate::limits::{PACKET_BYTES, PACKET_SIGNED_BYTES, SLOTS};
use crate::packet::{Field, Id, Kind, Packet, PacketError, verify_batch};
use ndarray::Array2;
use rayon::prelude::*;
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// What is read, and how.
pub struct Pass<'a> {
    pub input: &'a Input,
    pub schema: &'a Schema,
    pub view: &'a View,
    pub engine: &'a Engine,
    /// Whether signatures are checked; a store has checked its own.
    pub checks_signatures: bool,
    /// Whether syntheses come along; else only evidence and retractions.
    pub keeps_syntheses: bool,
    /// Memory for packets, in bytes.
    pub memory_bytes: u64,
    /// (index, count) of the part of the address space that is worked on.
    pub shard: (u32, u32),
    /// Where rejected packets are listed, one JSON object a line.
    pub rejected: PathBuf,
}

/// How far the work is, for a progress bar.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Packets read, of so many.
    Read { done: u64, total: u64 },
    /// Records merged, of so many.
    Merged { done: u64, total: u64 },
}

impl Pass<'_> {
    /// Copies of a packet: one per table of the view.
    pub fn copies(&self) -> u64 {
        Addresser::new(self.view).of_fingerprint(&[0; 32], &[0; 32]).len() as u64
    }

    /// The first pass: every packet under its addresses.
    /// Files of buckets come into `folder`.
    ///
    /// # Errors
    /// I/O; an input that has changed meanwhile.
    pub fn run(
        &self,
        layout: Layout,
        folder: &Path,
        announced: u64,
        progress: &(impl Fn(Progress) + Sync),
    ) -> Result<(Buckets, Partitioned, Duration), JobError> {
        let addresser = &Addresser::new(self.view);
        let mut check_time = Duration::ZERO;
        let mut partition = Partition::create(layout, folder, self.memory_bytes)?;
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
                block.rejected.iter().try_for_each(|rejected| list.write(rejected))?;
                found.packets += block.packets;
                found.syntheses += block.syntheses;
                found.rejected += block.rejected.len() as u64;
                found.latest_ms = found.latest_ms.max(block.latest_ms);
                check_time += block.check_time;
                progress(Progress::Read { done: found.packets, total: announced });
            }
            computer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        list.finish()?;
        let buckets = partition.finish()?;
        found.lengths = buckets.lengths.clone();
        Ok((buckets, found, check_time))
    }

    /// The records of a block.
    fn place(&self, addresser: &Addresser, block: Block) -> Placed {
        let mut placed = Placed { packets: (block.bytes.len() / PACKET_BYTES) as u64, ..Placed::default() };
        self.engine.install(|| {
            let checked = check(&block, &self.schema.id(), self.checks_signatures);
            let mut good = checked.good;
            placed.latest_ms = good.iter().map(Packet::observed_at).max().unwrap_or(0);
            placed.syntheses = good.iter().filter(|packet| packet.kind() == Kind::Synthesis).count() as u64;
            if !self.keeps_syntheses {
                good.retain(|packet| packet.kind() != Kind::Synthesis);
            }
            placed.records = self.address(addresser, &good);
            placed.rejected = checked.rejected;
            placed.check_time = checked.time;
        });
        placed
    }

    fn address(&self, addresser: &Addresser, packets: &[Packet]) -> Vec<Record> {
        let fingerprints = addresser.needs_fingerprints().then(|| {
            let mut signals = Array2::zeros((packets.len(), SLOTS));
            for (mut row, packet) in signals.rows_mut().into_iter().zip(packets) {
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
            .flat_map_iter(|(index, packet)| {
                let fingerprint = fingerprints.as_ref().map_or([0; 32], |all| all[index]);
                let addresses = addresser.of_fingerprint(packet.scope(), &fingerprint);
                let mut bytes = [0; PACKET_SIGNED_BYTES];
                bytes.copy_from_slice(&packet.as_bytes()[..PACKET_SIGNED_BYTES]);
                addresses.into_iter().filter(mine).map(move |address| Record { address, bytes })
            })
            .collect()
    }
}

/// A line of the list of rejected packets.
#[derive(Serialize)]
pub(super) struct Rejected {
    file: String,
    offset: u64,
    reason: String,
}

impl Rejected {
    /// Packet `index` of a block.
    fn new(block: &Block, index: usize, error: &PacketError) -> Rejected {
        Rejected {
            file: block.path.display().to_string(),
            offset: block.offset + (index * PACKET_BYTES) as u64,
            reason: error.to_string(),
        }
    }
}

/// What is good in a block, in its order, and what is not.
pub(super) struct Checked {
    pub good: Vec<Packet>,
    pub rejected: Vec<Rejected>,
    /// Time in which signatures were checked.
    pub time: Duration,
}

/// Parses the packets of a block, on all threads of the current pool, and checks their schema and, if
/// wanted and not done by a store, their signatures.
pub(super) fn check(block: &Block, schema: &Id, checks_signatures: bool) -> Checked {
    let parse = |bytes: &[u8]| {
        let packet = Packet::parse(bytes)?;
        if packet.schema() != schema {
            return Err(PacketError::new(Field::Schema, "is not the schema of the domain"));
        }
        Ok(packet)
    };
    let parsed: Vec<Result<Packet, PacketError>> =
        block.bytes.par_chunks_exact(PACKET_BYTES).map(parse).collect();
    let (mut good, mut places, mut rejected) = (Vec::with_capacity(parsed.len()), vec![], vec![]);
    for (index, packet) in parsed.into_iter().enumerate() {
        match packet {
            Ok(packet) => {
                good.push(packet);
                places.push(index);
            }
            Err(error) => rejected.push(Rejected::new(block, index, &error)),
        }
    }
    if !checks_signatures || block.checked {
        return Checked { good, rejected, time: Duration::ZERO };
    }
    let began = Instant::now();
    let mut verified = verify_batch(&good).into_iter().zip(places);
    good.retain(|_| match verified.next() {
        Some((Err(error), index)) => {
            rejected.push(Rejected::new(block, index, &error));
            false
        }
        _ => true,
    });
    Checked { good, rejected, time: began.elapsed() }
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
pub(super) struct RejectedList<'a> {
    path: &'a Path,
    file: Option<BufWriter<File>>,
}

impl<'a> RejectedList<'a> {
    /// An older list goes: it would speak of another run.
    pub(super) fn new(path: &'a Path) -> RejectedList<'a> {
        let _ = std::fs::remove_file(path);
        RejectedList { path, file: None }
    }

    /// # Errors
    /// I/O.
    pub(super) fn write(&mut self, rejected: &Rejected) -> Result<(), JobError> {
        if self.file.is_none() {
            self.file = Some(BufWriter::new(File::create(self.path).map_err(io_error(self.path))?));
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let line = serde_json::to_string(rejected).unwrap_or_default();
        writeln!(file, "{line}").map_err(io_error(self.path))
    }

    /// # Errors
    /// I/O.
    pub(super) fn finish(self) -> Result<(), JobError> {
        match self.file {
            Some(mut file) => file.flush().map_err(io_error(self.path)),
            None => Ok(()),
        }
    }
}
