//! Cuts spans into the tiles of one dispatch of `shaders/merge.wgsl`.

use super::tuning::Tuning;
use std::collections::BTreeMap;
use std::ops::Range;

/// Fewest lanes of a segment.
const SEGMENT_LANES_LOG2_MIN: u32 = 3;
/// Packets that one lane goes over for its questions: below, what is added up at the end costs more
/// than the sums; above, the last workgroups keep the device waiting.
const LANE_PACKETS: Range<u64> = 16..4_096;

/// One span as the device sees it: rows of the run, the run's questions, packets and their values
/// within the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub row: u32,
    pub rows: u32,
    pub query: u32,
    pub packet: u32,
    pub packets: u32,
    /// First group of values of the first packet.
    pub values: u32,
    /// Groups of values per packet.
    pub groups: u32,
}

/// Questions against packets, as the shader reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Segment {
    pub row: u32,
    pub query: u32,
    pub rows: u32,
    pub packet: u32,
    pub packets: u32,
    pub values: u32,
    pub padding: [u32; 2],
}

/// The segments of one workgroup, as the shader reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Tile {
    pub segment: u32,
    pub segments: u32,
    /// log2 of the lanes of each segment; 16 bits higher log2 of those with questions of their own.
    pub shape: u32,
    /// The most packets of one of the segments.
    pub packets: u32,
}

/// Segments in the order of the tiles, and at most `tiles_max` tiles.
pub fn tiles(pieces: &[Piece], tuning: &Tuning, tiles_max: u32) -> (Vec<Segment>, Vec<Tile>) {
    let pairs: u64 = pieces.iter().map(|piece| u64::from(piece.rows) * u64::from(piece.packets)).sum();
    let lanes = u64::from(tuning.lanes_wanted) * u64::from(tuning.queries_per_lane);
    let mut lane_packets = (pairs / lanes).clamp(LANE_PACKETS.start, LANE_PACKETS.end);
    loop {
        let (segments, tiles) = cut(pieces, tuning, lane_packets as u32);
        // Every span takes a tile at least, so the caller bounds their number.
        if tiles.len() <= tiles_max as usize || lane_packets > u64::from(u32::MAX / 4) {
            return (segments, tiles);
        }
        lane_packets *= 2;
    }
}

/// Tiles that a piece takes at least: a run's sum of them is at most half of a dispatch.
pub fn tiles_of_rows(rows: usize, tuning: &Tuning) -> usize {
    rows.div_ceil((tuning.lanes * tuning.queries_per_lane) as usize)
}

fn cut(pieces: &[Piece], tuning: &Tuning, lane_packets: u32) -> (Vec<Segment>, Vec<Tile>) {
    // By shape, so that all segments of a tile have the same.
    let mut shapes: BTreeMap<u32, Vec<Segment>> = BTreeMap::new();
    let rows_max = tuning.lanes * tuning.queries_per_lane;
    for piece in pieces.iter().filter(|piece| piece.rows > 0 && piece.packets > 0) {
        for first in (0..piece.rows).step_by(rows_max as usize) {
            let rows = rows_max.min(piece.rows - first);
            let ask_lanes = rows.div_ceil(tuning.queries_per_lane).next_power_of_two();
            let longest = lane_packets.saturating_mul(tuning.lanes / ask_lanes);
            // Parts of equal length: a short last one would wait for nothing.
            let parts = piece.packets.div_ceil(longest);
            let length = piece.packets.div_ceil(parts);
            for start in (0..piece.packets).step_by(length as usize) {
                let packets = length.min(piece.packets - start);
                let shares = packets.div_ceil(lane_packets).next_power_of_two();
                let lanes_log2 = (ask_lanes * shares).min(tuning.lanes).ilog2().max(SEGMENT_LANES_LOG2_MIN);
                shapes.entry(lanes_log2 | ask_lanes.ilog2() << 16).or_default().push(Segment {
                    row: piece.row + first,
                    query: piece.query + first,
                    rows,
                    packet: piece.packet + start,
                    packets,
                    values: piece.values + start * piece.groups,
                    padding: [0; 2],
                });
            }
        }
    }
    let mut segments = Vec::new();
    let mut tiles = Vec::new();
    for (shape, mut class) in shapes {
        // Segments of one tile wait for the longest of them; the longest tiles begin first.
        class.sort_by_key(|segment| std::cmp::Reverse(segment.packets));
        for group in class.chunks((tuning.lanes >> (shape & 0xffff)) as usize) {
            tiles.push(Tile {
                segment: segments.len() as u32,
                segments: group.len() as u32,
                shape,
                packets: group[0].packets,
            });
            segments.extend_from_slice(group);
        }
    }
    (segments, tiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every (row, packet) pair exactly once, whatever the sizes and the tuning.
    #[test]
    fn tiles_cover_each_pair_once() {
        for tuning in Tuning::CANDIDATES {
            for (rows, packets) in
                [(1, 1), (1, 9), (3, 255), (8, 256), (9, 257), (64, 65), (129, 1_000), (300, 40), (1, 70_000)]
            {
                let piece = |row, rows, packet, packets| Piece {
                    row,
                    rows,
                    query: row,
                    packet,
                    packets,
                    values: 2 * packet,
                    groups: 2,
                };
                let pieces = [
                    piece(0, rows, 10, packets),
                    piece(rows, 2, 0, 3),
                    piece(rows + 2, 0, 0, 3),
                    piece(rows + 2, 3, 0, 0),
                ];
                let (segments, tiles) = tiles(&pieces, &tuning, 65_535);
                let mut seen = std::collections::HashSet::new();
                for tile in &tiles {
                    let (lanes_log2, asks_log2) = (tile.shape & 0xffff, tile.shape >> 16);
                    assert!(tile.segments <= tuning.lanes >> lanes_log2 && asks_log2 <= lanes_log2);
                    assert!(tuning.rows >> (tuning.lanes.ilog2() - lanes_log2) > 0, "room for a packet");
                    for segment in &segments[tile.segment as usize..][..tile.segments as usize] {
                        assert!(segment.packets <= tile.packets);
                        assert!(segment.rows <= tuning.queries_per_lane << asks_log2);
                        assert_eq!((segment.query, segment.values), (segment.row, 2 * segment.packet));
                        for row in segment.row..segment.row + segment.rows {
                            for packet in segment.packet..segment.packet + segment.packets {
                                assert!(seen.insert((row, packet)), "{row} {packet} twice");
                            }
                        }
                    }
                }
                assert_eq!(seen.len() as u32, rows * packets + 6);
            }
        }
    }

    #[test]
    fn a_dispatch_holds_no_more_tiles_than_it_may() {
        let piece = Piece { row: 0, rows: 128, query: 0, packet: 0, packets: 1 << 20, values: 0, groups: 1 };
        let tuning = Tuning { lanes_wanted: 1 << 24, ..Tuning::default() };
        assert!(tiles(&[piece], &tuning, 1 << 30).1.len() > 1_000);
        assert!(tiles(&[piece], &tuning, 1_000).1.len() <= 1_000);
    }

    #[test]
    fn small_spans_share_a_workgroup() {
        let pieces: Vec<Piece> = (0..80)
            .map(|row| Piece { row, rows: 1, query: 0, packet: 9 * row, packets: 9, values: 0, groups: 1 })
            .collect();
        let (segments, tiles) = tiles(&pieces, &Tuning::default(), 65_535);
        assert_eq!((segments.len(), tiles.len()), (80, 10));
    }
}
