//! What two replicas compare: a mailbox as one number, and its ids part by part where the numbers
//! differ.

use crate::limits::RANGE_IDS_MAX;
use crate::packet::Id;

/// Number of packets and sum of their ids as four u64 lanes (little-endian, wrapping).
///
/// Ids come and go in any order, and two sets with one digest are the same set but for a chance of
/// about 2^-256: ids are hashes. Whoever can choose ids freely (they would have to be signed first) may
/// find two sets with one digest, and hides nothing but packets of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    pub count: u64,
    pub sum: [u64; 4],
}

impl Digest {
    pub fn add(&mut self, id: &Id) {
        self.count = self.count.wrapping_add(1);
        self.sum.iter_mut().zip(lanes(id)).for_each(|(sum, lane)| *sum = sum.wrapping_add(lane));
    }

    pub fn remove(&mut self, id: &Id) {
        self.count = self.count.wrapping_sub(1);
        self.sum.iter_mut().zip(lanes(id)).for_each(|(sum, lane)| *sum = sum.wrapping_sub(lane));
    }

    /// What is left when a part is taken off.
    #[must_use]
    pub fn without(&self, part: &Digest) -> Digest {
        let sum = std::array::from_fn(|lane| self.sum[lane].wrapping_sub(part.sum[lane]));
        Digest { count: self.count.wrapping_sub(part.count), sum }
    }
}

impl<'a> FromIterator<&'a Id> for Digest {
    fn from_iter<T: IntoIterator<Item = &'a Id>>(ids: T) -> Digest {
        let mut digest = Digest::default();
        ids.into_iter().for_each(|id| digest.add(id));
        digest
    }
}

fn lanes(id: &Id) -> [u64; 4] {
    std::array::from_fn(|lane| u64::from_le_bytes(std::array::from_fn(|byte| id[8 * lane + byte])))
}

/// The ids of one mailbox that begin with a prefix: themselves, or digests of their 256 parts by the
/// next byte where there are more than [`RANGE_IDS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Range {
    /// Ascending as byte strings.
    Ids(Vec<Id>),
    Parts(Box<[Digest; 256]>),
}

impl Range {
    /// The digests by the byte after a prefix of `prefix` bytes, at most 31.
    pub fn into_parts(self, prefix: usize) -> Box<[Digest; 256]> {
        match self {
            Range::Parts(parts) => parts,
            Range::Ids(ids) => {
                let mut parts = Box::new([Digest::default(); 256]);
                ids.iter().for_each(|id| parts[usize::from(id[prefix])].add(id));
                parts
            }
        }
    }

    /// `ids` all begin with `prefix` and ascend. Below 31 bytes of prefix there are at most 256 ids, so
    /// there is always a next byte to part them by.
    pub(crate) fn of<E>(prefix: &[u8], ids: impl Iterator<Item = Result<Id, E>>) -> Result<Range, E> {
        let mut first = Vec::new();
        let mut parts = Box::new([Digest::default(); 256]);
        for id in ids {
            let id = id?;
            if let Some(&next) = id.get(prefix.len()) {
                parts[usize::from(next)].add(&id);
            }
            if first.len() <= RANGE_IDS_MAX {
                first.push(id);
            }
        }
        Ok(if first.len() <= RANGE_IDS_MAX { Range::Ids(first) } else { Range::Parts(parts) })
    }
}
