//! Keys and values inside the database, and the two small files beside it, byte by byte.
//!
//! Numbers inside keys are big-endian, so that byte order is number order; in values and files they
//! are little-endian.
//!
//! | table | key | value |
//! |---|---|---|
//! | `packets` | address 32, sequence 8 | packet 512, CRC-32 of key and packet 4 |
//! | `index` | address 32, packet id 32 | sequence 8, kind 1, author 32, expires at 8 (0 never) |
//! | `latest` | address 32, BLAKE3 of author and evidence id 32 | author's sequence number 4, packet id 32 |
//! | `retractions` | address 32, author 32, retracted packet id 32 | nothing |
//! | `expiry` | expires at 8, address 32, packet id 32 | nothing |
//! | `mailboxes` | address 32 | last sequence 8, observed 8, syntheses 8, retractions 8, sum of their ids 32, entries in `retractions` 8 |
//! | `authors` | address 32, author 32 | packets of the author in the mailbox 8, never 0 |
//! | `head` | `head` | see [`Head`] |
//!
//! A record that lies under another key fails its CRC too. The database has a checksum of 128 bits of its
//! own on every record it reads from a file; this one also finds what goes wrong above that, at a tenth
//! of the cost of a BLAKE3, which took more than half the time of a pull.

use crate::address::Address;
use crate::limits::PACKET_BYTES;
use crate::packet::{Id, Kind, Packet, Verified};
use crate::store::ledger::{Entry, Version};
use crate::store::{Digest, Stat};

/// Bytes of the checksum of the head and of the files beside the database.
pub const CHECKSUM_BYTES: usize = 16;
/// Bytes of a packet's record.
const RECORD_BYTES: usize = PACKET_BYTES + 4;

/// The first 16 bytes of BLAKE3 `derive_key(context, parts)`.
pub fn checksum(context: &str, parts: &[&[u8]]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    let mut short = [0; CHECKSUM_BYTES];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    short
}

/// Reads fixed-size fields one after the other; `None` past the end.
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
    /// The value, if nothing is left over.
    pub fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

/// Parts one after the other; they fill the array.
fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut joined = [0; N];
    let mut rest = &mut joined[..];
    for part in parts {
        let (here, behind) = rest.split_at_mut(part.len());
        here.copy_from_slice(part);
        rest = behind;
    }
    debug_assert!(rest.is_empty());
    joined
}

/// Key of a packet's record.
pub fn packet_key(address: &Address, sequence: u64) -> [u8; 40] {
    join(&[address, &sequence.to_be_bytes()])
}

/// Address and sequence of a packet's key.
pub fn parse_packet_key(key: &[u8]) -> Option<(Address, u64)> {
    let mut fields = Fields(key);
    let parsed = (fields.bytes()?, u64::from_be_bytes(fields.bytes()?));
    fields.end(parsed)
}

fn crc(key: &[u8], packet: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(key);
    crc.update(packet);
    crc.sum().to_le_bytes()
}

/// A packet as it lies under its key.
pub fn write_record(key: &[u8], packet: &Packet) -> [u8; RECORD_BYTES] {
    let bytes = packet.as_bytes();
    join(&[bytes, &crc(key, bytes)])
}

/// The packet of a record, or what is wrong with it. The signature was checked when it was written.
pub fn read_record(key: &[u8], value: &[u8]) -> Result<Verified, String> {
    if value.len() != RECORD_BYTES {
        return Err(format!("{} bytes instead of {RECORD_BYTES}", value.len()));
    }
    let (packet, written) = value.split_at(PACKET_BYTES);
    if crc(key, packet) != written {
        return Err("its checksum does not fit".into());
    }
    Packet::parse(packet).map(Verified::checked_before).map_err(|e| e.to_string())
}

impl Entry {
    pub fn write(&self) -> [u8; 49] {
        let kind = match self.kind {
            Kind::Observed => 0,
            Kind::Synthesis => 1,
            Kind::Retraction => 2,
        };
        join(&[&self.sequence.to_le_bytes(), &[kind], &self.author, &self.expires_at.to_le_bytes()])
    }

    pub fn read(value: &[u8]) -> Option<Entry> {
        let mut fields = Fields(value);
        let sequence = fields.u64()?;
        let kind = match fields.bytes()? {
            [0] => Kind::Observed,
            [1] => Kind::Synthesis,
            [2] => Kind::Retraction,
            _ => return None,
        };
        let entry = Entry { sequence, kind, author: fields.bytes()?, expires_at: fields.u64()? };
        fields.end(entry)
    }
}

pub fn index_key(address: &Address, id: &Id) -> [u8; 64] {
    join(&[address, id])
}

/// Shorter than author and evidence id themselves, and as unique.
pub fn latest_key(address: &Address, author: &Id, evidence: &Id) -> [u8; 64] {
    join(&[address, blake3::hash(&join::<64>(&[author, evidence])).as_bytes()])
}

pub fn write_version((sequence, id): &Version) -> [u8; 36] {
    join(&[&sequence.to_le_bytes(), id])
}

pub fn read_version(value: &[u8]) -> Option<Version> {
    let mut fields = Fields(value);
    let version = (fields.u32()?, fields.bytes()?);
    fields.end(version)
}

pub fn retraction_key(address: &Address, author: &Id, retracted: &Id) -> [u8; 96] {
    join(&[address, author, retracted])
}

pub fn parse_retraction_key(key: &[u8]) -> Option<(Address, Id, Id)> {
    let mut fields = Fields(key);
    let parsed = (fields.bytes()?, fields.bytes()?, fields.bytes()?);
    fields.end(parsed)
}

pub fn expiry_key(expires_at: u64, address: &Address, id: &Id) -> [u8; 72] {
    join(&[&expires_at.to_be_bytes(), address, id])
}

pub fn parse_expiry_key(key: &[u8]) -> Option<(u64, Address, Id)> {
    let mut fields = Fields(key);
    let parsed = (u64::from_be_bytes(fields.bytes()?), fields.bytes()?, fields.bytes()?);
    fields.end(parsed)
}

pub fn author_key(address: &Address, author: &Id) -> [u8; 64] {
    join(&[address, author])
}

/// A counter of table `authors`.
pub fn read_count(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}

/// A mailbox's last sequence and what it holds, expired or not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mailbox {
    pub last: u64,
    pub stat: Stat,
    pub digest: Digest,
    /// Entries of table `retractions`: where there are none, none need be looked up.
    pub retracted: u64,
}

impl Mailbox {
    pub fn write(&self) -> [u8; 72] {
        let Stat { observed, syntheses, retractions, .. } = self.stat;
        let [a, b, c, d] = self.digest.sum;
        let numbers = [self.last, observed, syntheses, retractions, a, b, c, d, self.retracted];
        let numbers = numbers.map(u64::to_le_bytes);
        join(&[numbers.as_flattened()])
    }

    pub fn read(value: &[u8]) -> Option<Mailbox> {
        let mut fields = Fields(value);
        let last = fields.u64()?;
        let (observed, syntheses, retractions) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let sum = [fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?];
        let count = observed.saturating_add(syntheses).saturating_add(retractions);
        let stat = Stat { packets: count, observed, syntheses, retractions };
        let digest = Digest { count, sum };
        let retracted = fields.u64()?;
        fields.end(Mailbox { last, stat, digest, retracted })
    }
}

/// Tables whose contents the head sums up.
pub const TABLES: usize = 7;

/// Number and digest of a table's entries. The digest is the sum modulo 2^64, in four lanes, of the
/// BLAKE3 of each entry, so entries come and go in any order; it finds accidents, not forgers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub count: u64,
    pub lanes: [u64; 4],
}

impl Sum {
    pub fn add(&mut self, entry: [u64; 4]) {
        self.count = self.count.wrapping_add(1);
        self.lanes.iter_mut().zip(entry).for_each(|(lane, e)| *lane = lane.wrapping_add(e));
    }
    pub fn remove(&mut self, entry: [u64; 4]) {
        self.count = self.count.wrapping_sub(1);
        self.lanes.iter_mut().zip(entry).for_each(|(lane, e)| *lane = lane.wrapping_sub(e));
    }
    /// What one entry contributes. A packet's value is left out: it has its own checksum, and so the
    /// check at opening reads no packets.
    pub fn entry(table: usize, key: &[u8], value: &[u8]) -> [u64; 4] {
        let value = if table == 0 { &[] } else { value };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[table as u8, key.len() as u8]).update(key).update(value);
        let hash = *hasher.finalize().as_bytes();
        std::array::from_fn(|lane| u64::from_le_bytes(std::array::from_fn(|byte| hash[8 * lane + byte])))
    }
}

const HEAD_BODY_BYTES: usize = 16 + TABLES * 40;

/// The state of the whole database, rewritten by each commit:
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | epoch |
/// | 8 | 8 | commits so far |
/// | 16 | 7 x 40 | per table, in the order of the table above: entries 8, digest 32 |
/// | 296 | 16 | BLAKE3 `derive_key("qis 1 head", bytes 0..296)`, the first 16 bytes |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub epoch: u64,
    pub commits: u64,
    pub sums: [Sum; TABLES],
}

impl Head {
    /// An empty database.
    pub fn new(epoch: u64) -> Head {
        Head { epoch, commits: 0, sums: Default::default() }
    }

    pub fn packets(&self) -> u64 {
        self.sums[0].count
    }

    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BODY_BYTES + CHECKSUM_BYTES);
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.commits.to_le_bytes());
        for sum in &self.sums {
            bytes.extend(sum.count.to_le_bytes());
            sum.lanes.iter().for_each(|lane| bytes.extend(lane.to_le_bytes()));
        }
        let check = checksum("qis 1 head", &[&bytes]);
        bytes.extend(check);
        bytes
    }

    pub fn read(bytes: &[u8]) -> Option<Head> {
        let (body, check) = bytes.split_at_checked(HEAD_BODY_BYTES)?;
        if checksum("qis 1 head", &[body]) != check {
            return None;
        }
        let mut fields = Fields(body);
        let mut head = Head::new(fields.u64()?);
        head.commits = fields.u64()?;
        for sum in &mut head.sums {
            sum.count = fields.u64()?;
            for lane in &mut sum.lanes {
                *lane = fields.u64()?;
            }
        }
        fields.end(head)
    }

    pub fn digest(&self) -> Id {
        blake3::derive_key("qis 1 head digest", &self.write())
    }
}
