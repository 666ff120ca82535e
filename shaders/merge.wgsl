// Columns -> tallies. Equal, bit for bit, to `cpu::merge` in src/merge/cpu.rs, which is the law. The
// constants LANES, QUERIES_PER_SEGMENT, SLOT_VECTORS, KERNEL_ENTRIES, KERNEL_VECTORS and ROW_HEAD
// come from src/merge/gpu.rs.
//
// A segment is up to QUERIES_PER_SEGMENT questions against up to LANES packets of one span. A
// workgroup takes one tile: LANES >> lanes_log2 segments of 1 << lanes_log2 lanes each, so that
// small spans share a workgroup and one dispatch serves spans of any sizes.
//
// First each lane weighs one packet for every question of its segment. Then the lanes turn to the
// sums: one lane per (question, cell), or several, each with its share of the packets, where there
// are lanes to spare.

struct Parameters {
    /// Cells of a row: ROW_HEAD + columns.
    stride: u32,
    columns: u32,
    kernel_shift: u32,
    padding: u32,
    /// Two entries of 16 bits a word.
    kernel_table: array<vec4<u32>, KERNEL_VECTORS>,
}

struct Query {
    slots: array<vec4<u32>, SLOT_VECTORS>,
    /// Sum of the squared slots.
    norm: u32,
    padding_0: u32,
    padding_1: u32,
    padding_2: u32,
}

struct Segment {
    /// First row: of the questions and of the tallies.
    row: u32,
    rows: u32,
    packet: u32,
    /// 1..=(1 << lanes_log2) of its tile.
    packets: u32,
}

struct Tile {
    segment: u32,
    segments: u32,
    lanes_log2: u32,
    padding: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> embeddings: array<vec4<u32>>;
/// Gain in the low, cases in the high 16 bits.
@group(0) @binding(2) var<storage, read> factors: array<u32>;
/// u16, packets x columns, without padding.
@group(0) @binding(3) var<storage, read> values: array<u32>;
@group(0) @binding(4) var<storage, read> queries: array<Query>;
@group(0) @binding(5) var<storage, read> segments: array<Segment>;
@group(0) @binding(6) var<storage, read> tiles: array<Tile>;
/// rows x stride x (low word, high word).
@group(0) @binding(7) var<storage, read_write> tallies: array<atomic<u32>>;

/// Weight in the low, cases in the high 16 bits, per question and lane.
var<workgroup> weights: array<u32, QUERIES_PER_SEGMENT * LANES>;
/// Sums of the lanes that share a cell.
var<workgroup> partial: array<vec2<u32>, LANES>;

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

/// TABLE[min(D >> kernel_shift, last)].
fn kernel(distance: u32) -> u32 {
    let entry = min(distance >> parameters.kernel_shift, KERNEL_ENTRIES - 1u);
    let word = parameters.kernel_table[entry / 8u][(entry / 2u) % 4u];
    return (word >> (16u * (entry % 2u))) & 0xffffu;
}

/// Adds 64-bit numbers given as (low, high).
fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + u32(low < b.x));
}

/// high 2^12 + low as (low, high) words.
fn join(high: u32, low: u32) -> vec2<u32> {
    return add64(vec2<u32>(high << 12u, high >> 20u), vec2<u32>(low, 0u));
}

/// Adds to a cell, exact in any order: the carry goes with the lane that caused it.
fn add_cell(cell: u32, sum: vec2<u32>) {
    let old = atomicAdd(&tallies[2u * cell], sum.x);
    let high = sum.y + u32(old + sum.x < old);
    if (high != 0u) {
        atomicAdd(&tallies[2u * cell + 1u], high);
    }
}

/// What a packet adds to a cell is wn x: count adds 1, W adds wn, V adds wn w, S_c adds wn x_c.
/// wn < 2^24 is split into two numbers of 12 bits: their products with x stay below 2^28, and 16 of
/// them below 2^32, before they are joined to 64 bits.
fn sum_cell(segment: Segment, question: u32, cell: u32, base: u32, first: u32, step: u32) -> vec2<u32> {
    var sum = vec2<u32>(0u);
    var packet = first;
    while (packet < segment.packets) {
        var high = 0u;
        var low = 0u;
        for (var i = 0u; i < 16u && packet < segment.packets; i++) {
            let entry = weights[question * LANES + base + packet];
            let w = entry & 0xffffu;
            if (w != 0u) {
                var wn = w * (entry >> 16u);
                var x = 1u;
                if (cell == 0u) {
                    wn = 1u;
                } else if (cell == 2u) {
                    x = w;
                } else if (cell >= ROW_HEAD) {
                    let value = (segment.packet + packet) * parameters.columns + cell - ROW_HEAD;
                    x = (values[value / 2u] >> (16u * (value % 2u))) & 0xffffu;
                }
                high += (wn >> 12u) * x;
                low += (wn & 0xfffu) * x;
            }
            packet += step;
        }
        sum = add64(sum, join(high, low));
    }
    return sum;
}

@compute @workgroup_size(LANES)
fn merge(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = tiles[workgroup.x];
    let lanes = 1u << tile.lanes_log2;
    let index = local >> tile.lanes_log2;
    let lane = local & (lanes - 1u);
    // The first lane of the segment within the workgroup.
    let base = local - lane;
    var segment = Segment(0u, 0u, 0u, 0u);
    if (index < tile.segments) {
        segment = segments[tile.segment + index];
    }

    if (lane < segment.packets) {
        let packet = segment.packet + lane;
        let at = packet * SLOT_VECTORS;
        let p0 = embeddings[at];
        let p1 = embeddings[at + 1u];
        let p2 = embeddings[at + 2u];
        let p3 = embeddings[at + 3u];
        let p4 = embeddings[at + 4u];
        let p5 = embeddings[at + 5u];
        let p6 = embeddings[at + 6u];
        let p7 = embeddings[at + 7u];
        let norm = dot16(p0, p0) + dot16(p1, p1) + dot16(p2, p2) + dot16(p3, p3)
            + dot16(p4, p4) + dot16(p5, p5) + dot16(p6, p6) + dot16(p7, p7);
        let factor = factors[packet];
        for (var question = 0u; question < segment.rows; question++) {
            let row = segment.row + question;
            let product = dot16(queries[row].slots[0], p0) + dot16(queries[row].slots[1], p1)
                + dot16(queries[row].slots[2], p2) + dot16(queries[row].slots[3], p3)
                + dot16(queries[row].slots[4], p4) + dot16(queries[row].slots[5], p5)
                + dot16(queries[row].slots[6], p6) + dot16(queries[row].slots[7], p7);
            let distance = u32(i32(queries[row].norm) + norm - 2 * product);
            let w = (kernel(distance) * (factor & 0xffffu) + 2048u) >> 12u;
            weights[question * LANES + local] = w | (factor & 0xffff0000u);
        }
    }
    workgroupBarrier();

    let cells = segment.rows * parameters.stride;
    let shares = max(1u, lanes / max(1u, cells));
    for (var task = lane; task < cells * shares; task += lanes) {
        let cell = task % cells;
        let sum = sum_cell(segment, cell / parameters.stride, cell % parameters.stride, base, task / cells, shares);
        if (shares == 1u) {
            add_cell(segment.row * parameters.stride + cell, sum);
        } else {
            // Here cells x shares <= lanes: one task per lane.
            partial[local] = sum;
        }
    }
    workgroupBarrier();

    if (shares > 1u && lane < cells) {
        var sum = vec2<u32>(0u);
        for (var share = 0u; share < shares; share++) {
            sum = add64(sum, partial[base + share * cells + lane]);
        }
        add_cell(segment.row * parameters.stride + lane, sum);
    }
}
