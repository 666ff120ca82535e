//! Which packets count: those that are observed, not superseded, not retracted, not expired.

use crate::packet::{Id, Kind, Verified};
use std::collections::{HashMap, HashSet};

/// A live observed packet with its id.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    pub id: Id,
    pub packet: Verified,
}

/// The live observed packets among those of all mailboxes that a question reads, each once, in
/// ascending order of id. The input's order and repetitions do not matter.
///
/// Supersede is decided first (one author, one evidence id: the highest sequence number wins, ties
/// by larger id), so retracting a newer version revives no older one. A retraction counts only with
/// the retracted packet's author. Expired means `expires_at != 0` and `expires_at <= ask_ms`.
pub fn live<'a>(packets: impl IntoIterator<Item = &'a Verified>, ask_ms: u64) -> Vec<Live> {
    let mut retracted: HashSet<(Id, Id)> = HashSet::new();
    let mut newest: HashMap<(Id, Id), Live> = HashMap::new();
    for packet in packets {
        match packet.kind() {
            Kind::Retraction => {
                retracted.insert((*packet.author(), *packet.reference()));
            }
            Kind::Synthesis => {}
            Kind::Observed => {
                let live = Live { id: packet.id(), packet: *packet };
                let version = |live: &Live| (live.packet.sequence(), live.id);
                newest
                    .entry((*packet.author(), *packet.reference()))
                    .and_modify(|kept| {
                        if version(&live) > version(kept) {
                            *kept = live;
                        }
                    })
                    .or_insert(live);
            }
        }
    }
    let mut live: Vec<Live> = newest
        .into_values()
        .filter(|live| !retracted.contains(&(*live.packet.author(), live.id)))
        .filter(|live| live.packet.expires_at() == 0 || live.packet.expires_at() > ask_ms)
        .collect();
    live.sort_unstable_by_key(|live| live.id);
    live
}

/// Lineage root: BLAKE3 of the ids of all live observed packets of the mailboxes read, every action
/// and mask, weight zero too (or an omission could not be seen), each once, ascending as byte strings.
pub fn lineage_root(ids: impl IntoIterator<Item = Id>) -> Id {
    let mut ids: Vec<Id> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    let mut hasher = blake3::Hasher::new();
    ids.iter().for_each(|id| {
        hasher.update(id);
    });
    hasher.finalize().into()
}
