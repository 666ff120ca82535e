//! The rules that bytes must obey to be a packet; every refusal names the field.

use super::build::SYNTHESIS_NOTE_OFFSET;
use super::{Bytes, Kind, MAGIC, Packet};
use crate::limits::{CASES_MAX, OUTCOMES_MAX, PACKET_BYTES};
use std::fmt;

/// A field of the packet, as named in refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Length,
    Magic,
    Kind,
    Outcomes,
    Action,
    ObservedAt,
    ExpiresAt,
    Cases,
    Mask,
    Schema,
    Author,
    Signal,
    /// Mean and standard deviation of one outcome, by index.
    Value(u8),
    Scope,
    Note,
    NotePadding,
    Verdict,
    Level,
    /// The two bytes of a synthesis that are always zero.
    Reserved,
    Signature,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Length => "length",
            Field::Magic => "magic",
            Field::Kind => "kind",
            Field::Outcomes => "outcomes",
            Field::Action => "action",
            Field::ObservedAt => "observed at",
            Field::ExpiresAt => "expires at",
            Field::Cases => "cases",
            Field::Mask => "mask",
            Field::Schema => "schema",
            Field::Author => "author",
            Field::Signal => "signal",
            Field::Value(index) => return write!(f, "value {index}"),
            Field::Scope => "scope",
            Field::Note => "note",
            Field::NotePadding => "note padding",
            Field::Verdict => "verdict",
            Field::Level => "level",
            Field::Reserved => "reserved",
            Field::Signature => "signature",
        })
    }
}

/// Why bytes are not a packet: the field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet field `{field}`: {problem}")]
pub struct PacketError {
    pub field: Field,
    pub problem: String,
}

impl PacketError {
    pub fn new(field: Field, problem: impl Into<String>) -> Self {
        PacketError { field, problem: problem.into() }
    }
}

impl Packet {
    /// Checks 512 bytes against every rule that needs neither a key nor a schema nor a clock.
    ///
    /// # Errors
    /// The first field that breaks a rule, in the order of the byte table.
    pub fn parse(bytes: &[u8]) -> Result<Packet, PacketError> {
        if bytes.len() != PACKET_BYTES {
            return Err(PacketError::new(
                Field::Length,
                format!("a packet has {PACKET_BYTES} bytes, here are {}", bytes.len()),
            ));
        }
        let packet = Packet(bytemuck::pod_read_unaligned(bytes));
        check(&packet)?;
        Ok(packet)
    }
}

/// Refuses with `field` and the problem unless `holds`.
fn require(holds: bool, field: Field, problem: impl FnOnce() -> String) -> Result<(), PacketError> {
    if holds { Ok(()) } else { Err(PacketError::new(field, problem())) }
}

pub(super) fn check(packet: &Packet) -> Result<(), PacketError> {
    let b: &Bytes = &packet.0;
    require(b.magic == MAGIC, Field::Magic, || "is not `QIS1`".into())?;
    require(b.kind <= 2, Field::Kind, || format!("{} is not 0, 1 or 2", b.kind))?;
    let kind = packet.kind();
    require((1..=OUTCOMES_MAX as u8).contains(&b.outcomes), Field::Outcomes, || {
        format!("{} is not in 1..={OUTCOMES_MAX}", b.outcomes)
    })?;
    require(b.expires_at == 0 || b.expires_at > b.observed_at, Field::ExpiresAt, || {
        format!("{} is neither 0 nor after observed at, {}", b.expires_at, b.observed_at)
    })?;
    match kind {
        Kind::Observed => require((1..=CASES_MAX).contains(&b.cases), Field::Cases, || {
            format!("{} is not in 1..={CASES_MAX}", b.cases)
        })?,
        _ => require(b.cases == 0, Field::Cases, || {
            format!("{} in a packet without evidence, where it is 0", b.cases)
        })?,
    }
    require(u32::from(b.mask) >> b.outcomes == 0, Field::Mask, || {
        format!("{:#06x} names an outcome beyond the {} of the packet", b.mask, b.outcomes)
    })?;
    require((b.mask == 0) == (kind == Kind::Retraction), Field::Mask, || {
        format!("{:#06x}: no outcome is present exactly in a retraction", b.mask)
    })?;
    require(!b.signal.contains(&i8::MIN), Field::Signal, || {
        let slot = b.signal.iter().position(|&s| s == i8::MIN).unwrap_or_default();
        format!("slot {slot} is -128; slots are in [-127, 127]")
    })?;
    for (index, &[mean, spread]) in b.values.iter().enumerate() {
        check_value(kind, b.cases, b.mask >> index & 1 == 1, mean, spread)
            .map_err(|problem| PacketError::new(Field::Value(index as u8), problem))?;
    }
    match kind {
        Kind::Observed | Kind::Retraction => check_note(&b.note),
        Kind::Synthesis => check_synthesis(&b.note),
    }
}

/// One outcome's pair of numbers.
fn check_value(kind: Kind, cases: u16, present: bool, mean: u16, spread: u16) -> Result<(), String> {
    if !present {
        return if mean == 0 && spread == 0 {
            Ok(())
        } else {
            Err(format!("absent, yet ({mean}, {spread}) instead of (0, 0)"))
        };
    }
    if kind != Kind::Observed {
        return Ok(());
    }
    if cases == 1 && spread != 0 {
        return Err(format!("standard deviation {spread} of a single case"));
    }
    // The variance of values in [0, 65535] with mean y is at most y (65535 - y); one step of slack
    // for the rounding of the mean.
    let y = u64::from(mean);
    let bound = y * (65_535 - y) + 65_535;
    if u64::from(spread).pow(2) > bound {
        return Err(format!("standard deviation {spread} is larger than the mean {mean} allows"));
    }
    Ok(())
}

/// UTF-8 up to the first NUL, zeros after it.
fn check_note(note: &[u8]) -> Result<(), PacketError> {
    let end = note.iter().position(|&b| b == 0).unwrap_or(note.len());
    require(note[end..].iter().all(|&b| b == 0), Field::NotePadding, || {
        "a byte after the first NUL is not 0".into()
    })?;
    require(std::str::from_utf8(&note[..end]).is_ok(), Field::Note, || "is not UTF-8".into())
}

fn check_synthesis(note: &[u8; 96]) -> Result<(), PacketError> {
    let [verdict, level, reserved @ ..] = [note[44], note[45], note[46], note[47]];
    require(verdict <= 2, Field::Verdict, || format!("{verdict} is not 0, 1 or 2"))?;
    require((1..=99).contains(&level), Field::Level, || format!("{level} is not in 1..=99 per cent"))?;
    require(reserved == [0, 0], Field::Reserved, || "is not zero".into())?;
    check_note(&note[SYNTHESIS_NOTE_OFFSET..])
}
