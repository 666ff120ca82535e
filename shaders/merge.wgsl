// Columns -> tallies. Equal, bit for bit, to `cpu::merge` in src/merge/cpu.rs, which is the law. The
// constants SLOT_VECTORS, KERNEL_ENTRIES, KERNEL_VECTORS and ROW_HEAD come from src/merge/gpu.rs, the
// overrides from src/merge/tuning.rs.
//
// A segment is up to some questions against the packets of a part of one span. A workgroup takes one
// tile: LANES >> lanes_log2 segments of 1 << lanes_log2 lanes each, so that small spans share a
// workgroup and one dispatch serves spans of any sizes and mailboxes.
//
// Of a segment's lanes 1 << queries_log2 hold one or two questions each in registers, and so many
// such sets share the packets. All lanes bring the next packets into workgroup memory; then each lane
// goes over its share and sums in registers. With many questions a packet is read by all lanes at
// once and nothing is exchanged; with few, the shares are added up through workgroup memory, once at
// the end. The tally is touched once per question and segment.

/// Lanes of a workgroup, a power of two.
override LANES: u32;
/// Packets in workgroup memory at a time, a power of two.
override ROWS: u32;
/// Groups of four value columns that this dispatch sums, 1 to 4.
override GROUPS: u32;
/// 1 or 2.
override QUERIES_PER_LANE: u32;

struct Parameters {
    /// Value columns of the packets; a row of tallies has ROW_HEAD more cells.
    columns: u32,
    /// Groups of four columns that lie behind each other for one packet.
    groups: u32,
    /// The first of them that this dispatch sums. Only the first dispatch counts packets and weights.
    first_group: u32,
    kernel_shift: u32,
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
    /// First row of the tallies.
    row: u32,
    /// First question.
    query: u32,
    /// Rows, and as many questions.
    rows: u32,
    /// First packet in the columns.
    packet: u32,
    packets: u32,
    /// First group of values of the first packet.
    values: u32,
    padding_0: u32,
    padding_1: u32,
}

struct Tile {
    segment: u32,
    segments: u32,
    /// lanes_log2 in the low, queries_log2 in the high 16 bits.
    shape: u32,
    /// The most packets that one of the segments has.
    packets: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> embeddings: array<vec4<u32>>;
/// Per packet: sum of the squared slots, cases.
@group(0) @binding(2) var<storage, read> facts: array<vec2<u32>>;
/// u16 per packet.
@group(0) @binding(3) var<storage, read> gains: array<u32>;
/// u16, groups of four columns.
@group(0) @binding(4) var<storage, read> values: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> queries: array<Query>;
@group(0) @binding(6) var<storage, read> segments: array<Segment>;
@group(0) @binding(7) var<storage, read> tiles: array<Tile>;
/// rows x (ROW_HEAD + columns) x (low word, high word).
@group(0) @binding(8) var<storage, read_write> tallies: array<atomic<u32>>;

/// Vectors from one packet to the next in workgroup memory: one more than needed, which spreads the
/// packets over the memory banks.
const ROOM_VECTORS: u32 = SLOT_VECTORS + 1u;
/// Packets, and at the end the lanes' sums while they are added up.
var<workgroup> room: array<vec4<u32>, ROWS * ROOM_VECTORS>;
/// Norm, cases, gain.
var<workgroup> room_facts: array<vec4<u32>, ROWS>;
var<workgroup> room_values: array<vec4<u32>, ROWS * GROUPS>;
var<workgroup> table: array<vec4<u32>, KERNEL_VECTORS>;

/// What a packet adds to a cell is wn x: count adds 1, W adds wn, V adds wn w, S_c adds wn x_c.
/// wn < 2^24 is split into two numbers of 12 bits: their products with x stay below 2^28, and 16 of
/// them below 2^32, before they are joined to 64 bits.
struct Sums {
    high: vec4<u32>,
    low: vec4<u32>,
    sum_low: vec4<u32>,
    sum_high: vec4<u32>,
}

/// One question of a lane with everything that it sums: (count, W, V, nothing), then columns.
struct Question {
    s0: vec4<u32>,
    s1: vec4<u32>,
    s2: vec4<u32>,
    s3: vec4<u32>,
    s4: vec4<u32>,
    s5: vec4<u32>,
    s6: vec4<u32>,
    s7: vec4<u32>,
    norm: u32,
    head: Sums,
    a: Sums,
    b: Sums,
    c: Sums,
    d: Sums,
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

/// Loads a question; the sums are zero.
fn ask(question: ptr<function, Question>, query: u32) {
    (*question).s0 = queries[query].slots[0];
    (*question).s1 = queries[query].slots[1];
    (*question).s2 = queries[query].slots[2];
    (*question).s3 = queries[query].slots[3];
    (*question).s4 = queries[query].slots[4];
    (*question).s5 = queries[query].slots[5];
    (*question).s6 = queries[query].slots[6];
    (*question).s7 = queries[query].slots[7];
    (*question).norm = queries[query].norm;
}

/// TABLE[min(D >> kernel_shift, last)].
fn kernel(distance: u32) -> u32 {
    let entry = min(distance >> parameters.kernel_shift, KERNEL_ENTRIES - 1u);
    let word = table[entry / 8u][(entry / 2u) % 4u];
    return (word >> (16u * (entry % 2u))) & 0xffffu;
}

fn add_products(sums: Sums, high: u32, low: u32, x: vec4<u32>) -> Sums {
    return Sums(sums.high + high * x, sums.low + low * x, sums.sum_low, sums.sum_high);
}

/// Adds one packet: `product` of its slots with the question's, facts and values by its row.
fn add_packet(question: ptr<function, Question>, product: i32, row: u32) {
    let fact = room_facts[row];
    let distance = (*question).norm + fact.x - 2u * u32(product);
    let w = (kernel(distance) * fact.z + 2048u) >> 12u;
    let wn = w * fact.y;
    let high = wn >> 12u;
    let low = wn & 0xfffu;
    (*question).head.high += vec4<u32>(0u, high, high * w, 0u);
    (*question).head.low += vec4<u32>(min(w, 1u), low, low * w, 0u);
    (*question).a = add_products((*question).a, high, low, room_values[row * GROUPS]);
    if (GROUPS > 1u) {
        (*question).b = add_products((*question).b, high, low, room_values[row * GROUPS + 1u]);
    }
    if (GROUPS > 2u) {
        (*question).c = add_products((*question).c, high, low, room_values[row * GROUPS + 2u]);
    }
    if (GROUPS > 3u) {
        (*question).d = add_products((*question).d, high, low, room_values[row * GROUPS + 3u]);
    }
}

/// sum += high 2^12 + low, in 64 bits; high and low begin again at zero.
fn join(sums: Sums) -> Sums {
    let first = sums.sum_low + (sums.high << vec4<u32>(12u));
    let first_carry = vec4<u32>(first < sums.sum_low);
    let second = first + sums.low;
    let second_carry = vec4<u32>(second < first);
    let sum_high = sums.sum_high + (sums.high >> vec4<u32>(20u)) + first_carry + second_carry;
    return Sums(vec4<u32>(0u), vec4<u32>(0u), second, sum_high);
}

fn join_all(question: ptr<function, Question>) {
    (*question).head = join((*question).head);
    (*question).a = join((*question).a);
    if (GROUPS > 1u) {
        (*question).b = join((*question).b);
    }
    if (GROUPS > 2u) {
        (*question).c = join((*question).c);
    }
    if (GROUPS > 3u) {
        (*question).d = join((*question).d);
    }
}

/// The sums of `shares` lanes, `step` lanes apart, added up in the first one's. All lanes take part.
fn gather(sums: Sums, local: u32, share: u32, shares: u32, step: u32) -> Sums {
    var low = sums.sum_low;
    var high = sums.sum_high;
    // Up to eight into one at a time: fewer barriers than by halves, shorter waits than all at once.
    var left = shares;
    while (left > 1u) {
        let kept = max(left / 8u, 1u);
        workgroupBarrier();
        room[2u * local] = low;
        room[2u * local + 1u] = high;
        workgroupBarrier();
        if (share < kept) {
            for (var other = share + kept; other < left; other += kept) {
                let at = 2u * (local + (other - share) * step);
                let sum = low + room[at];
                high += room[at + 1u] + vec4<u32>(sum < low);
                low = sum;
            }
        }
        left = kept;
    }
    return Sums(sums.high, sums.low, low, high);
}

/// Adds to a cell, exact in any order: the carry goes with the lane that caused it.
fn add_cell(cell: u32, low: u32, high: u32) {
    let old = atomicAdd(&tallies[2u * cell], low);
    let carried = high + u32(old + low < old);
    if (carried != 0u) {
        atomicAdd(&tallies[2u * cell + 1u], carried);
    }
}

fn add_cells(first: u32, count: u32, low: vec4<u32>, high: vec4<u32>) {
    add_cell(first, low.x, high.x);
    if (count > 1u) {
        add_cell(first + 1u, low.y, high.y);
    }
    if (count > 2u) {
        add_cell(first + 2u, low.z, high.z);
    }
    if (count > 3u) {
        add_cell(first + 3u, low.w, high.w);
    }
}

/// Where a lane stands in its segment, and where its question's row is.
struct Stand {
    local: u32,
    share: u32,
    shares: u32,
    step: u32,
    row: u32,
    /// Whether this lane adds to the row.
    adds: bool,
}

fn add_columns(columns: Sums, stand: Stand, group: u32) {
    let sums = gather(columns, stand.local, stand.share, stand.shares, stand.step);
    let column = 4u * (parameters.first_group + group);
    if (stand.adds && column < parameters.columns) {
        let first = stand.row * (ROW_HEAD + parameters.columns) + ROW_HEAD + column;
        add_cells(first, parameters.columns - column, sums.sum_low, sums.sum_high);
    }
}

/// Adds everything that the lanes have summed for one question to its row.
fn add_row(question: ptr<function, Question>, stand: Stand) {
    if (parameters.first_group == 0u) {
        let head = gather((*question).head, stand.local, stand.share, stand.shares, stand.step);
        if (stand.adds) {
            let first = stand.row * (ROW_HEAD + parameters.columns);
            add_cells(first, ROW_HEAD, head.sum_low, head.sum_high);
        }
    }
    add_columns((*question).a, stand, 0u);
    if (GROUPS > 1u) {
        add_columns((*question).b, stand, 1u);
    }
    if (GROUPS > 2u) {
        add_columns((*question).c, stand, 2u);
    }
    if (GROUPS > 3u) {
        add_columns((*question).d, stand, 3u);
    }
}

@compute @workgroup_size(LANES)
fn merge(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    for (var i = local; i < KERNEL_VECTORS; i += LANES) {
        table[i] = parameters.kernel_table[i];
    }
    let tile = tiles[workgroup.x];
    let lanes_log2 = tile.shape & 0xffffu;
    let queries_log2 = tile.shape >> 16u;
    let lanes = 1u << lanes_log2;
    let index = local >> lanes_log2;
    let lane = local & (lanes - 1u);
    let step = 1u << queries_log2;
    let ask_lane = lane & (step - 1u);
    let share = lane >> queries_log2;
    let shares = lanes >> queries_log2;
    var segment = Segment(0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u);
    if (index < tile.segments) {
        segment = segments[tile.segment + index];
    }

    // Lanes past the last question repeat the last one and add nothing.
    var first = Question();
    var second = Question();
    let last = max(segment.rows, 1u) - 1u;
    ask(&first, segment.query + min(ask_lane, last));
    if (QUERIES_PER_LANE > 1u) {
        ask(&second, segment.query + min(ask_lane + step, last));
    }

    let capacity = ROWS >> (firstLeadingBit(LANES) - lanes_log2);
    let base = index * capacity;
    for (var start = 0u; start < tile.packets; start += capacity) {
        let count = min(capacity, max(segment.packets, start) - start);
        let packet = segment.packet + start;
        workgroupBarrier();
        for (var i = lane; i < count * SLOT_VECTORS; i += lanes) {
            room[(base + i / SLOT_VECTORS) * ROOM_VECTORS + i % SLOT_VECTORS] = embeddings[packet * SLOT_VECTORS + i];
        }
        for (var i = lane; i < count; i += lanes) {
            let at = packet + i;
            let gain = (gains[at / 2u] >> (16u * (at % 2u))) & 0xffffu;
            room_facts[base + i] = vec4<u32>(facts[at], gain, 0u);
        }
        for (var i = lane; i < count * GROUPS; i += lanes) {
            let at = segment.values + (start + i / GROUPS) * parameters.groups + parameters.first_group + i % GROUPS;
            let pair = values[at];
            room_values[base * GROUPS + i] = vec4<u32>(pair.x & 0xffffu, pair.x >> 16u, pair.y & 0xffffu, pair.y >> 16u);
        }
        workgroupBarrier();
        var row = share;
        while (row < count) {
            for (var i = 0u; i < 16u && row < count; i++) {
                let at = (base + row) * ROOM_VECTORS;
                let p0 = room[at];
                let p1 = room[at + 1u];
                let p2 = room[at + 2u];
                let p3 = room[at + 3u];
                let p4 = room[at + 4u];
                let p5 = room[at + 5u];
                let p6 = room[at + 6u];
                let p7 = room[at + 7u];
                let product = dot16(first.s0, p0) + dot16(first.s1, p1) + dot16(first.s2, p2) + dot16(first.s3, p3)
                    + dot16(first.s4, p4) + dot16(first.s5, p5) + dot16(first.s6, p6) + dot16(first.s7, p7);
                add_packet(&first, product, base + row);
                if (QUERIES_PER_LANE > 1u) {
                    let product = dot16(second.s0, p0) + dot16(second.s1, p1) + dot16(second.s2, p2)
                        + dot16(second.s3, p3) + dot16(second.s4, p4) + dot16(second.s5, p5)
                        + dot16(second.s6, p6) + dot16(second.s7, p7);
                    add_packet(&second, product, base + row);
                }
                row += shares;
            }
            join_all(&first);
            if (QUERIES_PER_LANE > 1u) {
                join_all(&second);
            }
        }
    }

    add_row(&first, Stand(local, share, shares, step, segment.row + ask_lane, share == 0u && ask_lane < segment.rows));
    if (QUERIES_PER_LANE > 1u) {
        let other = ask_lane + step;
        add_row(&second, Stand(local, share, shares, step, segment.row + other, share == 0u && other < segment.rows));
    }
}
