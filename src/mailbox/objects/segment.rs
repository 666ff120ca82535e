//! One segment: packets that one writer put into one mailbox at a time. Little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `QISS` |
//! | 4 | 4 | format version, 1 |
//! | 8 | 8 | sequence of the segment, from 1 |
//! | 16 | 8 | number of packets n, 1..=8,192 |
//! | 24 | 8 | zeros |
//! | 32 | 32 | address of the mailbox |
//! | 64 | 32 | writer |
//! | 96 | 32 | BLAKE3 `derive_key("qis 1 segment", bytes 0..96, then the packets)` |
//! | 128 | 512 n | the packets |
//!
//! The checksum finds damage, not forgery: anybody can compute it. A packet's signature is what counts.

use crate::address::Address;
use crate::limits::{PACKET_BYTES, SEGMENT_PACKETS_MAX};
use crate::packet::{Id, Packet, PacketError, Verified, hex, unhex};
use object_store::path::Path;

/// Bytes before the first packet.
const HEADER_BYTES: usize = 128;
const HASHED_BYTES: usize = 96;
const MAGIC: [u8; 4] = *b"QISS";
const FORMAT: u32 = 1;
/// Longest segment.
pub const BYTES_MAX: u64 = (HEADER_BYTES + SEGMENT_PACKETS_MAX * PACKET_BYTES) as u64;

/// Which segment: where it lies and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub address: Address,
    pub writer: Id,
    /// From 1, without gaps.
    pub sequence: u64,
}

/// Where the segments of a mailbox lie.
pub fn mailbox(root: &Path, address: &Address) -> Path {
    root.clone().join("qis1").join(hex(address))
}

/// Where one writer puts them.
pub fn folder(root: &Path, address: &Address, writer: &Id) -> Path {
    mailbox(root, address).join(hex(writer))
}

/// 32 bytes in the only spelling that we write: 64 lower-case digits.
pub fn id(text: &str) -> Option<Id> {
    let id: Id = unhex(text)?.try_into().ok()?;
    (hex(&id) == text).then_some(id)
}

impl Name {
    pub fn path(&self, root: &Path) -> Path {
        folder(root, &self.address, &self.writer).join(format!("{:016x}.qpk", self.sequence))
    }

    /// `None` for a path that no segment of this mailbox has.
    pub fn parse(root: &Path, address: &Address, path: &Path) -> Option<Name> {
        let mut parts = path.prefix_match(&mailbox(root, address))?;
        let (writer, file) = (parts.next()?, parts.next()?);
        let digits = file.as_ref().strip_suffix(".qpk")?;
        let sequence = u64::from_str_radix(digits, 16).ok().filter(|&sequence| sequence > 0)?;
        let name = Name { address: *address, writer: id(writer.as_ref())?, sequence };
        (name.path(root) == *path).then_some(name)
    }

    /// The bytes of a segment, of 1..=[`SEGMENT_PACKETS_MAX`] packets.
    pub fn encode<'a>(&self, packets: impl ExactSizeIterator<Item = &'a Verified>) -> Vec<u8> {
        let count = packets.len();
        assert!((1..=SEGMENT_PACKETS_MAX).contains(&count), "a segment of {count} packets");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + count * PACKET_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend((count as u64).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(self.address);
        bytes.extend(self.writer);
        bytes.extend([0; HEADER_BYTES - HASHED_BYTES]);
        packets.for_each(|packet| bytes.extend(packet.as_bytes()));
        let checksum = checksum(&bytes);
        bytes[HASHED_BYTES..HEADER_BYTES].copy_from_slice(&checksum);
        bytes
    }

    /// The packets of a segment, signatures unchecked; one that breaks the format stands as its error.
    ///
    /// # Errors
    /// What is wrong with the segment.
    pub fn decode(&self, bytes: &[u8]) -> Result<Vec<Result<Packet, PacketError>>, String> {
        if bytes.len() < HEADER_BYTES {
            return Err(format!("has {} bytes, the header alone has {HEADER_BYTES}", bytes.len()));
        }
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if bytes[..4] != MAGIC {
            return Err("is no segment: it does not begin with QISS".into());
        }
        let format = word(4) as u32;
        if format != FORMAT {
            return Err(format!("has format {format}, this program reads format {FORMAT}"));
        }
        let count = word(16);
        let length = count.checked_mul(PACKET_BYTES as u64).and_then(|n| n.checked_add(HEADER_BYTES as u64));
        if count == 0 || count > SEGMENT_PACKETS_MAX as u64 || length != Some(bytes.len() as u64) {
            return Err(format!("has {} bytes, which is not that of its {count} packets", bytes.len()));
        }
        if bytes[HASHED_BYTES..HEADER_BYTES] != checksum(bytes) {
            return Err("is damaged: its checksum does not fit".into());
        }
        let own = word(8) == self.sequence && bytes[32..64] == self.address && bytes[64..96] == self.writer;
        if !own {
            return Err("belongs elsewhere: its header names another mailbox, writer or sequence".into());
        }
        Ok(bytes[HEADER_BYTES..].chunks_exact(PACKET_BYTES).map(Packet::parse).collect())
    }
}

fn checksum(bytes: &[u8]) -> Id {
    let mut hasher = blake3::Hasher::new_derive_key("qis 1 segment");
    hasher.update(&bytes[..HASHED_BYTES]).update(&bytes[HEADER_BYTES..]);
    hasher.finalize().into()
}
