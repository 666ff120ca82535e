//! What the processor can do at most, measured in the same process as the work: multiply-adds of
//! bytes, additions, reading memory.
//!
//! Rates are per second of *processor* time of one thread while as many threads are at work as the
//! engine has, so that other programs on the machine count little. Each is the best of many short
//! repetitions: a limit is what is possible, not what is usual.
#![allow(unsafe_code)]

use crate::engine::Engine;
use crate::limits::SLOTS;
use cpu_time::ThreadTime;
use std::hint::black_box;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

/// Measured limits, per second of processor time of each thread.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Limits {
    /// Threads that were at work at the same time.
    pub threads: usize,
    /// Exact products of two i8, added up in i32, with operands in the first cache. On AVX2 by
    /// `madd` of 16-bit numbers, 16 products each; `maddubs` makes 32 products in 16 bits but
    /// needs a `madd` to add them up, so it has the same bound.
    pub multiply_adds: f64,
    /// Additions and subtractions of 16-bit numbers, in registers.
    pub additions: f64,
    /// Bytes read one after the other from more memory than the last cache holds.
    pub bytes_read: f64,
}

/// Bytes of the multiply-adds' operands: well inside the first cache.
const OPERAND_BYTES: usize = 4_096;
/// Bytes that all threads together read from memory, more than the caches of servers hold.
const MEMORY_BYTES: usize = 256 << 20;
/// The same of one thread at least.
const MEMORY_BYTES_MIN: usize = 16 << 20;
/// One repetition, and all of them, take at least this much processor time.
const REPETITION: Duration = Duration::from_millis(2);
const REPETITIONS: Duration = Duration::from_millis(50);

impl Limits {
    /// Measures with all threads of the engine, in less than half a second.
    pub fn measure(engine: &Engine) -> Limits {
        let threads = engine.install(rayon::current_num_threads);
        Limits {
            threads,
            multiply_adds: best_rate(engine, || {
                let operands = vec![[1i8; 32]; OPERAND_BYTES / 32];
                move || {
                    black_box(multiply_adds(black_box(&operands)));
                    MULTIPLY_ADDS_PER_BYTE * OPERAND_BYTES as u64
                }
            }),
            additions: best_rate(engine, || {
                || {
                    black_box(additions(black_box([1; 128])));
                    ADDITIONS
                }
            }),
            bytes_read: bytes_read(engine, (MEMORY_BYTES / threads).max(MEMORY_BYTES_MIN)),
        }
    }

    /// Fingerprints: of the 21 stages of additions of each block, sixteen fit 16 bits where the packet
    /// is short (`fingerprint::simd`); the others are 32 bits wide and count twice.
    pub fn fingerprints(&self) -> f64 {
        let additions = 2 * SLOTS * (16 + 2 * 5);
        self.additions / additions as f64
    }

    /// Query-packet pairs: 128 multiply-adds each.
    pub fn pairs(&self) -> f64 {
        self.multiply_adds / SLOTS as f64
    }
}

/// Bytes per second of processor time and thread, where each thread reads so many over and over.
pub fn bytes_read(engine: &Engine, bytes: usize) -> f64 {
    best_rate(engine, || {
        let memory = vec![[1u64; 8]; bytes.div_ceil(64).max(1)];
        move || {
            black_box(sum(black_box(&memory)));
            size_of_val(memory.as_slice()) as u64
        }
    })
}

/// The mean over the engine's threads of the best rate of each, while all are at work. `prepare` makes
/// each thread's work, which returns the units that it has done.
fn best_rate<W: FnMut() -> u64>(engine: &Engine, prepare: impl Fn() -> W + Sync) -> f64 {
    let barrier = Barrier::new(engine.install(rayon::current_num_threads));
    let rates = Mutex::new(vec![]);
    engine.install(|| {
        rayon::broadcast(|_| {
            let mut work = prepare();
            // Asking for the time takes as long as a hundred thousand additions: many works to a
            // repetition.
            let mut works = 1;
            while timed(&mut work, works).1 < REPETITION {
                works *= 2;
            }
            barrier.wait();
            let mut best = 0.0f64;
            let first = ThreadTime::now();
            while first.elapsed() < REPETITIONS {
                let (units, passed) = timed(&mut work, works);
                best = best.max(units as f64 / passed.as_secs_f64());
            }
            if let Ok(mut rates) = rates.lock() {
                rates.push(best);
            }
        })
    });
    let rates = rates.into_inner().unwrap_or_default();
    rates.iter().sum::<f64>() / rates.len().max(1) as f64
}

/// Units of so many works, and the processor time of this thread.
fn timed(work: &mut impl FnMut() -> u64, works: usize) -> (u64, Duration) {
    let began = ThreadTime::now();
    let units = (0..works).map(|_| work()).sum();
    (units, began.elapsed())
}

/// Every byte of the operands is multiplied with this many others.
const MULTIPLY_ADDS_PER_BYTE: u64 = 4;
/// Passes over 128 numbers in registers, seven stages each.
const ADDITION_PASSES: u64 = 64;
const ADDITIONS: u64 = ADDITION_PASSES * 128 * 7;

/// Products of each row with four others that stay in registers, added up.
fn multiply_adds(rows: &[[i8; 32]]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::multiply_adds(rows) };
    }
    let fixed: [[i8; 32]; 4] = std::array::from_fn(|i| rows[i % rows.len()]);
    let mut sums = [[0i32; 32]; 4];
    for row in rows {
        for (sums, fixed) in sums.iter_mut().zip(&fixed) {
            for ((sum, &a), &b) in sums.iter_mut().zip(row).zip(fixed) {
                *sum += i32::from(a) * i32::from(b);
            }
        }
    }
    sums.as_flattened().iter().sum()
}

/// Butterflies of sums and differences, as a transform has them.
fn additions(numbers: [i16; 128]) -> i16 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::additions(numbers) };
    }
    butterflies(numbers)
}

/// Sum of all words.
fn sum(memory: &[[u64; 8]]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::sum(memory) };
    }
    sum_lines(memory)
}

/// Plain code that the compiler turns into vectors.
#[allow(clippy::needless_range_loop, reason = "an index stands for a lane of several registers")]
fn butterflies(numbers: [i16; 128]) -> i16 {
    // Eight vectors of 16 numbers: they fit the registers with room for the differences.
    let mut x: [[i16; 16]; 8] = bytemuck::cast(numbers);
    for _ in 0..ADDITION_PASSES {
        // Seven stages; the pairs that meet change as in a transform.
        for stage in 0..7 {
            let stride = 1 << (stage % 3);
            for i in (0..8).filter(|i| i & stride == 0) {
                for lane in 0..16 {
                    let (a, b) = (x[i][lane], x[i + stride][lane]);
                    x[i][lane] = a.wrapping_add(b);
                    x[i + stride][lane] = a.wrapping_sub(b);
                }
            }
        }
    }
    x.as_flattened().iter().fold(0, |sum, &x| sum.wrapping_add(x))
}

/// Plain code that the compiler turns into the widest vectors that the caller may use.
#[inline(always)]
fn sum_lines(memory: &[[u64; 8]]) -> u64 {
    let mut sums = [[0u64; 8]; 4];
    let fours = memory.chunks_exact(4);
    let rest: u64 = fours.remainder().as_flattened().iter().sum();
    for four in fours {
        for (sums, line) in sums.iter_mut().zip(four) {
            for (sum, &word) in sums.iter_mut().zip(line) {
                *sum = sum.wrapping_add(word);
            }
        }
    }
    sums.as_flattened().iter().fold(rest, |sum, &x| sum.wrapping_add(x))
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "an index stands for a register in several arrays")]
mod avx2 {
    //! Without closures around the instructions: what is not inlined here is compiled without AVX2.

    use super::ADDITION_PASSES;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    pub fn multiply_adds(rows: &[[i8; 32]]) -> i32 {
        // Operands as a kernel has them that widens once for many uses.
        let mut fixed = [_mm256_setzero_si256(); 4];
        for i in 0..4 {
            fixed[i] = widen(&rows[i % rows.len()], 0);
        }
        let mut sums = [_mm256_setzero_si256(); 8];
        for row in rows {
            for half in 0..2 {
                let row = widen(row, half);
                for i in 0..4 {
                    let sum = &mut sums[4 * half + i];
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(row, fixed[i]));
                }
            }
        }
        let sums: [i32; 64] = bytemuck::cast(sums);
        sums.iter().sum()
    }

    /// 16 slots of a row in 16 bits each.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn widen(row: &[i8; 32], half: usize) -> __m256i {
        let halves: [__m128i; 2] = bytemuck::cast(*row);
        _mm256_cvtepi8_epi16(halves[half])
    }

    #[target_feature(enable = "avx2")]
    pub fn additions(numbers: [i16; 128]) -> i16 {
        let mut x: [__m256i; 8] = bytemuck::cast(numbers);
        for _ in 0..ADDITION_PASSES {
            for stage in 0..7 {
                let stride = 1 << (stage % 3);
                for i in 0..8 {
                    if i & stride == 0 {
                        let (a, b) = (x[i], x[i + stride]);
                        x[i] = _mm256_add_epi16(a, b);
                        x[i + stride] = _mm256_sub_epi16(a, b);
                    }
                }
            }
        }
        let x: [i16; 128] = bytemuck::cast(x);
        x.iter().fold(0, |sum, &x| sum.wrapping_add(x))
    }

    #[target_feature(enable = "avx2")]
    pub fn sum(memory: &[[u64; 8]]) -> u64 {
        super::sum_lines(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Choice;

    /// What is timed does the work that it claims.
    #[test]
    fn the_work_is_done() {
        let rows: Vec<[i8; 32]> =
            (0..8).map(|r| std::array::from_fn(|i| (r * 31 + i as i32 * 7 - 100) as i8)).collect();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // Both halves of a row meet the first halves of the first four.
            let product = |a: &[i8], b: &[i8]| -> i32 {
                a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
            };
            let all = rows.iter().flat_map(|row| [&row[..16], &row[16..]]);
            let naive: i32 =
                all.map(|half| rows[..4].iter().map(|b| product(half, &b[..16])).sum::<i32>()).sum();
            assert_eq!(multiply_adds(&rows), naive);
        }
        let numbers = std::array::from_fn(|i| i as i16 * 3 - 50);
        assert_eq!(additions(numbers), butterflies(numbers));
        let memory: Vec<[u64; 8]> = (0..70).map(|i| [i; 8]).collect();
        assert_eq!(sum(&memory), 8 * (0..70).sum::<u64>());
    }

    #[test]
    fn limits_are_measured() {
        let engine = Engine::new(&Choice { threads: Some(2), ..Choice::default() }).unwrap();
        let limits = Limits::measure(&engine);
        assert_eq!(limits.threads, 2);
        // Slower than any machine that this will meet, and faster than any.
        assert!((1e8..1e14).contains(&limits.multiply_adds), "{limits:?}");
        assert!((1e8..1e14).contains(&limits.additions), "{limits:?}");
        assert!((1e7..1e13).contains(&limits.bytes_read), "{limits:?}");
        assert!(limits.pairs() > 0.0 && limits.fingerprints() > 0.0);
    }
}
