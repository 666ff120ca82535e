//! Signatures: in batches, and one by one.

use super::ingest::packets;
use super::record;
use super::{BenchError, Plan, Record};
use crate::engine::Engine;
use crate::limits::PACKET_BYTES;
use crate::packet::{Packet, PacketError, Verified, verify_batch};
use rayon::prelude::*;
use std::hint::black_box;

/// Packets that are checked.
const PACKETS: usize = 8_192;
/// Packets of the comparison of both ways, some of them damaged.
const COMPARED_MAX: usize = 1_000;
/// Every so many packets of the comparison one is damaged: most batches hold one, some hold none.
const DAMAGED_EVERY: usize = 200;

/// Checks that both ways say the same, then measures both.
pub(super) fn measure(engine: &Engine, plan: &Plan) -> Result<Record, BenchError> {
    let count = plan.packets.unwrap_or(PACKETS);
    let packets: Vec<Packet> =
        engine.install(|| packets(count, plan.cases_max)).iter().map(|packet| *packet.packet()).collect();
    if let Some(row) = wrong_row(engine, &packets) {
        return Err(BenchError::differs(engine, row));
    }
    engine.forget_ran();
    let batch =
        record::repeat(plan, || all_good(engine, engine.install(|| verify_batch(black_box(&packets)))))?;
    let single = record::repeat(plan, || all_good(engine, one_by_one(engine, black_box(&packets))))?;
    let items = count as u64;
    let record = Record::new(plan, engine, items, items * PACKET_BYTES as u64, batch);
    let single = Some(single.per_cpu_second(items));
    Ok(Record { instructions: "", single_items_per_cpu_second: single, ..record })
}

type Verdicts = Vec<Result<Verified, PacketError>>;

fn one_by_one(engine: &Engine, packets: &[Packet]) -> Verdicts {
    engine.install(|| packets.par_iter().map(|packet| packet.verify()).collect())
}

fn all_good(engine: &Engine, verdicts: Verdicts) -> Result<(), BenchError> {
    match verdicts.iter().position(Result::is_err) {
        Some(row) => Err(BenchError::differs(engine, row)),
        None => Ok(()),
    }
}

/// The first packet, of good and damaged ones, of which the two ways do not say the truth.
fn wrong_row(engine: &Engine, packets: &[Packet]) -> Option<usize> {
    let damaged = |row: usize| row % DAMAGED_EVERY == DAMAGED_EVERY / 2;
    let compared = packets.iter().take(COMPARED_MAX).enumerate().map(|(row, packet)| {
        let mut bytes = *packet.as_bytes();
        // The last byte but one of the signature: no rule of the format looks at it.
        bytes[PACKET_BYTES - 2] ^= u8::from(damaged(row));
        Packet::parse(&bytes).expect("only the signature differs")
    });
    let compared: Vec<Packet> = compared.collect();
    let batch = engine.install(|| verify_batch(&compared));
    let single = one_by_one(engine, &compared);
    (0..compared.len()).find(|&row| batch[row] != single[row] || batch[row].is_err() != damaged(row))
}
