//! The packet: exactly 512 bytes, little-endian, the same in memory, on disk and on the wire.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `QIS1` |
//! | 4 | 1 | kind: 0 observed, 1 synthesis, 2 retraction |
//! | 5 | 1 | number of outcomes, 1..=16 |
//! | 6 | 2 | action index, 0xFFFF none |
//! | 8 | 8 | observed at, Unix ms, floored to the schema's time step |
//! | 16 | 8 | expires at, Unix ms, 0 never |
//! | 24 | 2 | cases summarised, 1..=4,095; 0 unless observed |
//! | 26 | 2 | mask of outcomes present |
//! | 28 | 4 | author's sequence number |
//! | 32 | 32 | schema id |
//! | 64 | 32 | author key |
//! | 96 | 32 | reference: evidence id, lineage root or retracted packet id, by kind |
//! | 128 | 128 | signal, i8 in [-127, 127] |
//! | 256 | 64 | 16 x (u16 mean, u16 population standard deviation); in a synthesis (estimate, half-width) |
//! | 320 | 32 | scope |
//! | 352 | 96 | note, UTF-8, zero-padded; in a synthesis see [`SynthesisRecord`] |
//! | 448 | 64 | ed25519 signature over the packet id |
//!
//! The packet id is BLAKE3 `derive_key("qis 1 packet", bytes 0..448)`.
//!
//! Three types keep what is known of the bytes apart: [`Draft`] is what an author fills in,
//! [`Packet`] has passed every rule that needs no key ([`Packet::parse`]), and [`Verified`] has a
//! good signature too. Only verified packets enter a store or a merge.

mod build;
mod file;
mod parse;
mod sign;

pub use build::{Draft, SynthesisRecord, Verdict};
pub use file::{FILE_HEADER_BYTES, FileError, PacketFile, PacketFileWriter};
pub use parse::{Field, PacketError};
pub use sign::{AuthorKey, Verified, is_signed, verify_batch};

use crate::limits::{OUTCOMES_MAX, PACKET_BYTES, PACKET_SIGNED_BYTES, SLOTS};
use bytemuck::{Pod, Zeroable};

#[cfg(target_endian = "big")]
compile_error!("packets are little-endian in memory; a big-endian port needs explicit conversions");

/// 32 bytes that name something: a packet, schema, view, author, scope or address.
pub type Id = [u8; 32];

/// First four bytes of every packet.
pub const MAGIC: [u8; 4] = *b"QIS1";
/// Action index that means "no action".
pub const ACTION_NONE: u16 = 0xFFFF;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Evidence: what an author saw happen.
    Observed,
    /// A public answer; carries no evidence.
    Synthesis,
    /// Takes one of the author's own packets back.
    Retraction,
}

/// The bytes as they lie: private, because only checked values may leave the module.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Bytes {
    magic: [u8; 4],
    kind: u8,
    outcomes: u8,
    action: u16,
    observed_at: u64,
    expires_at: u64,
    cases: u16,
    mask: u16,
    sequence: u32,
    schema: Id,
    author: Id,
    reference: Id,
    signal: [i8; SLOTS],
    values: [[u16; 2]; OUTCOMES_MAX],
    scope: Id,
    note: [u8; 96],
    signature: [u8; 64],
}

const _: () = assert!(size_of::<Bytes>() == PACKET_BYTES);

/// A packet whose bytes obey every rule of the format; its signature is not checked yet.
#[derive(Clone, Copy)]
pub struct Packet(Bytes);

/// The id of a packet's bytes, sound or not.
///
/// # Panics
/// With fewer than 448 bytes.
pub(crate) fn id_of(bytes: &[u8]) -> Id {
    blake3::derive_key("qis 1 packet", &bytes[..PACKET_SIGNED_BYTES])
}

impl Packet {
    /// Takes bytes 0..448 that this process has parsed before; the signature is left out.
    pub(crate) fn parsed_before(bytes: &[u8; PACKET_SIGNED_BYTES]) -> Packet {
        let mut whole = [0; PACKET_BYTES];
        whole[..PACKET_SIGNED_BYTES].copy_from_slice(bytes);
        Packet(bytemuck::cast(whole))
    }
    /// The 512 bytes.
    pub fn as_bytes(&self) -> &[u8; PACKET_BYTES] {
        bytemuck::cast_ref(&self.0)
    }
    /// BLAKE3 `derive_key("qis 1 packet", bytes 0..448)`.
    pub fn id(&self) -> Id {
        id_of(self.as_bytes())
    }
    pub fn kind(&self) -> Kind {
        match self.0.kind {
            0 => Kind::Observed,
            1 => Kind::Synthesis,
            _ => Kind::Retraction,
        }
    }
    /// Number of outcomes of the schema, 1..=16.
    pub fn outcomes(&self) -> usize {
        self.0.outcomes as usize
    }
    /// Index into the schema's actions, if an action was taken.
    pub fn action(&self) -> Option<u16> {
        (self.0.action != ACTION_NONE).then_some(self.0.action)
    }
    /// Unix milliseconds, floored to the schema's time step.
    pub fn observed_at(&self) -> u64 {
        self.0.observed_at
    }
    /// Unix milliseconds; 0 means never.
    pub fn expires_at(&self) -> u64 {
        self.0.expires_at
    }
    /// Cases summarised, 1..=4,095; 0 unless observed.
    pub fn cases(&self) -> u16 {
        self.0.cases
    }
    /// Bit i: outcome i is present.
    pub fn mask(&self) -> u16 {
        self.0.mask
    }
    pub fn sequence(&self) -> u32 {
        self.0.sequence
    }
    pub fn schema(&self) -> &Id {
        &self.0.schema
    }
    pub fn author(&self) -> &Id {
        &self.0.author
    }
    /// Evidence id, lineage root or retracted packet id, by kind.
    pub fn reference(&self) -> &Id {
        &self.0.reference
    }
    /// i8 in [-127, 127].
    pub fn signal(&self) -> &[i8; SLOTS] {
        &self.0.signal
    }
    /// (mean, standard deviation) of outcome `index` over its declared range, 0..=65,535 each; in a
    /// synthesis (estimate, half-width). (0, 0) where the mask says absent.
    pub fn value(&self, index: usize) -> (u16, u16) {
        let [mean, spread] = self.0.values[index];
        (mean, spread)
    }
    pub fn scope(&self) -> &Id {
        &self.0.scope
    }
    /// The author's note for people.
    pub fn note(&self) -> &str {
        let room: &[u8] = match self.kind() {
            Kind::Synthesis => &self.0.note[build::SYNTHESIS_NOTE_OFFSET..],
            _ => &self.0.note,
        };
        let end = room.iter().position(|&b| b == 0).unwrap_or(room.len());
        std::str::from_utf8(&room[..end]).unwrap_or_default()
    }
    /// What a synthesis says of itself; `None` for other kinds.
    pub fn synthesis(&self) -> Option<SynthesisRecord> {
        (self.kind() == Kind::Synthesis).then(|| SynthesisRecord::read(&self.0.note))
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}
impl Eq for Packet {}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packet")
            .field("id", &hex(&self.id()))
            .field("kind", &self.kind())
            .field("cases", &self.cases())
            .field("sequence", &self.sequence())
            .finish()
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads hexadecimal of either case; `None` for any other text or an odd length.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests;
