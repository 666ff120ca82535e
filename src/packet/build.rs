//! From what an author wants to say to the bytes.

use super::{ACTION_NONE, Bytes, Field, Id, Kind, MAGIC, Packet, PacketError, parse};
use crate::limits::{OUTCOMES_MAX, SLOTS};
use bytemuck::Zeroable;

/// Where the note starts inside the 96 bytes of a synthesis.
pub(super) const SYNTHESIS_NOTE_OFFSET: usize = 48;

/// How far an answer can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Enough agreeing evidence.
    Answer = 0,
    /// Little evidence: a few further cases may flip the choice.
    Thin = 1,
    /// The authors contradict each other by more than chance allows.
    Conflict = 2,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Answer => "answer",
            Verdict::Thin => "thin",
            Verdict::Conflict => "conflict",
        }
    }
}

/// What a synthesis packet says of itself, bytes 352..400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynthesisRecord {
    /// Under which view the answer was computed.
    pub view: Id,
    /// Observed packets of weight above zero.
    pub evidence_packets: u32,
    /// Authors of those packets.
    pub authors: u32,
    /// Effective cases in 1/256, the smallest over the outcomes present; saturated.
    pub effective_cases_256: u32,
    pub verdict: Verdict,
    /// Confidence level of the half-widths in per cent, 1..=99.
    pub level: u8,
}

impl SynthesisRecord {
    pub(super) fn read(note: &[u8; 96]) -> SynthesisRecord {
        let word = |at: usize| u32::from_le_bytes([note[at], note[at + 1], note[at + 2], note[at + 3]]);
        let mut view = [0; 32];
        view.copy_from_slice(&note[..32]);
        SynthesisRecord {
            view,
            evidence_packets: word(32),
            authors: word(36),
            effective_cases_256: word(40),
            verdict: match note[44] {
                0 => Verdict::Answer,
                1 => Verdict::Thin,
                _ => Verdict::Conflict,
            },
            level: note[45],
        }
    }

    fn write(&self, note: &mut [u8; 96]) {
        note[..32].copy_from_slice(&self.view);
        note[32..36].copy_from_slice(&self.evidence_packets.to_le_bytes());
        note[36..40].copy_from_slice(&self.authors.to_le_bytes());
        note[40..44].copy_from_slice(&self.effective_cases_256.to_le_bytes());
        note[44] = self.verdict as u8;
        note[45] = self.level;
    }
}

/// The unsigned content of a packet. [`super::AuthorKey::sign`] turns it into a [`super::Verified`].
#[derive(Clone, Debug)]
pub struct Draft {
    pub kind: Kind,
    /// Number of outcomes of the schema, 1..=16.
    pub outcomes: usize,
    pub action: Option<u16>,
    /// Unix ms, already floored to the schema's time step.
    pub observed_at: u64,
    /// Unix ms, 0 never.
    pub expires_at: u64,
    pub cases: u16,
    pub sequence: u32,
    pub schema: Id,
    /// Evidence id, lineage root or retracted packet id, by kind.
    pub reference: Id,
    pub signal: [i8; SLOTS],
    /// (mean, standard deviation) or (estimate, half-width) per outcome; `None` is absent.
    pub values: [Option<(u16, u16)>; OUTCOMES_MAX],
    pub scope: Id,
    pub note: String,
    /// Present exactly in a synthesis.
    pub synthesis: Option<SynthesisRecord>,
}

impl Draft {
    /// A draft of `kind` with everything else empty; callers fill what they know.
    pub fn new(kind: Kind, schema: Id, outcomes: usize) -> Draft {
        Draft {
            kind,
            outcomes,
            action: None,
            observed_at: 0,
            expires_at: 0,
            cases: u16::from(kind == Kind::Observed),
            sequence: 0,
            schema,
            reference: [0; 32],
            signal: [0; SLOTS],
            values: [None; OUTCOMES_MAX],
            scope: [0; 32],
            note: String::new(),
            synthesis: None,
        }
    }

    /// The bytes with a zero signature.
    ///
    /// # Errors
    /// The first field that breaks a rule of the format; a note that does not fit its room.
    pub(super) fn build(&self, author: Id) -> Result<Packet, PacketError> {
        let mut b = Bytes::zeroed();
        b.magic = MAGIC;
        b.kind = match self.kind {
            Kind::Observed => 0,
            Kind::Synthesis => 1,
            Kind::Retraction => 2,
        };
        b.outcomes = u8::try_from(self.outcomes)
            .map_err(|_| PacketError::new(Field::Outcomes, format!("{} outcomes", self.outcomes)))?;
        if self.action == Some(ACTION_NONE) {
            return Err(PacketError::new(Field::Action, "index 65,535 means no action"));
        }
        b.action = self.action.unwrap_or(ACTION_NONE);
        b.observed_at = self.observed_at;
        b.expires_at = self.expires_at;
        b.cases = self.cases;
        b.sequence = self.sequence;
        b.schema = self.schema;
        b.author = author;
        b.reference = self.reference;
        b.signal = self.signal;
        for (index, value) in self.values.iter().enumerate() {
            if let Some((mean, spread)) = *value {
                b.mask |= 1 << index;
                b.values[index] = [mean, spread];
            }
        }
        b.scope = self.scope;
        let offset = match (&self.synthesis, self.kind) {
            (Some(record), Kind::Synthesis) => {
                record.write(&mut b.note);
                SYNTHESIS_NOTE_OFFSET
            }
            (None, Kind::Observed | Kind::Retraction) => 0,
            _ => {
                let problem = "a synthesis record stands exactly in a synthesis";
                return Err(PacketError::new(Field::Kind, problem));
            }
        };
        let room = &mut b.note[offset..];
        let note = self.note.as_bytes();
        if note.len() > room.len() || note.contains(&0) {
            let problem = format!("{} bytes; at most {} without a NUL fit", note.len(), room.len());
            return Err(PacketError::new(Field::Note, problem));
        }
        room[..note.len()].copy_from_slice(note);
        let packet = Packet(b);
        parse::check(&packet)?;
        Ok(packet)
    }
}
