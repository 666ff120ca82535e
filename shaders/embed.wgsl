// Signal -> embedding. Equal, bit for bit, to `cpu::embed` in src/embed/cpu.rs, which is the law.
// The constants SLOT_WORDS, SLOT_VECTORS, LANES and SIGNALS_PER_LANE come from src/embed/gpu.rs.
//
// 32 lanes make one signal's 32 words of four embedding slots. With a full metric a lane keeps four
// rows of the matrix in hand and applies them to SIGNALS_PER_LANE signals, so that a row is read
// once for four dot products.

struct Parameters {
    signals: u32,
    /// 1: 128 weights; 0: 128 x 128, row-major.
    diagonal: u32,
    shift: u32,
    /// 0 for shift 0, else 1 << (shift - 1).
    rounding: i32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> metric: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> signals: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> embeddings: array<u32>;

/// Sum of 16 products of signed bytes.
fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

/// (sum + r) >> shift, clamped to +-127: four slots in one word.
fn shift_clamp(sums: vec4<i32>) -> u32 {
    let shifted = (sums + vec4<i32>(parameters.rounding)) >> vec4<u32>(parameters.shift);
    return pack4xI8(clamp(shifted, vec4<i32>(-127), vec4<i32>(127)));
}

/// Slots 4 word .. 4 word + 4 of one signal under the full metric.
fn full(word: u32, signal: u32) -> vec4<i32> {
    var sums = vec4<i32>(0);
    for (var k = 0u; k < SLOT_VECTORS; k++) {
        let s = signals[signal * SLOT_VECTORS + k];
        let row = 4u * word * SLOT_VECTORS + k;
        sums += vec4<i32>(
            dot16(metric[row], s),
            dot16(metric[row + SLOT_VECTORS], s),
            dot16(metric[row + 2u * SLOT_VECTORS], s),
            dot16(metric[row + 3u * SLOT_VECTORS], s),
        );
    }
    return sums;
}

/// The same under a diagonal metric.
fn diagonal(word: u32, signal: u32) -> vec4<i32> {
    let weights = unpack4xI8(metric[word / 4u][word % 4u]);
    return weights * unpack4xI8(signals[signal * SLOT_VECTORS + word / 4u][word % 4u]);
}

@compute @workgroup_size(LANES)
fn embed(@builtin(global_invocation_id) global: vec3<u32>) {
    let word = global.x % SLOT_WORDS;
    let first = (global.x / SLOT_WORDS) * SIGNALS_PER_LANE;
    let end = min(first + SIGNALS_PER_LANE, parameters.signals);
    for (var signal = first; signal < end; signal++) {
        var sums: vec4<i32>;
        if (parameters.diagonal == 1u) {
            sums = diagonal(word, signal);
        } else {
            sums = full(word, signal);
        }
        embeddings[signal * SLOT_WORDS + word] = shift_clamp(sums);
    }
}
