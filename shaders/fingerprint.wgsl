// Embedding -> fingerprint. Equal, bit for bit, to `cpu::fingerprint` in src/fingerprint/cpu.rs,
// which is the law. The constants SLOT_WORDS, SLOT_VECTORS, LANES, TEAM, PACKETS_PER_WORKGROUP,
// STREAM_VECTORS, SIGN_VECTORS and TIE_VECTORS come from src/fingerprint/gpu.rs. Two entry points, of which the
// faster one is taken on each adapter:
//
// `fingerprint` keeps the 128 values of a block in one lane's registers: no exchange, no barrier, and
// each sign is the same for all lanes, so it is an operand from the uniform. It needs some 170
// registers.
//
// `fingerprint_team` needs few: eight lanes, a team, hold the 128 values of one block of one packet, 16 each, in one of two
// arrangements. In rows, lane l holds slots 16 l + v; in columns, slots 16 (v / 2) + 2 l + v % 2.
// Butterflies over 1, 2, 4, 8 stay inside a lane in rows, those over 16, 32, 64 in columns; they
// commute, so each round does what its arrangement allows, changes it once through workgroup
// memory, and does the rest. Three rounds start in columns and end in rows.

struct Parameters {
    packets: u32,
    /// Row of the first packet among the embeddings.
    first: u32,
    padding_0: u32,
    padding_1: u32,
    /// 1 or -1 per slot, of block 0 rounds 0, 1, 2, then block 1.
    signs: array<vec4<i32>, SIGN_VECTORS>,
    /// 0 or 1 per slot, of block 0, then 1.
    ties: array<vec4<i32>, TIE_VECTORS>,
    /// The stream: signs of block 0 rounds 0, 1, 2, then block 1, then ties of both blocks.
    stream: array<vec4<u32>, STREAM_VECTORS>,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> embeddings: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> fingerprints: array<vec4<u32>>;

/// 16 values of one lane, v = 0..16.
struct Sixteen {
    a: vec4<i32>,
    b: vec4<i32>,
    c: vec4<i32>,
    d: vec4<i32>,
}

/// A team's 128 values with one gap after each 16, which spreads them over the memory banks.
const TEAM_ROOM: u32 = 136u;
/// Two rooms per team, used in turn: a room is written again only after a barrier has passed since
/// its last read.
var<workgroup> room: array<i32, 2u * LANES / TEAM * TEAM_ROOM>;
var<workgroup> halves: array<u32, LANES>;

/// Changes the sign where the bit is 1.
fn flip4(x: vec4<i32>, bits: u32) -> vec4<i32> {
    let negative = vec4<i32>((vec4<u32>(bits) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u));
    return x * (vec4<i32>(1) - 2 * negative);
}

fn flip(x: Sixteen, bits: u32) -> Sixteen {
    return Sixteen(flip4(x.a, bits), flip4(x.b, bits >> 4u), flip4(x.c, bits >> 8u), flip4(x.d, bits >> 12u));
}

/// Butterflies over neighbours of one vector: v and v + 1.
fn near1(x: vec4<i32>) -> vec4<i32> {
    return vec4<i32>(x.x + x.y, x.x - x.y, x.z + x.w, x.z - x.w);
}

/// Butterflies over v and v + 2 of one vector.
fn near2(x: vec4<i32>) -> vec4<i32> {
    return vec4<i32>(x.xy + x.zw, x.xy - x.zw);
}

/// Butterflies over v and v + 2, 4, 8: slots 16, 32, 64 in columns.
fn butterflies_columns(x: Sixteen) -> Sixteen {
    let a = near2(x.a);
    let b = near2(x.b);
    let c = near2(x.c);
    let d = near2(x.d);
    let ab = a + b;
    let ab_ = a - b;
    let cd = c + d;
    let cd_ = c - d;
    return Sixteen(ab + cd, ab_ + cd_, ab - cd, ab_ - cd_);
}

/// Butterflies over v and v + 1, 2, 4, 8: slots 1, 2, 4, 8 in rows.
fn butterflies_rows(x: Sixteen) -> Sixteen {
    return butterflies_columns(Sixteen(near1(x.a), near1(x.b), near1(x.c), near1(x.d)));
}

fn put_rows4(at: u32, x: vec4<i32>) {
    room[at] = x.x;
    room[at + 1u] = x.y;
    room[at + 2u] = x.z;
    room[at + 3u] = x.w;
}

fn put_columns4(at: u32, x: vec4<i32>) {
    room[at] = x.x;
    room[at + 1u] = x.y;
    room[at + 17u] = x.z;
    room[at + 18u] = x.w;
}

fn take_rows4(at: u32) -> vec4<i32> {
    return vec4<i32>(room[at], room[at + 1u], room[at + 2u], room[at + 3u]);
}

fn take_columns4(at: u32) -> vec4<i32> {
    return vec4<i32>(room[at], room[at + 1u], room[at + 17u], room[at + 18u]);
}

fn columns_to_rows(base: u32, lane: u32, x: Sixteen) -> Sixteen {
    let columns = base + 2u * lane;
    put_columns4(columns, x.a);
    put_columns4(columns + 34u, x.b);
    put_columns4(columns + 68u, x.c);
    put_columns4(columns + 102u, x.d);
    workgroupBarrier();
    let rows = base + 17u * lane;
    return Sixteen(take_rows4(rows), take_rows4(rows + 4u), take_rows4(rows + 8u), take_rows4(rows + 12u));
}

fn rows_to_columns(base: u32, lane: u32, x: Sixteen) -> Sixteen {
    let rows = base + 17u * lane;
    put_rows4(rows, x.a);
    put_rows4(rows + 4u, x.b);
    put_rows4(rows + 8u, x.c);
    put_rows4(rows + 12u, x.d);
    workgroupBarrier();
    let columns = base + 2u * lane;
    return Sixteen(
        take_columns4(columns),
        take_columns4(columns + 34u),
        take_columns4(columns + 68u),
        take_columns4(columns + 102u),
    );
}

/// The lane's 16 bits of 128, bit v for value v in rows.
fn bits_rows(words: vec4<u32>, lane: u32) -> u32 {
    return (words[lane / 2u] >> (16u * (lane % 2u))) & 0xffffu;
}

/// The same in columns: two bits of each half-word.
fn bits_columns(words: vec4<u32>, lane: u32) -> u32 {
    let low = (words >> vec4<u32>(2u * lane)) & vec4<u32>(3u);
    let high = (words >> vec4<u32>(2u * lane + 16u)) & vec4<u32>(3u);
    let pairs = (low | (high << vec4<u32>(2u))) << vec4<u32>(0u, 4u, 8u, 12u);
    return pairs.x | pairs.y | pairs.z | pairs.w;
}

/// Two neighbouring slots out of the packed embedding, sign-extended.
fn slots2(word: u32, lane: u32) -> vec2<i32> {
    let bytes = word >> (16u * (lane % 2u));
    return vec2<i32>(i32(bytes << 24u) >> 24u, i32(bytes << 16u) >> 24u);
}

fn load_columns4(at: u32, lane: u32) -> vec4<i32> {
    return vec4<i32>(slots2(embeddings[at / 4u][at % 4u], lane), slots2(embeddings[at / 4u + 1u][at % 4u], lane));
}

/// One where x > 0, or x = 0 and the tie bit is 1.
fn decide4(x: vec4<i32>, ties: u32) -> u32 {
    let powers = vec4<u32>(1u, 2u, 4u, 8u);
    let tie = (vec4<u32>(ties) & powers) != vec4<u32>(0u);
    let one = (x > vec4<i32>(0)) | ((x == vec4<i32>(0)) & tie);
    let bits = select(vec4<u32>(0u), powers, one);
    return bits.x | bits.y | bits.z | bits.w;
}

@compute @workgroup_size(LANES)
fn fingerprint_team(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local % TEAM;
    let team = local / TEAM;
    let packet = workgroup.x * PACKETS_PER_WORKGROUP + team / 2u;
    let block = team % 2u;
    let room_0 = team * TEAM_ROOM;
    let room_1 = room_0 + LANES / TEAM * TEAM_ROOM;

    // Lanes past the last packet repeat it, so that every lane meets every barrier.
    let at = (parameters.first + min(packet, parameters.packets - 1u)) * SLOT_WORDS + lane / 2u;
    var x = Sixteen(
        load_columns4(at, lane),
        load_columns4(at + 8u, lane),
        load_columns4(at + 16u, lane),
        load_columns4(at + 24u, lane),
    );

    x = flip(x, bits_columns(parameters.stream[3u * block], lane));
    x = butterflies_columns(x);
    x = columns_to_rows(room_0, lane, x);
    x = butterflies_rows(x);

    x = flip(x, bits_rows(parameters.stream[3u * block + 1u], lane));
    x = butterflies_rows(x);
    x = rows_to_columns(room_1, lane, x);
    x = butterflies_columns(x);

    x = flip(x, bits_columns(parameters.stream[3u * block + 2u], lane));
    x = butterflies_columns(x);
    x = columns_to_rows(room_0, lane, x);
    x = butterflies_rows(x);

    let ties = bits_rows(parameters.stream[6u + block], lane);
    halves[local] = decide4(x.a, ties) | (decide4(x.b, ties >> 4u) << 4u)
        | (decide4(x.c, ties >> 8u) << 8u) | (decide4(x.d, ties >> 12u) << 12u);
    workgroupBarrier();
    if (lane == 0u && packet < parameters.packets) {
        fingerprints[2u * packet + block] = vec4<u32>(
            halves[local] | (halves[local + 1u] << 16u),
            halves[local + 2u] | (halves[local + 3u] << 16u),
            halves[local + 4u] | (halves[local + 5u] << 16u),
            halves[local + 6u] | (halves[local + 7u] << 16u),
        );
    }
}

/// The 128 values of one block.
struct Block {
    a: Sixteen,
    b: Sixteen,
    c: Sixteen,
    d: Sixteen,
    e: Sixteen,
    f: Sixteen,
    g: Sixteen,
    h: Sixteen,
}

fn add(x: Sixteen, y: Sixteen) -> Sixteen {
    return Sixteen(x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d);
}

fn subtract(x: Sixteen, y: Sixteen) -> Sixteen {
    return Sixteen(x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d);
}

/// Slots 16 vector .. 16 vector + 16 of a packet, sign-extended.
fn unpack(row: u32, vector: u32) -> Sixteen {
    let words = embeddings[row * SLOT_VECTORS + vector];
    return Sixteen(unpack4xI8(words.x), unpack4xI8(words.y), unpack4xI8(words.z), unpack4xI8(words.w));
}

/// One round's signs, then the butterflies over slots 1, 2, 4, 8.
fn begin(x: Sixteen, signs: u32) -> Sixteen {
    return butterflies_rows(Sixteen(
        x.a * parameters.signs[signs],
        x.b * parameters.signs[signs + 1u],
        x.c * parameters.signs[signs + 2u],
        x.d * parameters.signs[signs + 3u],
    ));
}

/// Four bits: one where x + tie > 0, which for integers is x > 0, or x = 0 and the tie is 1.
fn bits4(x: vec4<i32>, ties: u32) -> u32 {
    let one = vec4<u32>(-x - parameters.ties[ties]) >> vec4<u32>(31u);
    return one.x | (one.y << 1u) | (one.z << 2u) | (one.w << 3u);
}

fn bits16(x: Sixteen, ties: u32) -> u32 {
    return bits4(x.a, ties) | (bits4(x.b, ties + 1u) << 4u) | (bits4(x.c, ties + 2u) << 8u)
        | (bits4(x.d, ties + 3u) << 12u);
}

@compute @workgroup_size(LANES)
fn fingerprint(@builtin(global_invocation_id) global: vec3<u32>) {
    let packet = global.x;
    if (packet >= parameters.packets) {
        return;
    }
    let row = parameters.first + packet;
    for (var block = 0u; block < 2u; block++) {
        var x = Block(
            unpack(row, 0u), unpack(row, 1u), unpack(row, 2u), unpack(row, 3u),
            unpack(row, 4u), unpack(row, 5u), unpack(row, 6u), unpack(row, 7u),
        );
        for (var round = 0u; round < 3u; round++) {
            let signs = (3u * block + round) * SLOT_WORDS;
            let a = begin(x.a, signs);
            let b = begin(x.b, signs + 4u);
            let c = begin(x.c, signs + 8u);
            let d = begin(x.d, signs + 12u);
            let e = begin(x.e, signs + 16u);
            let f = begin(x.f, signs + 20u);
            let g = begin(x.g, signs + 24u);
            let h = begin(x.h, signs + 28u);
            // Slots 16, 32, 64.
            let ab = add(a, b);
            let ab_ = subtract(a, b);
            let cd = add(c, d);
            let cd_ = subtract(c, d);
            let ef = add(e, f);
            let ef_ = subtract(e, f);
            let gh = add(g, h);
            let gh_ = subtract(g, h);
            let abcd_0 = add(ab, cd);
            let abcd_1 = add(ab_, cd_);
            let abcd_2 = subtract(ab, cd);
            let abcd_3 = subtract(ab_, cd_);
            let efgh_0 = add(ef, gh);
            let efgh_1 = add(ef_, gh_);
            let efgh_2 = subtract(ef, gh);
            let efgh_3 = subtract(ef_, gh_);
            x.a = add(abcd_0, efgh_0);
            x.b = add(abcd_1, efgh_1);
            x.c = add(abcd_2, efgh_2);
            x.d = add(abcd_3, efgh_3);
            x.e = subtract(abcd_0, efgh_0);
            x.f = subtract(abcd_1, efgh_1);
            x.g = subtract(abcd_2, efgh_2);
            x.h = subtract(abcd_3, efgh_3);
        }
        let ties = block * SLOT_WORDS;
        fingerprints[2u * packet + block] = vec4<u32>(
            bits16(x.a, ties) | (bits16(x.b, ties + 4u) << 16u),
            bits16(x.c, ties + 8u) | (bits16(x.d, ties + 12u) << 16u),
            bits16(x.e, ties + 16u) | (bits16(x.f, ties + 20u) << 16u),
            bits16(x.g, ties + 24u) | (bits16(x.h, ties + 28u) << 16u),
        );
    }
}
