//! Cuts spans into the tiles of one dispatch of `shaders/merge.wgsl`.

use std::ops::Range;

/// Lanes of a workgroup, and most packets of a segment.
pub const LANES: u32 = 256;
/// Most questions of a segment.
pub const QUERIES_PER_SEGMENT: u32 = 8;
/// Fewest lanes of a segment: 32 small spans share a workgroup.
const LANES_LOG2_MIN: u32 = 3;
const LANES_LOG2_MAX: u32 = LANES.ilog2();
const _: () = assert!(LANES.is_power_of_two());

/// Questions against packets; rows count from the run's first row, packets from the window's start.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Segment {
    pub row: u32,
    pub rows: u32,
    pub packet: u32,
    pub packets: u32,
}

/// The segments of one workgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Tile {
    pub segment: u32,
    pub segments: u32,
    pub lanes_log2: u32,
    pub padding: u32,
}

/// The work of one run while it is gathered.
pub struct Tiles {
    /// Segments by the lanes that they need, `1 << index` each.
    classes: [Vec<Segment>; LANES_LOG2_MAX as usize + 1],
    rows: usize,
    pairs: u64,
    tiles_max: u32,
    rows_max: usize,
    pairs_max: u64,
}

impl Tiles {
    /// An empty run of at most so many tiles (at least one row's worth is always taken), rows and
    /// pairs.
    pub fn new(tiles_max: u32, rows_max: usize, pairs_max: u64) -> Tiles {
        Tiles { classes: Default::default(), rows: 0, pairs: 0, tiles_max, rows_max, pairs_max }
    }

    /// Whether [`Tiles::add`] would take nothing.
    pub fn is_full(&self) -> bool {
        self.rows > 0
            && (self.rows == self.rows_max || self.pairs >= self.pairs_max || self.tiles_left() == 0)
    }

    /// Query-packet pairs gathered so far.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// Adds `rows` questions, each against these packets, as far as there is room, and returns how
    /// many it took: at least one unless full.
    pub fn add(&mut self, rows: usize, packets: Range<usize>) -> usize {
        if self.is_full() {
            return 0;
        }
        let each = packets.len() as u64;
        let pairs = (self.pairs_max.saturating_sub(self.pairs) / each.max(1)) as usize;
        // Each group of rows takes at most this many tiles.
        let tiles = (each as usize).div_ceil(LANES as usize).max(1);
        let groups = self.tiles_left() as usize / tiles;
        let room = pairs.min(groups * QUERIES_PER_SEGMENT as usize).min(self.rows_max - self.rows);
        let first = self.rows == 0;
        let taken = rows.min(if first { room.max(1) } else { room });
        if taken == 0 {
            // Whatever is left would not hold one row: the next run takes it.
            self.tiles_max = 0;
            return 0;
        }
        for row in (0..taken).step_by(QUERIES_PER_SEGMENT as usize) {
            let count = (taken - row).min(QUERIES_PER_SEGMENT as usize);
            for packet in packets.clone().step_by(LANES as usize) {
                let packets = (packets.end - packet).min(LANES as usize) as u32;
                let class = packets.next_power_of_two().ilog2().max(LANES_LOG2_MIN);
                self.classes[class as usize].push(Segment {
                    row: (self.rows + row) as u32,
                    rows: count as u32,
                    packet: packet as u32,
                    packets,
                });
            }
        }
        self.rows += taken;
        self.pairs += taken as u64 * each;
        taken
    }

    /// Segments in the order of the tiles, and the tiles.
    pub fn finish(self) -> (Vec<Segment>, Vec<Tile>) {
        let mut segments = Vec::new();
        let mut tiles = Vec::new();
        for (lanes_log2, class) in self.classes.iter().enumerate().rev() {
            for group in class.chunks((LANES >> lanes_log2) as usize) {
                tiles.push(Tile {
                    segment: segments.len() as u32,
                    segments: group.len() as u32,
                    lanes_log2: lanes_log2 as u32,
                    padding: 0,
                });
                segments.extend_from_slice(group);
            }
        }
        (segments, tiles)
    }

    fn tiles_left(&self) -> u32 {
        let used: usize = self
            .classes
            .iter()
            .enumerate()
            .map(|(log2, class)| class.len().div_ceil((LANES >> log2) as usize))
            .sum();
        self.tiles_max.saturating_sub(used as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every (row, packet) pair exactly once, whatever the sizes.
    #[test]
    fn tiles_cover_each_pair_once() {
        for (rows, packets) in [(1, 1), (1, 8), (1, 9), (3, 255), (8, 256), (9, 257), (17, 1000), (2, 5)] {
            let mut tiles = Tiles::new(65_535, 1 << 20, 1 << 40);
            assert_eq!(tiles.add(rows, 10..10 + packets), rows);
            assert_eq!(tiles.add(2, 0..3), 2);
            assert_eq!(tiles.pairs(), (rows * packets + 6) as u64);
            let (segments, tiles) = tiles.finish();
            let mut seen = std::collections::HashSet::new();
            for tile in &tiles {
                assert!(tile.segments <= LANES >> tile.lanes_log2);
                for segment in &segments[tile.segment as usize..][..tile.segments as usize] {
                    assert!(segment.packets <= 1 << tile.lanes_log2 && segment.rows <= QUERIES_PER_SEGMENT);
                    for row in segment.row..segment.row + segment.rows {
                        for packet in segment.packet..segment.packet + segment.packets {
                            assert!(seen.insert((row, packet)), "{row} {packet} twice");
                        }
                    }
                }
            }
            assert_eq!(seen.len(), rows * packets + 6);
        }
    }

    #[test]
    fn a_full_run_leaves_the_rest() {
        let mut tiles = Tiles::new(65_535, 1 << 20, 1_000);
        assert_eq!(tiles.add(100, 0..300), 3);
        assert_eq!(tiles.add(97, 0..300), 0);
        assert!(tiles.is_full());
        // One row is taken even where it alone is too long.
        let mut tiles = Tiles::new(1, 1, 10);
        assert_eq!(tiles.add(5, 0..1_000), 1);
        assert!(tiles.is_full());
        let mut tiles = Tiles::new(2, 100, 1 << 40);
        assert_eq!(tiles.add(50, 0..256), 16);
        assert!(tiles.is_full());
    }
}
