//! Packet file -> columns, embeddings, fingerprints: in parallel blocks, with bounded memory.
//!
//! One thread of its own reads ahead; the engine's threads parse a block's packets, check their
//! signatures where asked, and turn them into columns; then the engine embeds and fingerprints the
//! block. Whoever reads gets the blocks in the order of the file, one at a time, and copies what it
//! keeps. Some 20 MB are in use, whatever the size of the file.

use crate::domain::Metric;
use crate::engine::Engine;
use crate::fingerprint::Fingerprint;
use crate::limits::{OUTCOMES_MAX, PACKET_BYTES, SLOTS};
use crate::merge::batch::second_moment;
use crate::merge::layout::COLUMNS_PER_OUTCOME;
use crate::packet::{FileError, Packet, PacketError, PacketFile, Verified, verify_batch};
use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;
use std::io;
use std::path::Path;
use std::sync::mpsc::{channel, sync_channel};

/// Packets of a block: 4 MiB of the file. Much smaller ones make the threads wait for each other.
pub const BLOCK_PACKETS: usize = 8_192;
/// Packets that one thread turns into columns at a time.
const LANE_PACKETS: usize = 256;
/// Blocks that are read before they are wanted.
const BLOCKS_AHEAD: usize = 2;

/// How far packets are trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The rules of the format: for files that this machine has written.
    Rules,
    /// The rules and every signature: for files from elsewhere.
    Signatures,
}

/// What is made of a file's packets.
#[derive(Clone, Copy)]
pub struct Ingest<'a> {
    pub engine: &'a Engine,
    pub metric: &'a Metric,
    /// Outcomes of the schema, at most 16.
    pub outcomes: usize,
    pub check: Check,
}

/// Packets that lie one behind the other in the file, and what was made of them, row by row.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    /// Index in the file of the first packet.
    pub first: u64,
    lanes: &'a [Lane],
    check: Check,
    /// Packets x 128.
    pub embeddings: ArrayView2<'a, i8>,
    /// Of the embeddings.
    pub fingerprints: &'a [Fingerprint],
    /// Cases per packet; 0 unless observed.
    pub cases: &'a [u16],
    /// Packets x 2 columns per outcome: mean, second moment; 0 where the outcome is absent.
    pub values: ArrayView2<'a, u16>,
}

impl<'a> Block<'a> {
    /// Number of packets.
    pub fn len(&self) -> usize {
        self.cases.len()
    }
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// The packets, in the order of the rows.
    pub fn packets(&self) -> impl Iterator<Item = &'a Packet> {
        self.lanes.iter().flat_map(|lane| &lane.packets)
    }

    /// The same with their signatures known to be good; `None` where those were not checked.
    pub fn verified(&self) -> Option<impl Iterator<Item = Verified>> {
        let checked = self.check == Check::Signatures;
        checked.then(|| self.packets().copied().map(Verified::checked_before))
    }
}

impl Ingest<'_> {
    /// Gives each block of the file to `take`, in order, and returns the number of packets.
    ///
    /// # Errors
    /// The file cannot be read; the first damaged packet, by index and field; an error of `take`.
    /// Blocks before the damaged packet's have been taken then.
    ///
    /// # Panics
    /// With more outcomes than a packet can have.
    pub fn run<E: From<FileError>>(
        &self,
        mut file: PacketFile,
        mut take: impl FnMut(Block) -> Result<(), E>,
    ) -> Result<u64, E> {
        let path = file.path().to_owned();
        let mut workshop = Workshop::new(*self);
        std::thread::scope(|scope| {
            let (full, blocks) = sync_channel(BLOCKS_AHEAD);
            let (empty, used) = channel::<Vec<u8>>();
            let reader = move || {
                while let Ok(mut bytes) = used.recv() {
                    let block = match file.read_block(BLOCK_PACKETS, &mut bytes) {
                        Ok(0) => return,
                        Ok(_) => Ok(bytes),
                        Err(error) => Err(error),
                    };
                    // Nobody takes more where the other side has met an error.
                    if full.send(block).is_err() {
                        return;
                    }
                }
            };
            let spawned =
                std::thread::Builder::new().name("ingest reader".into()).spawn_scoped(scope, reader);
            spawned.map_err(|source: io::Error| FileError::Io { path: path.clone(), source })?;
            for _ in 0..=BLOCKS_AHEAD {
                // The reader is there: it ends only after this side.
                let _ = empty.send(Vec::new());
            }
            let mut packets = 0;
            for bytes in blocks {
                let bytes = bytes?;
                let block = workshop.block(&path, packets, &bytes)?;
                packets += block.len() as u64;
                take(block)?;
                let _ = empty.send(bytes);
            }
            Ok(packets)
        })
    }
}

/// Packets that one thread has parsed.
#[derive(Default)]
struct Lane {
    packets: Vec<Packet>,
    /// Within the lane.
    damaged: Option<(usize, PacketError)>,
}

/// Turns bytes into blocks, in memory that is used again for the next.
pub struct Workshop<'a> {
    plan: Ingest<'a>,
    lanes: Vec<Lane>,
    signals: Array2<i8>,
    embeddings: Array2<i8>,
    fingerprints: Vec<Fingerprint>,
    cases: Vec<u16>,
    values: Array2<u16>,
}

impl<'a> Workshop<'a> {
    /// # Panics
    /// With more outcomes than a packet can have.
    pub fn new(plan: Ingest<'a>) -> Workshop<'a> {
        assert!(plan.outcomes <= OUTCOMES_MAX, "a packet has at most {OUTCOMES_MAX} outcomes");
        Workshop {
            plan,
            lanes: vec![],
            signals: Array2::zeros((0, SLOTS)),
            embeddings: Array2::zeros((0, SLOTS)),
            fingerprints: vec![],
            cases: vec![],
            values: Array2::zeros((0, 0)),
        }
    }

    /// The block of these bytes, whole packets, the first of which is packet `first` of the file.
    ///
    /// # Errors
    /// The first damaged packet; `path` names the file.
    pub fn block(&mut self, path: &Path, first: u64, bytes: &[u8]) -> Result<Block<'_>, FileError> {
        let packets = bytes.len() / PACKET_BYTES;
        let columns = COLUMNS_PER_OUTCOME * self.plan.outcomes;
        self.lanes.resize_with(packets.div_ceil(LANE_PACKETS), Lane::default);
        if self.signals.nrows() < packets {
            self.signals = Array2::zeros((packets, SLOTS));
            self.values = Array2::zeros((packets, columns));
            self.cases = vec![0; packets];
        }
        self.plan.engine.install(|| self.columns(bytes, columns));
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if let Some((row, problem)) = lane.damaged.take() {
                return Err(FileError::packet(path, first + (LANE_PACKETS * index + row) as u64, problem));
            }
        }
        let signals = self.signals.slice(s![..packets, ..]);
        let embeddings = if *self.plan.metric == Metric::Identity {
            signals
        } else {
            self.embeddings = self.plan.engine.embed(self.plan.metric, signals);
            self.embeddings.view()
        };
        self.fingerprints = self.plan.engine.fingerprint(embeddings);
        Ok(Block {
            first,
            lanes: &self.lanes,
            check: self.plan.check,
            embeddings,
            fingerprints: &self.fingerprints,
            cases: &self.cases[..packets],
            values: self.values.slice(s![..packets, ..]),
        })
    }

    /// Parses and fills signals, cases and values, lane by lane on the current pool.
    fn columns(&mut self, bytes: &[u8], columns: usize) {
        let check = self.plan.check;
        let signals = self.signals.as_slice_mut().expect("rows in standard order");
        let values = self.values.as_slice_mut().expect("rows in standard order");
        // Without outcomes there are no values, but a chunk has at least one.
        let values_per_lane = (LANE_PACKETS * columns).max(1);
        let empty = || -> &mut [u16] { &mut [] };
        let mut value_lanes: Vec<&mut [u16]> = values.chunks_mut(values_per_lane).collect();
        value_lanes.resize_with(value_lanes.len().max(self.lanes.len()), empty);
        self.lanes
            .par_iter_mut()
            .zip(bytes.par_chunks(LANE_PACKETS * PACKET_BYTES))
            .zip(signals.par_chunks_mut(LANE_PACKETS * SLOTS))
            .zip(self.cases.par_chunks_mut(LANE_PACKETS))
            .zip(value_lanes)
            .for_each(|((((lane, bytes), signals), cases), values)| {
                lane.parse(bytes);
                if check == Check::Signatures {
                    lane.verify();
                }
                lane.fill(signals, cases, values, columns);
            });
    }
}

impl Lane {
    fn parse(&mut self, bytes: &[u8]) {
        self.packets.clear();
        self.damaged = None;
        for (row, bytes) in bytes.chunks_exact(PACKET_BYTES).enumerate() {
            match Packet::parse(bytes) {
                Ok(packet) => self.packets.push(packet),
                Err(problem) => {
                    self.damaged = Some((row, problem));
                    return;
                }
            }
        }
    }

    /// A bad signature lies before whatever else is damaged, where parsing has stopped.
    fn verify(&mut self) {
        let verdicts = verify_batch(&self.packets).into_iter().enumerate();
        let mut bad = verdicts.filter_map(|(row, verdict)| verdict.err().map(|problem| (row, problem)));
        self.damaged = bad.next().or(self.damaged.take());
    }

    fn fill(&self, signals: &mut [i8], cases: &mut [u16], values: &mut [u16], columns: usize) {
        let rows = self.packets.iter().zip(signals.chunks_exact_mut(SLOTS)).zip(cases);
        for (row, ((packet, signal), cases)) in rows.enumerate() {
            signal.copy_from_slice(packet.signal());
            *cases = packet.cases();
            let values = &mut values[row * columns..][..columns];
            for (outcome, pair) in values.chunks_exact_mut(COLUMNS_PER_OUTCOME).enumerate() {
                let (y, s) = packet.value(outcome);
                pair.copy_from_slice(&[y, second_moment(y, s)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::cpu::embed_one;
    use crate::engine::Choice;
    use crate::fingerprint::cpu::fingerprint_one;
    use crate::packet::{AuthorKey, Draft, Kind, PacketFileWriter};

    /// A file of so many packets with two outcomes; the second is absent in odd ones.
    fn file(folder: &Path, packets: usize) -> std::path::PathBuf {
        let path = folder.join("some.qpk");
        let author = AuthorKey::from_seed([3; 32]);
        let mut writer = PacketFileWriter::create(&path, [1; 32], [0; 32]).unwrap();
        // Signing takes most of the time: some packets, over and over.
        let some: Vec<Verified> = (0..packets.min(301))
            .map(|i| {
                let mut draft = Draft { outcomes: 2, cases: 2, ..Draft::new(Kind::Observed, [1; 32], 2) };
                draft.sequence = i as u32;
                draft.signal =
                    std::array::from_fn(|slot| ((i * 31 + slot * 17) % 255) as i8).map(|s| s.max(-127));
                draft.values[0] = Some((i as u16 * 200, 5));
                draft.values[1] = (i % 2 == 0).then_some((60_000, 0));
                author.sign(&draft).unwrap()
            })
            .collect();
        (0..packets).for_each(|i| writer.write(&some[i % some.len()]).unwrap());
        writer.finish().unwrap();
        path
    }

    fn engine() -> Engine {
        Engine::new(&Choice { threads: Some(2), ..Choice::default() }).unwrap()
    }

    #[test]
    fn blocks_hold_every_packet_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine();
        let diagonal = Metric::Diagonal { shift: 4, weights: (0..128).map(|i| (i % 30) as i8).collect() };
        for (metric, count, check) in [
            (&Metric::Identity, BLOCK_PACKETS + 257, Check::Rules),
            (&diagonal, 300, Check::Signatures),
            (&diagonal, 0, Check::Rules),
        ] {
            let path = file(folder.path(), count);
            let expected: Vec<Packet> = PacketFile::open(&path).unwrap().map(Result::unwrap).collect();
            let mut seen = 0;
            let ingest = Ingest { engine: &engine, metric, outcomes: 2, check };
            let taken = ingest.run(PacketFile::open(&path).unwrap(), |block| {
                assert_eq!(block.first as usize, seen);
                assert_eq!(block.verified().is_some(), check == Check::Signatures);
                for (row, packet) in block.packets().enumerate() {
                    assert_eq!(*packet, expected[seen]);
                    let embedding = embed_one(metric, packet.signal());
                    assert_eq!(block.embeddings.row(row).as_slice().unwrap(), embedding);
                    assert_eq!(block.fingerprints[row], fingerprint_one(&embedding));
                    assert_eq!(block.cases[row], packet.cases());
                    let (first, second) = (packet.value(0), packet.value(1));
                    let moments =
                        [first.0, second_moment(first.0, first.1), second.0, second_moment(second.0, 0)];
                    assert_eq!(block.values.row(row).to_vec(), moments);
                    seen += 1;
                }
                Ok::<(), FileError>(())
            });
            assert_eq!((taken.unwrap() as usize, seen), (count, count));
        }
    }

    #[test]
    fn without_outcomes_there_are_no_values() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine();
        let file = PacketFile::open(&file(folder.path(), 600)).unwrap();
        let ingest = Ingest { engine: &engine, metric: &Metric::Identity, outcomes: 0, check: Check::Rules };
        let taken = ingest.run(file, |block| {
            assert_eq!((block.len(), block.values.dim()), (600, (600, 0)));
            Ok::<(), FileError>(())
        });
        assert_eq!(taken.unwrap(), 600);
    }

    /// The first damaged packet is named, by rule or by signature, and what follows is not taken.
    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine();
        let path = file(folder.path(), BLOCK_PACKETS + 700);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = |packet: usize| 512 + 512 * packet;
        // A signature first, then a rule before it in the same block.
        let damaged = BLOCK_PACKETS + 600;
        bytes[at(damaged) + 450] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let read = |check, blocks: &mut usize| {
            let ingest = Ingest { engine: &engine, metric: &Metric::Identity, outcomes: 2, check };
            ingest.run(PacketFile::open(&path).unwrap(), |_| {
                *blocks += 1;
                Ok::<(), FileError>(())
            })
        };
        assert_eq!(read(Check::Rules, &mut 0).unwrap() as usize, BLOCK_PACKETS + 700);
        let mut blocks = 0;
        let error = read(Check::Signatures, &mut blocks).unwrap_err().to_string();
        assert!(error.contains(&format!("packet {damaged} ")) && error.contains("signature"), "{error}");
        assert_eq!(blocks, 1);
        bytes[at(3) + 128] = 0x80;
        bytes[at(2) + 450] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = read(Check::Rules, &mut 0).unwrap_err().to_string();
        assert!(error.contains("packet 3 ") && error.contains("signal"), "{error}");
        let error = read(Check::Signatures, &mut 0).unwrap_err().to_string();
        assert!(error.contains("packet 2 ") && error.contains("signature"), "{error}");
    }

    /// Whoever takes the blocks may end it.
    #[test]
    fn the_taker_may_end_it() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine();
        let path = file(folder.path(), 5 * BLOCK_PACKETS);
        let ingest = Ingest { engine: &engine, metric: &Metric::Identity, outcomes: 2, check: Check::Rules };
        let enough = ingest.run(PacketFile::open(&path).unwrap(), |block| {
            let problem = || io::Error::other("enough");
            Err(FileError::Io { path: format!("{}", block.first).into(), source: problem() })
        });
        assert!(enough.unwrap_err().to_string().contains("enough"));
    }
}
