//! A bucket, mailbox by mailbox.

use super::JobError;
use super::partition::Record;
use crate::address::Address;
use crate::engine::Engine;
use crate::limits::TALLY_PACKETS_MAX;
use crate::packet::{Packet, Verified, hex};
use rayon::prelude::*;

/// Runs `work` on the packets of each address, on the engine's threads; the results come in ascending
/// order of address. The packets have no signature any more: it was checked before.
///
/// # Errors
/// A mailbox of more packets than one exact sum holds; whatever `work` gives.
pub fn each_mailbox<T: Send>(
    engine: &Engine,
    records: &[Record],
    work: impl Fn(&Address, Vec<Verified>) -> Result<Vec<T>, JobError> + Sync,
) -> Result<Vec<T>, JobError> {
    engine.install(|| {
        let mut order: Vec<u32> = (0..records.len() as u32).collect();
        order.par_sort_unstable_by_key(|&index| &records[index as usize].address);
        let address = |index: u32| &records[index as usize].address;
        let mailboxes: Vec<&[u32]> = order.chunk_by(|&a, &b| address(a) == address(b)).collect();
        let one = |mailbox: &[u32]| {
            let address = address(mailbox[0]);
            if mailbox.len() as u64 > TALLY_PACKETS_MAX {
                let (packets, address) = (mailbox.len() as u64, hex(address));
                return Err(JobError::TooMany { packets, address, max: TALLY_PACKETS_MAX });
            }
            let packet = |&index: &u32| {
                Verified::checked_before(Packet::parsed_before(&records[index as usize].bytes))
            };
            work(address, mailbox.iter().map(packet).collect())
        };
        let results: Result<Vec<Vec<T>>, JobError> = mailboxes.into_par_iter().map(one).collect();
        Ok(results?.into_iter().flatten().collect())
    })
}
