//! One number for a whole result.

use crate::address::Address;
use crate::limits::PACKET_SIGNED_BYTES;
use crate::packet::Id;
pub use crate::proof::content;

/// BLAKE3 over the ascending pairs of (address, [`content`]) of a result.
pub struct Digest {
    hasher: blake3::Hasher,
    last: Option<(Address, [u8; PACKET_SIGNED_BYTES])>,
}

impl Default for Digest {
    fn default() -> Digest {
        Digest { hasher: blake3::Hasher::new(), last: None }
    }
}

impl Digest {
    /// # Panics
    /// If the pair does not ascend: the order is the caller's, and a wrong one a defect.
    pub fn add(&mut self, address: &Address, content: [u8; PACKET_SIGNED_BYTES]) {
        let pair = (*address, content);
        assert!(self.last.is_none_or(|last| last <= pair), "pairs of a digest ascend");
        self.hasher.update(address).update(&pair.1);
        self.last = Some(pair);
    }

    pub fn finish(&self) -> Id {
        self.hasher.finalize().into()
    }
}
