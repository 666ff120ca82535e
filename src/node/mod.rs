//! What a node decides, without doing it: no socket, no clock, no await, no unseeded chance.
//!
//! Each machine takes (input, now) and gives actions; `net` performs them and feeds the results
//! back. So thousands of nodes run in a seeded simulation of the same code.
//!
//! - [`placement`]: which members hold a mailbox, and how many disks acknowledge a packet
//! - [`members`]: who belongs to the swarm, who is silent, whom to greet when
//! - [`table`]: whom a list keeps that has no room for everybody
//! - [`deposit`]: one batch on its way to its replicas, with retries and hand-off
//! - [`gather`]: one pull: one replica is read, digests of the others, the difference
//! - [`reconcile`]: one mailbox on two replicas, compared by ranges
//! - [`seen`]: what a reader has heard of a mailbox
//! - [`repair`]: whom to compare mailboxes with, and when
//! - [`handover`]: which mailboxes that belong to others now may go
//! - [`refused`]: what repair does not fetch again, for a while
//! - [`lists`]: which nodes and authors the swarm key admits
//! - [`quota`]: how much a peer, a subnet and an author may ask of us
//! - [`participation`]: who deposits, who asks
//!
//! Times are milliseconds of any clock that never runs backwards.

pub mod deposit;
pub mod gather;
pub mod handover;
pub mod lists;
pub mod members;
pub mod participation;
pub mod placement;
pub mod quota;
pub mod reconcile;
pub mod refused;
pub mod repair;
pub mod seen;
pub mod table;

pub use deposit::Deposit;
pub use gather::Gather;
pub use handover::Handover;
pub use members::{Contact, Members};
pub use placement::{NodeKey, acknowledgements_needed, closest};
pub use reconcile::{Held, Reconcile};
pub use refused::Refused;
pub use repair::Repair;
pub use seen::Seen;

/// How long to wait before attempt `failures` + 1: doubles from `first_ms`, at most `last_ms`.
pub(crate) fn backoff_ms(failures: u32, first_ms: u64, last_ms: u64) -> u64 {
    first_ms.saturating_mul(1 << failures.saturating_sub(1).min(32)).min(last_ms)
}
