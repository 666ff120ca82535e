//! Author keys, signatures and evidence ids.
//!
//! Signatures follow ZIP-215, so single and batch checks agree for every input and replicas never
//! disagree about a packet. Keys of small order are refused: for those, one signature fits many
//! messages.

use super::{Draft, Field, Id, Packet, PacketError};
use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_zebra::{Signature, SigningKey, VerificationKey, VerificationKeyBytes, batch};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use unicode_normalization::UnicodeNormalization;

/// Packets per batch check: large enough that the shared doublings pay, small enough that a bad
/// packet costs few single checks.
const BATCH: usize = 128;

/// A packet with a good signature of its author.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified(Packet);

impl Verified {
    pub fn packet(&self) -> &Packet {
        &self.0
    }

    /// Takes a packet whose signature this process, or the store it came from, has checked before.
    /// A signature costs 25-60 us to check; a store checks once and remembers.
    pub(crate) fn checked_before(packet: Packet) -> Verified {
        Verified(packet)
    }
}

impl std::ops::Deref for Verified {
    type Target = Packet;
    fn deref(&self) -> &Packet {
        &self.0
    }
}

/// An author's secret: signs packets and derives unguessable evidence ids.
#[derive(Clone)]
pub struct AuthorKey {
    signing: SigningKey,
    public: Id,
    evidence_secret: Id,
}

impl AuthorKey {
    /// From the 32-byte ed25519 seed.
    pub fn from_seed(seed: [u8; 32]) -> AuthorKey {
        let signing = SigningKey::from_bytes(&seed);
        let public = VerificationKeyBytes::from(&signing).into();
        let evidence_secret = blake3::derive_key("qis 1 evidence", &seed);
        AuthorKey { signing, public, evidence_secret }
    }

    /// The public key that stands in packets.
    pub fn public(&self) -> &Id {
        &self.public
    }

    /// The evidence id of a record: BLAKE3 keyed by the author's secret over the schema id and the
    /// record key's UTF-8 NFC bytes. Stable over re-runs, not guessable by others.
    pub fn evidence_id(&self, schema: &Id, record_key: &str) -> Id {
        let mut hasher = blake3::Hasher::new_keyed(&self.evidence_secret);
        hasher.update(schema);
        hasher.update(record_key.nfc().collect::<String>().as_bytes());
        hasher.finalize().into()
    }

    /// Signs an id that is no packet's, for one purpose: ed25519 over BLAKE3 `derive_key(purpose, id)`.
    pub fn sign_id(&self, purpose: &str, id: &Id) -> [u8; 64] {
        self.signing.sign(&blake3::derive_key(purpose, id)).into()
    }

    /// A draft as bytes without number and signature, for [`AuthorKey::sign_numbered`].
    ///
    /// # Errors
    /// As [`AuthorKey::sign`].
    pub(crate) fn build(&self, draft: &Draft) -> Result<Packet, PacketError> {
        draft.build(self.public)
    }

    /// Signs a packet that [`AuthorKey::build`] made, under a sequence number.
    pub(crate) fn sign_numbered(&self, mut packet: Packet, sequence: u32) -> Verified {
        packet.0.author = self.public;
        packet.0.sequence = sequence;
        packet.0.signature = self.signing.sign(&packet.id()).into();
        Verified(packet)
    }

    /// Builds and signs.
    ///
    /// # Errors
    /// The field of the draft that breaks a rule of the format.
    pub fn sign(&self, draft: &Draft) -> Result<Verified, PacketError> {
        let mut packet = draft.build(self.public)?;
        packet.0.signature = self.signing.sign(&packet.id()).into();
        Ok(Verified(packet))
    }
}

/// Whether `signature` is what [`AuthorKey::sign_id`] makes under the public key `by`.
pub fn is_signed(by: &Id, purpose: &str, id: &Id, signature: &[u8; 64]) -> bool {
    let key = VerificationKey::try_from(*by);
    key.is_ok_and(|key| key.verify(&(*signature).into(), &blake3::derive_key(purpose, id)).is_ok())
}

impl Packet {
    /// Checks author key and signature.
    ///
    /// # Errors
    /// `author` for a key that is no curve point or of small order, `signature` for a bad one.
    pub fn verify(self) -> Result<Verified, PacketError> {
        check_author(&self.0.author)?;
        let bad = |_| PacketError::new(Field::Signature, "does not fit the packet and its author");
        let key = VerificationKey::try_from(self.0.author).map_err(bad)?;
        key.verify(&Signature::from(self.0.signature), &self.id()).map_err(bad)?;
        Ok(Verified(self))
    }
}

fn check_author(author: &Id) -> Result<(), PacketError> {
    match CompressedEdwardsY(*author).decompress() {
        None => Err(PacketError::new(Field::Author, "is not a point of the curve")),
        Some(point) if point.is_small_order() => {
            Err(PacketError::new(Field::Author, "is a key of small order, which anyone can sign for"))
        }
        Some(_) => Ok(()),
    }
}

/// Checks many packets, on all threads of the current pool, about twice as fast as one by one;
/// the results are those of [`Packet::verify`], in the same order.
pub fn verify_batch(packets: &[Packet]) -> Vec<Result<Verified, PacketError>> {
    packets.par_chunks(BATCH).flat_map_iter(verify_chunk).collect()
}

fn verify_chunk(packets: &[Packet]) -> Vec<Result<Verified, PacketError>> {
    let mut verifier = batch::Verifier::new();
    // The weights of the batch equation must not be predictable by whoever chose the signatures:
    // they are drawn from a hash over all of them.
    let mut transcript = blake3::Hasher::new_derive_key("qis 1 batch check");
    let mut last_author = None;
    let mut authors_good = true;
    for packet in packets {
        let bytes = &packet.0;
        if last_author != Some(bytes.author) {
            authors_good &= check_author(&bytes.author).is_ok();
            last_author = Some(bytes.author);
        }
        let id = packet.id();
        transcript.update(&id).update(&bytes.signature);
        verifier.queue((VerificationKeyBytes::from(bytes.author), Signature::from(bytes.signature), &id));
    }
    let rng = ChaCha20Rng::from_seed(transcript.finalize().into());
    if authors_good && verifier.verify(rng).is_ok() {
        packets.iter().map(|&packet| Ok(Verified(packet))).collect()
    } else {
        packets.iter().map(|packet| packet.verify()).collect()
    }
}
