//! One suite for both stores, and the disk's own tests.

mod conformance;
mod crash;
#[cfg(unix)]
mod damage;
mod model;

use crate::packet::{AuthorKey, Draft, Id, Kind, SynthesisRecord, Verdict, Verified};

const SCHEMA: Id = [7; 32];

fn author(number: u8) -> AuthorKey {
    AuthorKey::from_seed([number + 1; 32])
}

/// One version of a piece of evidence; packets with different `note` are different packets.
fn observed(author_number: u8, evidence: u8, sequence: u32, note: &str) -> Draft {
    let mut draft = Draft::new(Kind::Observed, SCHEMA, 1);
    draft.values[0] = Some((u16::from(author_number), 0));
    draft.reference = [evidence; 32];
    draft.sequence = sequence;
    draft.note = note.into();
    draft
}

fn synthesis(sequence: u32) -> Draft {
    let mut draft = Draft::new(Kind::Synthesis, SCHEMA, 1);
    draft.values[0] = Some((1, 2));
    draft.sequence = sequence;
    draft.synthesis = Some(SynthesisRecord {
        view: [9; 32],
        evidence_packets: 1,
        authors: 1,
        effective_cases_256: 256,
        verdict: Verdict::Answer,
        level: 90,
    });
    draft
}

fn retraction(packet: Id, sequence: u32) -> Draft {
    let mut draft = Draft::new(Kind::Retraction, SCHEMA, 1);
    draft.reference = packet;
    draft.sequence = sequence;
    draft
}

fn sign(author_number: u8, draft: &Draft) -> Verified {
    author(author_number).sign(draft).expect("a sound draft")
}

/// `count` different observed packets of one author.
fn many(count: u32) -> Vec<Verified> {
    let key = author(0);
    let one = |number: u32| {
        let mut draft = observed(0, 0, 0, "");
        draft.reference[..4].copy_from_slice(&number.to_le_bytes());
        key.sign(&draft).expect("a sound draft")
    };
    (0..count).map(one).collect()
}
