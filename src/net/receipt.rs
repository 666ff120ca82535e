//! Signed receipts: what a replica said it did with a deposit, so that it cannot deny it later.
//!
//! A replica signs with its node key, the one that its peer id names, over BLAKE3 `derive_key("qis 1
//! receipt", ..)` of:
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | length of the binary peer id, and itself |
//! | 8 | Unix milliseconds of the replica's clock |
//! | 4 | number of packets |
//! | 65 each | address 32, packet id 32, result u8: 0 stored, 1 duplicate, 2 rejected |

use super::{Identity, PeerId};
use crate::address::Address;
use crate::node::deposit::Answer;
use crate::packet::Id;
use libp2p::identity::PublicKey;

/// What a replica acknowledged, with its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReceipt {
    pub replica: PeerId,
    /// Unix milliseconds of the replica's clock.
    pub at_ms: u64,
    pub packets: Vec<(Address, Id, ReceiptResult)>,
    pub signature: [u8; 64],
}

/// What became of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum ReceiptResult {
    Stored = 0,
    Duplicate = 1,
    Rejected = 2,
}

impl From<&Answer> for ReceiptResult {
    fn from(answer: &Answer) -> ReceiptResult {
        match answer {
            Answer::Stored => ReceiptResult::Stored,
            Answer::Duplicate => ReceiptResult::Duplicate,
            Answer::Rejected(_) => ReceiptResult::Rejected,
        }
    }
}

impl SignedReceipt {
    /// Whether the replica has signed this.
    pub fn verify(&self) -> bool {
        let message = message(&self.replica, self.at_ms, &self.packets);
        public_key(&self.replica).is_some_and(|key| key.verify(&message, &self.signature))
    }
}

/// An ed25519 peer id holds its key: an identity multihash of the key's protobuf.
fn public_key(peer: &PeerId) -> Option<PublicKey> {
    let bytes = peer.to_bytes();
    PublicKey::try_decode_protobuf(bytes.get(2..)?).ok().filter(|key| key.to_peer_id() == *peer)
}

fn message(replica: &PeerId, at_ms: u64, packets: &[(Address, Id, ReceiptResult)]) -> Id {
    let replica = replica.to_bytes();
    let mut hasher = blake3::Hasher::new_derive_key("qis 1 receipt");
    // A peer id has at most 64 bytes.
    hasher.update(&[replica.len() as u8]).update(&replica).update(&at_ms.to_le_bytes());
    hasher.update(&(packets.len() as u32).to_le_bytes());
    for (address, id, result) in packets {
        hasher.update(address).update(id).update(&[*result as u8]);
    }
    hasher.finalize().into()
}

impl Identity {
    /// Signs what this node has done with a deposit. `None` only if the key cannot sign.
    pub(super) fn receipt(&self, at_ms: u64, packets: &[(Address, Id, ReceiptResult)]) -> Option<[u8; 64]> {
        self.0.sign(&message(&self.peer_id(), at_ms, packets)).ok()?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_holds_for_what_was_signed_alone() {
        let identity = Identity::from_seed([1; 32]);
        let packets =
            vec![([1; 32], [2; 32], ReceiptResult::Stored), ([1; 32], [3; 32], ReceiptResult::Rejected)];
        let signature = identity.receipt(5, &packets).unwrap();
        let good = SignedReceipt { replica: identity.peer_id(), at_ms: 5, packets, signature };
        assert!(good.verify());
        let mut wrong: [SignedReceipt; 5] = std::array::from_fn(|_| good.clone());
        wrong[0].at_ms += 1;
        wrong[1].packets[1].2 = ReceiptResult::Stored;
        wrong[2].packets.pop();
        wrong[3].signature[0] ^= 1;
        wrong[4].replica = Identity::from_seed([2; 32]).peer_id();
        assert!(wrong.iter().all(|receipt| !receipt.verify()));
    }
}
