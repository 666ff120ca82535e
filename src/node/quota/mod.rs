//! How much a peer, a subnet and an author may ask of a node: token buckets.
//!
//! A bucket holds at most `burst` tokens, gets `per_second` of them each second, and gives some for
//! each request. So within any `t` milliseconds at most `burst + per_second t / 1,000` pass.
//!
//! | bucket | per | protects |
//! |---|---|---|
//! | requests | peer, subnet | the work that any request costs, however small: frames, look-ups, tasks |
//! | packets | peer, subnet | deposits: 25-60 us of signature check and a place on the disk each |
//! | bytes | peer, subnet | reading and sending: pulls, repair, lists |
//! | packets | author | the mailboxes: one key cannot fill them, through however many peers |
//!
//! A subnet is the /24 of an IPv4 address or the /48 of an IPv6 address, what one customer of a
//! provider gets: peer ids cost nothing, so limits on peers alone would limit nobody. Requests over
//! loopback come from this machine, and count as their peer's only.
//!
//! A request takes from all of its buckets or from none, and a refused one is told when to come again.
//! All is a function of (state, now) in integers: tokens are counted in thousandths, of which a
//! millisecond brings exactly `per_second`.
//!
//! Memory is bounded: at most [`QUOTA_BUCKETS_MAX`] peers, subnets and authors have buckets of their
//! own. A newcomer takes the place of one whose buckets are full, which forgets nothing. Where nobody's
//! are, all newcomers share one spare set of buckets: those who were there before are not slowed, and
//! the bound above holds for each newcomer all the same.

mod table;
#[cfg(test)]
mod tests;

use super::NodeKey;
use crate::limits::QUOTA_BUCKETS_MAX;
use crate::packet::Id;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use table::Table;

/// One token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Tokens each second; 0 means unlimited.
    pub per_second: u64,
    /// Tokens that can gather. A request for more than this never passes.
    pub burst: u64,
}

impl Rate {
    pub const UNLIMITED: Rate = Rate { per_second: 0, burst: 0 };

    pub const fn new(per_second: u64, burst: u64) -> Rate {
        Rate { per_second, burst }
    }

    const fn times(self, factor: u64) -> Rate {
        Rate { per_second: self.per_second.saturating_mul(factor), burst: self.burst.saturating_mul(factor) }
    }
}

/// What a peer, or the peers of a subnet together, may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    pub requests: Rate,
    /// Packets deposited.
    pub packets: Rate,
    /// Bytes read and sent for the peer.
    pub bytes: Rate,
}

/// The limits of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    pub peer: Allowance,
    pub subnet: Allowance,
    /// Packets deposited that an author signed.
    pub author: Rate,
}

impl Rates {
    pub const UNLIMITED: Rates = {
        let peer = Allowance { requests: Rate::UNLIMITED, packets: Rate::UNLIMITED, bytes: Rate::UNLIMITED };
        Rates { peer, subnet: peer, author: Rate::UNLIMITED }
    };
}

/// A peer may deposit what one replica can take, 20,000 packets/s, and read 128 MiB/s; a subnet four
/// times that; an author may deposit a year's work at once.
impl Default for Rates {
    fn default() -> Rates {
        let peer = Allowance {
            requests: Rate::new(2_000, 4_000),
            packets: Rate::new(20_000, 40_000),
            bytes: Rate::new(128 << 20, 512 << 20),
        };
        let subnet = Allowance {
            requests: peer.requests.times(4),
            packets: peer.packets.times(4),
            bytes: peer.bytes.times(4),
        };
        Rates { peer, subnet, author: Rate::new(5_000, 200_000) }
    }
}

/// What one request takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub requests: u64,
    /// Packets deposited.
    pub packets: u64,
    /// Bytes read and sent, at most: taken before they are read.
    pub bytes: u64,
}

impl Cost {
    /// A request that deposits nothing and reads little.
    pub const REQUEST: Cost = Cost { requests: 1, packets: 0, bytes: 0 };
}

/// Who reached a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    Peer,
    Subnet,
    Author,
}

impl Limited {
    /// For counters and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Limited::Peer => "peer",
            Limited::Subnet => "subnet",
            Limited::Author => "author",
        }
    }
}

/// A refusal: nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RetryAfter {
    /// After so many milliseconds the same request passes, if nothing else was asked meanwhile;
    /// [`RetryAfter::NEVER`] where it is larger than a burst.
    pub ms: u64,
    /// Whose limit it is; of several, the one that takes longest.
    pub limited: Limited,
}

impl RetryAfter {
    pub const NEVER: u64 = u64::MAX;
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.limited.name();
        match self.ms {
            RetryAfter::NEVER => write!(f, "more than this {name} may ask at once: ask for less"),
            ms => write!(f, "the limit of this {name} is reached: ask again in {ms} ms"),
        }
    }
}

/// The block of addresses that one holder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subnet {
    /// A /24.
    V4([u8; 3]),
    /// A /48.
    V6([u8; 6]),
}

impl Subnet {
    /// `None` for loopback. An IPv4 address in IPv6 clothes is the IPv4 address.
    pub fn of(address: IpAddr) -> Option<Subnet> {
        match address.to_canonical() {
            address if address.is_loopback() => None,
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Some(Subnet::V4([a, b, c]))
            }
            IpAddr::V6(address) => {
                let octets = address.octets();
                Some(Subnet::V6(std::array::from_fn(|i| octets[i])))
            }
        }
    }
}

/// The buckets of one node. Times are milliseconds of any clock; where it runs backwards, no tokens
/// come until it has caught up.
#[derive(Clone, Debug)]
pub struct Quotas {
    peers: Table<NodeKey, 3>,
    subnets: Table<Subnet, 3>,
    authors: Table<Id, 1>,
}

impl Quotas {
    /// All buckets are full.
    pub fn new(rates: Rates) -> Quotas {
        Quotas::bounded(rates, QUOTA_BUCKETS_MAX)
    }

    /// With another bound on peers, subnets and authors.
    fn bounded(rates: Rates, max: usize) -> Quotas {
        let three = |allowance: Allowance| [allowance.requests, allowance.packets, allowance.bytes];
        Quotas {
            peers: Table::new(three(rates.peer), max),
            subnets: Table::new(three(rates.subnet), max),
            authors: Table::new([rates.author], max),
        }
    }

    /// Takes what a request of `peer`, which speaks from `address`, costs.
    ///
    /// # Errors
    /// When to ask again.
    pub fn admit(
        &mut self,
        now_ms: u64,
        peer: NodeKey,
        address: Option<IpAddr>,
        cost: Cost,
    ) -> Result<(), RetryAfter> {
        let cost = [cost.requests, cost.packets, cost.bytes];
        let subnet = address.and_then(Subnet::of);
        let peer_ms = self.peers.wait_ms(now_ms, &peer, cost);
        let subnet_ms = subnet.map_or(0, |subnet| self.subnets.wait_ms(now_ms, &subnet, cost));
        match peer_ms.max(subnet_ms) {
            0 => {
                self.peers.take(now_ms, peer, cost);
                if let Some(subnet) = subnet {
                    self.subnets.take(now_ms, subnet, cost);
                }
                Ok(())
            }
            ms if ms == peer_ms => Err(RetryAfter { ms, limited: Limited::Peer }),
            ms => Err(RetryAfter { ms, limited: Limited::Subnet }),
        }
    }

    /// Takes for `packets` of one author. Only after their signatures were found good: else others
    /// could use up what is the author's.
    ///
    /// # Errors
    /// When to ask again.
    pub fn admit_author(&mut self, now_ms: u64, author: &Id, packets: u64) -> Result<(), RetryAfter> {
        match self.authors.wait_ms(now_ms, author, [packets]) {
            0 => {
                self.authors.take(now_ms, *author, [packets]);
                Ok(())
            }
            ms => Err(RetryAfter { ms, limited: Limited::Author }),
        }
    }
}
