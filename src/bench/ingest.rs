//! Packet file -> columns and fingerprints, against reading alone and computing alone.

use super::record::{self, Clock, Limit};
use super::{BenchError, Plan, Record, data, workload::OUTCOMES};
use crate::domain::Metric;
use crate::engine::Engine;
use crate::fingerprint::cpu::fingerprint_one;
use crate::ingest::{BLOCK_PACKETS, Block, Check, Ingest, Workshop};
use crate::limits::{FINGERPRINT_BYTES, PACKET_BYTES, SLOTS};
use crate::merge::batch::second_moment;
use crate::merge::layout::COLUMNS_PER_OUTCOME;
use crate::packet::{AuthorKey, Draft, Kind, PacketFile, PacketFileWriter, Verified};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Packets of the temporary file, 102 MB.
const PACKETS: usize = 200_000;
/// Packets that are signed; the file repeats them.
const PACKETS_SIGNED: usize = 8_192;
/// Authors of the signed packets, which lie one author behind the other.
const AUTHORS: usize = 64;
/// Blocks that lie in memory while computing alone is measured.
const BLOCKS_RESIDENT: usize = 8;

/// Signed packets with [`OUTCOMES`] outcomes.
pub fn packets(count: usize, cases_max: u16) -> Vec<Verified> {
    let signals = data::embeddings(data::STREAM_PACKETS, count, data::Clusters::Loose);
    let outcomes = data::outcomes(count, OUTCOMES);
    let cases = data::cases(count, cases_max);
    let authors: Vec<AuthorKey> =
        (0..AUTHORS).map(|author| AuthorKey::from_seed([author as u8 + 1; 32])).collect();
    let packet = |row: usize| {
        let mut draft = Draft {
            outcomes: OUTCOMES,
            sequence: row as u32,
            cases: cases[row],
            ..Draft::new(Kind::Observed, [1; 32], OUTCOMES)
        };
        draft.reference[..8].copy_from_slice(&(row as u64).to_le_bytes());
        draft.signal = std::array::from_fn(|slot| signals[[row, slot]]);
        for (value, &y) in draft.values.iter_mut().zip(outcomes.row(row)) {
            *value = Some((y, 0));
        }
        authors[row * AUTHORS / count].sign(&draft).expect("a sound draft")
    };
    (0..count).into_par_iter().map(packet).collect()
}

/// Checks and measures.
pub(super) fn measure(engine: &Engine, plan: &Plan) -> Result<Record, BenchError> {
    let folder = tempfile::tempdir().map_err(BenchError::Temporary)?;
    let path = match &plan.file {
        Some(path) => path.clone(),
        None => written(engine, plan, folder.path())?,
    };
    let outcomes = match PacketFile::open(&path)?.next() {
        Some(packet) => packet?.outcomes(),
        None => return Err(BenchError::Empty { path, what: "packets" }),
    };
    let metric = &Metric::Identity;
    let check = if plan.signatures { Check::Signatures } else { Check::Rules };
    let ingest = Ingest { engine, metric, outcomes, check };

    engine.forget_ran();
    let items = ingest.run(PacketFile::open(&path)?, |block| match wrong_row(&block, outcomes) {
        Some(row) => Err(BenchError::differs(engine, block.first as usize + row)),
        None => Ok(()),
    })?;
    engine.forget_ran();
    let times = record::repeat(plan, || {
        ingest.run(PacketFile::open(&path)?, |_| Ok::<(), BenchError>(())).map(drop)
    })?;
    let columns = COLUMNS_PER_OUTCOME * outcomes;
    let bytes = items * (PACKET_BYTES + SLOTS + FINGERPRINT_BYTES + 2 + 2 * columns) as u64;
    let record = Record::new(plan, engine, items, bytes, times);

    let reading = record::repeat(plan, || read(&path))?.per_second(items);
    let (resident, computing) = compute(plan, ingest, &path)?;
    let computing = computing.per_second(resident);
    let (name, value) = match reading < computing {
        true => ("reading the file", reading),
        false if plan.signatures => ("signatures, columns and fingerprints", computing),
        false => ("parsing, columns and fingerprints", computing),
    };
    let record = Record {
        read_items_per_second: Some(reading),
        compute_items_per_second: Some(computing),
        value_columns: Some(columns as u64),
        ..record
    };
    Ok(record.against(Limit { name: name.into(), value, unit: Clock::Wall }))
}

/// A file of made-up packets.
fn written(engine: &Engine, plan: &Plan, folder: &Path) -> Result<PathBuf, BenchError> {
    let count = plan.packets.unwrap_or(PACKETS);
    let signed = engine.install(|| packets(count.min(PACKETS_SIGNED), plan.cases_max));
    let path = folder.join("bench.qpk");
    let mut writer = PacketFileWriter::create(&path, [1; 32], [0; 32])?;
    for packet in signed.iter().cycle().take(count) {
        writer.write(packet)?;
    }
    writer.finish()?;
    Ok(path)
}

/// The first row of a block that is not what the law makes of the packet.
fn wrong_row(block: &Block, outcomes: usize) -> Option<usize> {
    block.packets().enumerate().position(|(row, packet)| {
        let values = (0..outcomes).flat_map(|outcome| {
            let (y, s) = packet.value(outcome);
            [y, second_moment(y, s)]
        });
        block.embeddings.row(row).as_slice() != Some(packet.signal())
            || block.fingerprints[row] != fingerprint_one(packet.signal())
            || block.cases[row] != packet.cases()
            || !values.eq(block.values.row(row).iter().copied())
    })
}

/// Reads the file and does nothing with it.
fn read(path: &Path) -> Result<(), BenchError> {
    let mut file = PacketFile::open(path)?;
    let mut bytes = vec![];
    while file.read_block(BLOCK_PACKETS, &mut bytes)? > 0 {}
    Ok(())
}

/// All but reading, over the first blocks of the file: number of their packets, and the times.
fn compute(plan: &Plan, ingest: Ingest, path: &Path) -> Result<(u64, record::Times), BenchError> {
    let mut file = PacketFile::open(path)?;
    let mut blocks = vec![];
    let mut packets = 0;
    while blocks.len() < BLOCKS_RESIDENT {
        let mut bytes = vec![];
        match file.read_block(BLOCK_PACKETS, &mut bytes)? {
            0 => break,
            read => packets += read as u64,
        }
        blocks.push(bytes);
    }
    let mut workshop = Workshop::new(ingest);
    let times = record::repeat(plan, || {
        blocks.iter().try_for_each(|bytes| workshop.block(path, 0, bytes).map(drop)).map_err(BenchError::from)
    })?;
    Ok((packets, times))
}
