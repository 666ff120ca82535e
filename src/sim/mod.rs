//! The swarm on one machine, without sockets: what routing costs as it grows.
//!
//! - [`routing`]: hops and messages of Kademlia, from ten to a million nodes
//!
//! The seed decides everything here: the same seed gives the same numbers on any machine.

pub mod routing;
