//! Signs a result and writes it.

use super::checkpoint::Numbers;
use super::digest::{Digest, content};
use super::partition::Record;
use super::refresh::Refreshed;
use super::{JobError, io_error};
use crate::address::{Address, Addresser};
use crate::domain::{Schema, View};
use crate::embed::cpu::embed_one;
use crate::limits::PACKET_SIGNED_BYTES;
use crate::packet::{AuthorKey, Id, Packet, PacketFileWriter, Verified};
use crate::store::{DiskStore, PacketStore};
use rayon::prelude::*;
use std::fs;
use std::path::Path;

/// Packets deposited to a store at a time.
const DEPOSIT_PACKETS: usize = 4_096;

/// Where a result goes.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// A packet file.
    File(&'a Path),
    /// The folder of a store, new or not.
    Store(&'a Path),
}

impl Output<'_> {
    /// A name that ends in `.qpk` is a packet file, any other a store.
    pub fn of(path: &Path) -> Output<'_> {
        if path.extension().is_some_and(|extension| extension == "qpk") && !path.is_dir() {
            Output::File(path)
        } else {
            Output::Store(path)
        }
    }

    /// The path as named.
    pub fn path(&self) -> &Path {
        match self {
            Output::File(path) | Output::Store(path) => path,
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub packets: u64,
    pub digest: Id,
}

/// Signs the syntheses under numbers that `reserve` gives for so many, writes them, and removes the
/// work folder. The output appears whole or not at all; an existing store gets them as deposits.
///
/// # Errors
/// I/O; no numbers; a store that refuses.
pub fn write(
    refreshed: Refreshed,
    schema: &Schema,
    view: &View,
    key: &AuthorKey,
    output: Output,
    now_ms: u64,
    reserve: impl FnOnce(u32) -> Result<u32, String>,
) -> Result<Written, JobError> {
    let mut count = 0;
    for bucket in 0..refreshed.buckets() {
        count += refreshed.bucket(bucket)?.len() as u64;
    }
    let wanted = u32::try_from(count)
        .map_err(|_| JobError::Numbers(format!("{count} syntheses are more than one author can number")))?;
    // A job that was killed while it wrote signs the same packets again.
    let numbers = match refreshed.work.read::<Numbers>("numbers.json")? {
        Some(numbers) if numbers.count == wanted => numbers,
        _ => {
            let first = if wanted == 0 { 0 } else { reserve(wanted).map_err(JobError::Numbers)? };
            let numbers = Numbers { first, count: wanted };
            refreshed.work.write("numbers.json", &numbers)?;
            numbers
        }
    };
    let places = Places::new(view);
    let mut next = numbers.first;
    let mut pairs = Pairs::new(&places);
    let mut signed = |bucket: usize| -> Result<Vec<Verified>, JobError> {
        let records = refreshed.bucket(bucket)?;
        let first = next;
        next += records.len() as u32;
        let sign = |(index, record): (usize, &Record)| {
            key.sign_numbered(Packet::parsed_before(&record.bytes), first + index as u32)
        };
        Ok(records.par_iter().enumerate().map(sign).collect())
    };
    match output {
        Output::File(path) => {
            let mut writer = PacketFileWriter::create(path, schema.id(), view.id())?;
            for bucket in 0..refreshed.buckets() {
                let packets = signed(bucket)?;
                packets.iter().try_for_each(|packet| writer.write(packet))?;
                pairs.add(&packets);
                pairs.end_bucket();
            }
            writer.finish()?;
        }
        Output::Store(path) => {
            let part = refreshed.work.folder().join("store");
            let target = if path.exists() { path } else { &part };
            if target == part && part.exists() {
                fs::remove_dir_all(&part).map_err(io_error(&part))?;
            }
            let (store, _) = DiskStore::open(target)?;
            for bucket in 0..refreshed.buckets() {
                let packets = signed(bucket)?;
                for packets in packets.chunks(DEPOSIT_PACKETS) {
                    let placed = packets.iter().flat_map(|packet| {
                        places.addresses(packet).into_iter().map(move |address| (address, *packet))
                    });
                    store.deposit(now_ms, &placed.collect::<Vec<_>>())?;
                }
                pairs.add(&packets);
                pairs.end_bucket();
            }
            drop(store);
            if target == part {
                fs::rename(&part, path).map_err(io_error(path))?;
            }
        }
    }
    let digest = pairs.finish();
    refreshed.work.remove()?;
    Ok(Written { packets: count, digest })
}

/// Where synthesis packets lie under one view.
pub(super) struct Places<'a> {
    addresser: Addresser,
    view: &'a View,
}

impl<'a> Places<'a> {
    pub(super) fn new(view: &'a View) -> Places<'a> {
        Places { addresser: Addresser::new(view), view }
    }

    /// Whether a synthesis may lie at another address than the mailbox it was made from.
    pub(super) fn needs_fingerprints(&self) -> bool {
        self.addresser.needs_fingerprints()
    }

    pub(super) fn addresses(&self, packet: &Packet) -> Vec<Address> {
        self.addresser.deposit(packet.scope(), &embed_one(&self.view.metric, packet.signal()))
    }
}

/// Pairs of (address, content) on their way into a digest. A packet's address is that of its own
/// signal; with one mailbox per scope this is the mailbox it was made from.
pub(super) struct Pairs<'a> {
    places: &'a Places<'a>,
    pairs: Vec<(Address, [u8; PACKET_SIGNED_BYTES])>,
    digest: Digest,
}

impl<'a> Pairs<'a> {
    pub(super) fn new(places: &'a Places) -> Pairs<'a> {
        Pairs { places, pairs: vec![], digest: Digest::default() }
    }

    pub(super) fn add(&mut self, packets: &[Verified]) {
        for packet in packets {
            let content = content(packet);
            let addresses = self.places.addresses(packet);
            self.pairs.extend(addresses.into_iter().map(|address| (address, content)));
        }
    }

    /// Buckets ascend by address, and so do their pairs, unless addresses depend on fingerprints: then
    /// the mean signal of a mailbox may lie at another one, and all pairs wait for the end.
    fn end_bucket(&mut self) {
        if !self.places.needs_fingerprints() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.pairs.sort_unstable();
        self.pairs.drain(..).for_each(|(address, content)| self.digest.add(&address, content));
    }

    pub(super) fn finish(mut self) -> Id {
        self.flush();
        self.digest.finish()
    }
}
