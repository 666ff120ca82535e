//! The rules as definitions over everything that was ever deposited, with no regard to cost.

use crate::address::Address;
use crate::packet::{Id, Kind, Verified};
use crate::store::{Caps, Deposited, Digest, Stat, expired};

#[derive(Default)]
pub struct Model {
    caps: Caps,
    /// Every deposit that had not expired on arrival.
    heard: Vec<(Address, Verified)>,
    /// Every packet that was stored, with the number of packets stored in its mailbox up to it.
    stored: Vec<(Address, Verified, u64)>,
    /// What a sweep has removed.
    swept: Vec<(Address, Id)>,
}

impl Model {
    pub fn new(caps: Caps) -> Model {
        Model { caps, ..Model::default() }
    }

    fn at<'a>(&'a self, address: &'a Address) -> impl Iterator<Item = &'a Verified> {
        self.heard.iter().filter(move |(a, _)| a == address).map(|(_, packet)| packet)
    }

    /// Whether something heard makes a packet obsolete.
    fn displaced(&self, address: &Address, packet: &Verified) -> bool {
        let superseded = self.at(address).any(|other| {
            packet.kind() == Kind::Observed
                && other.kind() == Kind::Observed
                && (other.author(), other.reference()) == (packet.author(), packet.reference())
                && (other.sequence(), other.id()) > (packet.sequence(), packet.id())
        });
        let retracted = self.at(address).any(|other| {
            packet.kind() != Kind::Retraction
                && other.kind() == Kind::Retraction
                && other.author() == packet.author()
                && *other.reference() == packet.id()
        });
        superseded || retracted || self.swept.contains(&(*address, packet.id()))
    }

    pub fn deposit(&mut self, now: u64, address: Address, packet: Verified) -> Deposited {
        if expired(&packet, now) {
            return Deposited::Obsolete;
        }
        let before = self.held(&address);
        self.heard.push((address, packet));
        if self.displaced(&address, &packet) {
            return Deposited::Obsolete;
        }
        if self.stored.iter().any(|(a, p, _)| *a == address && *p == packet) {
            return Deposited::Duplicate;
        }
        let takes_a_place = self.held(&address).len() < before.len();
        if !takes_a_place && self.is_full(&before, &packet) {
            self.heard.pop();
            return Deposited::OverQuota;
        }
        let sequence = 1 + self.stored.iter().filter(|(a, ..)| *a == address).count() as u64;
        self.stored.push((address, packet, sequence));
        Deposited::Stored
    }

    fn is_full(&self, held: &[(u64, Verified)], packet: &Verified) -> bool {
        let of_author = held.iter().filter(|(_, other)| other.author() == packet.author()).count() as u64;
        let Caps { mailbox_packets, author_packets } = self.caps;
        (mailbox_packets > 0 && held.len() as u64 >= mailbox_packets)
            || (author_packets > 0 && of_author >= author_packets)
    }

    /// (sequence, packet) of all that is there, expired or not.
    pub fn held(&self, address: &Address) -> Vec<(u64, Verified)> {
        let here = self.stored.iter().filter(|(a, packet, _)| a == address && !self.displaced(a, packet));
        here.map(|(_, packet, sequence)| (*sequence, *packet)).collect()
    }

    pub fn live(&self, now: u64, address: &Address) -> Vec<(u64, Verified)> {
        let mut held = self.held(address);
        held.retain(|(_, packet)| !expired(packet, now));
        held
    }

    /// Ids of the live packets, ascending.
    pub fn ids(&self, now: u64, address: &Address) -> Vec<Id> {
        let mut ids: Vec<Id> = self.live(now, address).iter().map(|(_, packet)| packet.id()).collect();
        ids.sort_unstable();
        ids
    }

    pub fn digests(&self, now: u64) -> Vec<(Address, Digest)> {
        let all = self.addresses().into_iter().map(|(a, _)| (a, self.ids(now, &a).iter().collect()));
        all.filter(|(_, digest): &(_, Digest)| digest.count > 0).collect()
    }

    pub fn stat(&self, address: &Address) -> Stat {
        let mut stat = Stat::default();
        self.held(address).iter().for_each(|(_, packet)| stat.add(packet.kind()));
        stat
    }

    pub fn addresses(&self) -> Vec<(Address, Stat)> {
        let mut addresses: Vec<_> = self.stored.iter().map(|(a, ..)| *a).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.into_iter().map(|a| (a, self.stat(&a))).collect()
    }

    pub fn sweep(&mut self, now: u64) -> u64 {
        let mut gone = Vec::new();
        for (address, _) in self.addresses() {
            let held = self.held(&address).into_iter();
            gone.extend(held.filter(|(_, p)| expired(p, now)).map(|(_, p)| (address, p.id())));
        }
        self.swept.extend(&gone);
        gone.len() as u64
    }
}
