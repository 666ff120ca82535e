//! Which packets lie beyond a kernel's reach: proven for sixteen at a time, without reading them.
//!
//! A question q, a ball of centre c and radius r around some packets, and a distance from which every
//! kernel weight is 0. By the triangle inequality |q - p| >= |q - c| - |c - p| >= |q - c| - r for each
//! packet p of the ball. So with D = |q - c|^2, R = r^2 and X = reach^2, all integers, no packet counts
//! if sqrt(D) >= sqrt(X) + sqrt(R). Squared: D - X - R >= 2 sqrt(X R), which holds exactly if the left
//! side g is not negative and g^2 >= 4 X R. No number here passes 2^48, and nothing is rounded.

use super::cpu::distance;
use super::groups::{GROUP, Groups};
use crate::domain::Kernel;
use crate::limits::SLOTS;

/// No squared distance is as large.
const DISTANCE_END: u64 = 1 << 23;

/// A ball around the packets of each group, 8.5 bytes a packet.
#[derive(Clone, Debug, Default)]
pub struct Balls {
    centres: Groups,
    /// Squared, below 2^23.
    radii: Vec<u32>,
}

impl Balls {
    /// Balls of what stands behind the first `before` packets, the group that these end in included.
    pub fn append(&mut self, packets: &[[i8; SLOTS]], before: usize) {
        let first = before / GROUP;
        self.radii.truncate(first);
        for (index, group) in packets.chunks(GROUP).enumerate().skip(first) {
            let centre = centre(group);
            // Any centre would do for the proof; the mean is a good one.
            let radius = group.iter().map(|packet| distance(&centre, packet)).max();
            self.radii.push(radius.unwrap_or(0));
            if index < self.centres.len() {
                self.centres.set(index, &centre);
            } else {
                self.centres.append(&[centre]);
            }
        }
    }

    /// One centre per group of packets.
    pub fn centres(&self) -> &Groups {
        &self.centres
    }
    /// The squared radius around each centre.
    pub fn radii(&self) -> &[u32] {
        &self.radii
    }
}

/// The mean of each slot, toward zero.
fn centre(packets: &[[i8; SLOTS]]) -> [i8; SLOTS] {
    let mut sums = [0i32; SLOTS];
    for packet in packets {
        sums.iter_mut().zip(packet).for_each(|(sum, &slot)| *sum += i32::from(slot));
    }
    sums.map(|sum| (sum / packets.len().max(1) as i32) as i8)
}

/// How far a kernel sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The squared distance from which every weight is 0.
    distance: u64,
}

impl Reach {
    /// `None` where packets at any distance may count.
    pub fn of(kernel: &Kernel) -> Option<Reach> {
        let distance = (support(&kernel.table) as u64) << kernel.shift;
        // Whatever lies behind the table has the weight of its last entry.
        let ends = kernel.table.last() == Some(&0);
        (ends && distance < DISTANCE_END).then_some(Reach { distance })
    }

    /// Whether all packets of a ball of squared radius `radius` lie beyond the reach of a question at
    /// the squared distance `to_centre`.
    #[inline]
    pub fn excludes(self, to_centre: u32, radius: u32) -> bool {
        let gap = i64::from(to_centre) - self.distance as i64 - i64::from(radius);
        gap >= 0 && gap.pow(2) as u64 >= 4 * self.distance * u64::from(radius)
    }
}

/// Entries of a table up to the last that is not 0.
pub fn support(table: &[u16]) -> usize {
    table.iter().rposition(|&weight| weight != 0).map_or(0, |last| last + 1)
}
