//! Storage nodes that take deposits honestly and answer readers and repair with lies: pages that lack
//! packets, bring back retracted ones or never end, cursors of others, wrong digests, ranges and ids that
//! do not exist, bytes that are no packets.

use super::network::{Request, Response};
use super::world::World;
use crate::packet::Kind;
use crate::store::{Digest, Range};
use rand::RngExt;

/// What the liar says in place of the truth; half of the time it is the truth.
pub(super) fn told(world: &mut World, node: usize, request: &Request, truth: Response) -> Response {
    let lie = world.random.random_range(0..16);
    if lie >= 8 {
        return truth;
    }
    world.counts.lies += 1;
    match (request, truth) {
        (Request::Pull { address, .. }, Response::Page { mut cursor, mut more, mut packets, mut forged }) => {
            match lie {
                0 => more = true,
                1 => cursor.replica = world.nodes[(node + 1) % world.nodes.len()].key.0,
                2 => cursor.sequence += 1_000,
                3 => forged = true,
                // What was retracted comes back, and the retractions stay away.
                4 => {
                    packets.retain(|packet| packet.kind() != Kind::Retraction);
                    packets.extend(world.truth.retracted_at(address));
                }
                _ => packets.retain(|_| world.random.random_range(0..2) == 0),
            }
            Response::Page { cursor, more, packets, forged }
        }
        (_, Response::Stat { mut digest, mut cursor }) => {
            match lie {
                0..=2 => digest = Digest::default(),
                3 => cursor.replica = [7; 32],
                4 => cursor.sequence += 1_000,
                _ => digest.sum[0] ^= 1,
            }
            Response::Stat { digest, cursor }
        }
        (_, Response::Ranges(mut ranges)) => {
            match lie {
                0 => drop(ranges.pop()),
                1 => ranges.fill(Range::Ids(vec![[0xEE; 32], [0xEE; 32]])),
                2 => ranges.fill(Range::Parts(Box::new([Digest { count: 1, sum: [1; 4] }; 256]))),
                3 => ranges.fill(Range::Ids(vec![[0xEE; 32]])),
                _ => ranges.fill(Range::Ids(vec![])),
            }
            Response::Ranges(ranges)
        }
        (_, Response::Packets { mut packets, .. }) => {
            packets.retain(|_| world.random.random_range(0..2) == 0);
            Response::Packets { packets, forged: lie < 2 }
        }
        (_, Response::Digests { mut digests, mut next }) => {
            match lie {
                0 => digests.reverse(),
                1 => next = Some([0; 32]),
                2 => digests.iter_mut().for_each(|(_, digest)| digest.count += 1),
                _ => digests.retain(|_| world.random.random_range(0..2) == 0),
            }
            Response::Digests { digests, next }
        }
        (_, truth) => truth,
    }
}
