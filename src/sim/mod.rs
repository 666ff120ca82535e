//! The swarm on one machine, without sockets: what it decides, under faults, and what routing costs.
//!
//! - [`swarm`]: the deciding part of many nodes in virtual time, with invariants looked at after every step
//! - [`routing`]: hops and messages of Kademlia, from ten to a million nodes
//! - [`learning`]: nodes that act and learn in a world with a known truth, beside rivals
//!
//! The seed decides everything here: the same seed gives the same numbers on any machine.

pub mod learning;
pub mod routing;
pub mod swarm;
