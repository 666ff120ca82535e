// Signal -> embedding. Equal, bit for bit, to `cpu::embed` in src/embed/cpu.rs, which is the law.
// The constants SLOTS, SLOT_VECTORS and LANES come from src/embed/gpu.rs.
//
// A lane keeps one signal in registers. All lanes apply the same row of the metric at the same time,
// so that the rows are operands from the uniform.

struct Parameters {
    signals: u32,
    /// 1: 128 weights; 0: 128 x 128, row-major.
    diagonal: u32,
    shift: u32,
    /// 0 for shift 0, else 1 << (shift - 1).
    rounding: i32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<uniform> metric: array<vec4<u32>, SLOTS * SLOT_VECTORS>;
@group(0) @binding(2) var<storage, read> signals: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> embeddings: array<vec4<u32>>;

/// Sum of 16 products of signed bytes.
fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

/// (sum + r) >> shift, clamped to +-127: four slots in one word.
fn shift_clamp(sums: vec4<i32>) -> u32 {
    let shifted = (sums + vec4<i32>(parameters.rounding)) >> vec4<u32>(parameters.shift);
    return pack4xI8(clamp(shifted, vec4<i32>(-127), vec4<i32>(127)));
}

/// One signal's 128 slots.
struct Signal {
    s0: vec4<u32>,
    s1: vec4<u32>,
    s2: vec4<u32>,
    s3: vec4<u32>,
    s4: vec4<u32>,
    s5: vec4<u32>,
    s6: vec4<u32>,
    s7: vec4<u32>,
}

/// The product of one row of the full metric with a signal.
fn row(index: u32, s: Signal) -> i32 {
    let at = index * SLOT_VECTORS;
    return dot16(metric[at], s.s0) + dot16(metric[at + 1u], s.s1) + dot16(metric[at + 2u], s.s2)
        + dot16(metric[at + 3u], s.s3) + dot16(metric[at + 4u], s.s4) + dot16(metric[at + 5u], s.s5)
        + dot16(metric[at + 6u], s.s6) + dot16(metric[at + 7u], s.s7);
}

/// Slots slot .. slot + 4 under the full metric.
fn rows4(slot: u32, s: Signal) -> u32 {
    return shift_clamp(vec4<i32>(row(slot, s), row(slot + 1u, s), row(slot + 2u, s), row(slot + 3u, s)));
}

/// Four slots under a diagonal metric.
fn weigh4(weights: u32, slots: u32) -> u32 {
    return shift_clamp(unpack4xI8(weights) * unpack4xI8(slots));
}

@compute @workgroup_size(LANES)
fn embed(@builtin(global_invocation_id) global: vec3<u32>) {
    let signal = global.x;
    if (signal >= parameters.signals) {
        return;
    }
    let at = signal * SLOT_VECTORS;
    if (parameters.diagonal == 1u) {
        for (var vector = 0u; vector < SLOT_VECTORS; vector++) {
            let w = metric[vector];
            let s = signals[at + vector];
            embeddings[at + vector] =
                vec4<u32>(weigh4(w.x, s.x), weigh4(w.y, s.y), weigh4(w.z, s.z), weigh4(w.w, s.w));
        }
        return;
    }
    let s = Signal(
        signals[at], signals[at + 1u], signals[at + 2u], signals[at + 3u],
        signals[at + 4u], signals[at + 5u], signals[at + 6u], signals[at + 7u],
    );
    for (var vector = 0u; vector < SLOT_VECTORS; vector++) {
        let slot = 16u * vector;
        embeddings[at + vector] =
            vec4<u32>(rows4(slot, s), rows4(slot + 4u, s), rows4(slot + 8u, s), rows4(slot + 12u, s));
    }
}
