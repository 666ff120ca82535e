//! Sizes of the merge's work on a device. The bits do not depend on them.

use serde::{Deserialize, Serialize};

/// Work per lane and sizes of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuning {
    /// Lanes of a workgroup: 64, 128, or 256 with 64 rows.
    pub lanes: u32,
    /// Packets in workgroup memory at a time, 32 or 64: more would not fit the 16 KiB that any adapter
    /// has.
    pub rows: u32,
    /// Questions that one lane holds in registers, 1 or 2.
    pub queries_per_lane: u32,
    /// Lanes that should be at work at once; fewer leave the device idle, more make each lane's share
    /// too short to pay for what is added up at its end.
    pub lanes_wanted: u32,
}

impl Default for Tuning {
    /// Estimated for a large device, not measured on one.
    fn default() -> Tuning {
        Tuning { lanes: 64, rows: 64, queries_per_lane: 2, lanes_wanted: 1 << 16 }
    }
}

impl Tuning {
    /// What a first run on an adapter compares.
    pub const CANDIDATES: [Tuning; 4] = [
        Tuning { lanes: 64, rows: 64, queries_per_lane: 2, lanes_wanted: 1 << 16 },
        Tuning { lanes: 64, rows: 64, queries_per_lane: 1, lanes_wanted: 1 << 16 },
        Tuning { lanes: 128, rows: 64, queries_per_lane: 2, lanes_wanted: 1 << 17 },
        Tuning { lanes: 128, rows: 64, queries_per_lane: 1, lanes_wanted: 1 << 17 },
    ];

    /// Whether the shader is made for these sizes: a tuning may come from a file.
    pub fn is_sound(&self) -> bool {
        matches!(self.lanes, 64 | 128 | 256)
            && matches!(self.rows, 32 | 64)
            && matches!(self.queries_per_lane, 1 | 2)
            // What is added up at the end takes the packets' place in workgroup memory.
            && 9 * self.rows >= 2 * self.lanes
            && (1 << 8..=1 << 24).contains(&self.lanes_wanted)
    }
}
