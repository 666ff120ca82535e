//! Packets from one place to another: export, import, and the move to another view's addresses.
//!
//! A backup is signed packets and a restore is a set union, so nothing is computed anew but addresses
//! and nobody signs again.

use super::JobError;
use super::input::Input;
use super::pass::{RejectedList, check};
use crate::address::{Address, Addresser};
use crate::domain::{Schema, View};
use crate::embed::cpu::embed_one;
use crate::limits::PACKET_BYTES;
use crate::packet::{Id, Kind, Packet, PacketFileWriter, Verified};
use crate::store::{Deposited, DiskStore, PacketStore};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What is copied.
pub struct Copy<'a> {
    pub input: &'a Input,
    pub schema: &'a Schema,
    /// The views at whose addresses a store keeps the packets.
    pub views: Vec<&'a View>,
    /// Where rejected packets are listed.
    pub rejected: PathBuf,
}

/// What became of the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Packets read.
    pub packets: u64,
    /// Written to the file, or new in the store at one address at least.
    pub written: u64,
    /// Already there, or met twice.
    pub duplicates: u64,
    /// Superseded, retracted or expired, so that the store does not keep them.
    pub obsolete: u64,
    /// Syntheses of a view that is not among the views.
    pub other_views: u64,
    pub rejected: u64,
}

impl Copy<'_> {
    /// Every packet once, into a packet file; `view` stands in its header.
    ///
    /// # Errors
    /// I/O; an input that is not what it should be.
    pub fn to_file(&self, path: &Path, view: Id, progress: impl Fn(u64)) -> Result<Copied, JobError> {
        let mut writer = PacketFileWriter::create(path, self.schema.id(), view)?;
        // A packet lies once per table and view of a store.
        let mut seen: HashSet<Id> = HashSet::new();
        let copied = self.each_block(progress, |packets, copied| {
            for packet in packets {
                if seen.insert(packet.id()) {
                    writer.write(packet)?;
                    copied.written += 1;
                } else {
                    copied.duplicates += 1;
                }
            }
            Ok(())
        })?;
        writer.finish()?;
        Ok(copied)
    }

    /// Every packet at its addresses under the views, into a store, new or not.
    ///
    /// # Errors
    /// I/O; an input that is not what it should be.
    pub fn to_store(&self, path: &Path, now_ms: u64, progress: impl Fn(u64)) -> Result<Copied, JobError> {
        let (store, _) = DiskStore::open(path)?;
        let addressers: Vec<(Addresser, &View)> =
            self.views.iter().map(|view| (Addresser::new(view), *view)).collect();
        self.each_block(progress, |packets, copied| {
            let mut placed: Vec<(Address, Verified)> = Vec::with_capacity(packets.len());
            let mut lengths = Vec::with_capacity(packets.len());
            for packet in packets {
                let before = placed.len();
                for address in addresses(&addressers, packet) {
                    if !placed[before..].iter().any(|(other, _)| *other == address) {
                        placed.push((address, *packet));
                    }
                }
                lengths.push(placed.len() - before);
            }
            let mut deposited = store.deposit(now_ms, &placed)?.into_iter();
            for length in lengths {
                let of_packet: Vec<Deposited> = deposited.by_ref().take(length).collect();
                match of_packet.as_slice() {
                    [] => copied.other_views += 1,
                    of if of.contains(&Deposited::Stored) => copied.written += 1,
                    of if of.contains(&Deposited::Duplicate) => copied.duplicates += 1,
                    _ => copied.obsolete += 1,
                }
            }
            Ok(())
        })
    }

    fn each_block(
        &self,
        progress: impl Fn(u64),
        mut take: impl FnMut(&[Verified], &mut Copied) -> Result<(), JobError>,
    ) -> Result<Copied, JobError> {
        let mut copied = Copied::default();
        let mut list = RejectedList::new(&self.rejected);
        let schema = self.schema.id();
        let mut failed = None;
        self.input.read(|block| {
            let mut one = || -> Result<(), JobError> {
                copied.packets += (block.bytes.len() / PACKET_BYTES) as u64;
                let checked = check(&block, &schema, true);
                copied.rejected += checked.rejected.len() as u64;
                checked.rejected.iter().try_for_each(|rejected| list.write(rejected))?;
                let good: Vec<Verified> = checked.good.into_iter().map(Verified::checked_before).collect();
                take(&good, &mut copied)
            };
            match one() {
                Ok(()) => {
                    progress(copied.packets);
                    true
                }
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        })?;
        list.finish()?;
        failed.map_or(Ok(copied), Err)
    }
}

/// Where a packet lies under some views; a synthesis only under the one it names.
fn addresses(addressers: &[(Addresser, &View)], packet: &Packet) -> Vec<Address> {
    let named = packet.synthesis().map(|record| record.view);
    let of = |(addresser, view): &(Addresser, &View)| match named {
        Some(named) if packet.kind() == Kind::Synthesis && named != view.id() => vec![],
        _ => addresser.deposit(packet.scope(), &embed_one(&view.metric, packet.signal())),
    };
    addressers.iter().flat_map(of).collect()
}
