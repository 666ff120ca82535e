use super::cpu::{SIGNS, bit};
use super::*;
use crate::limits::SLOTS;
use ndarray::{Array2, ArrayView2};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::f64::consts::PI;

type Kernel = fn(ArrayView2<i8>, &mut [Fingerprint]);
const KERNELS: [(&str, Kernel); 2] = [("lanes", lanes::fingerprint), ("simd", simd::fingerprint)];

fn check(rows: &[[i8; SLOTS]]) {
    let embeddings = Array2::from_shape_fn((rows.len(), SLOTS), |(row, slot)| rows[row][slot]);
    let mut law = vec![[0; 32]; rows.len()];
    cpu::fingerprint(embeddings.view(), &mut law);
    for (name, fingerprint) in KERNELS {
        let mut bits = vec![[0xAA; 32]; rows.len()];
        fingerprint(embeddings.view(), &mut bits);
        assert_eq!(bits, law, "{name}");
    }
}

/// The signal's direction in which slot `slot` grows most by so many rounds and then by the first
/// `stages` strides, from low to high or from high to low, of the next: a row of the product of these
/// steps, which are symmetric, in reverse.
fn steepest(block: usize, rounds: usize, stages: usize, upward: bool, slot: usize) -> [f64; SLOTS] {
    let mut x = [0.0; SLOTS];
    x[slot] = 1.0;
    for round in (0..=rounds.min(ROUNDS - 1)).rev() {
        let count = if round == rounds { stages } else { 7 };
        for stage in 0..count {
            let stride = 1 << if upward { stage } else { 6 - stage };
            for i in (0..SLOTS).filter(|i| i & stride == 0) {
                (x[i], x[i + stride]) = (x[i] + x[i + stride], x[i] - x[i + stride]);
            }
        }
        for (x, &sign) in x.iter_mut().zip(&SIGNS[block][round]) {
            *x = if sign < 0 { -*x } else { *x };
        }
    }
    x
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Every sum at its bound once, for narrow packets (a norm of 510) and for wide ones, of both parities.
#[test]
fn vectors_are_exact_at_their_bounds() {
    let mut rows = vec![];
    for (rounds, stages) in [(0, 4), (1, 0), (1, 4), (2, 0), (2, 2), (2, 3), (2, 6), (3, 0)] {
        for (block, upward) in [(0, true), (0, false), (1, true), (1, false)] {
            for slot in [0, 1, 7, 8, 64, 77, 127] {
                let x = steepest(block, rounds, stages, upward, slot);
                let largest = x.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
                for size in [508.0 / norm(&x), 512.0 / norm(&x), 127.0 / largest] {
                    rows.push(x.map(|x| (x * size).round().clamp(-127.0, 127.0) as i8));
                }
                rows.push(x.map(|x| if x < 0.0 { -127 } else { 127 }));
                // The other parity.
                for index in rows.len() - 4..rows.len() {
                    let mut row = rows[index];
                    row[slot] -= row[slot].signum();
                    rows.push(row);
                }
            }
        }
    }
    // Sixteen of a kind together, for one wide packet makes all of its sixteen wide.
    rows.sort_by_key(|row| row.iter().map(|&x| i32::from(x).pow(2)).sum::<i32>());
    check(&rows);
    rows.reverse();
    check(&rows);
}

/// Squared norms one below, at and above the border between narrow and wide, 510^2 = 16 * 127^2 + 2,036.
#[test]
fn vectors_are_exact_around_the_narrow_norm() {
    let mut row = [0; SLOTS];
    row[..16].fill(127);
    row[16..19].copy_from_slice(&[45, 3, 1]);
    let squares: i32 = row.iter().map(|&x| i32::from(x) * i32::from(x)).sum();
    assert_eq!(squares, 510 * 510 - 1);
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut rows = vec![];
    for last in [[1, 0], [1, 1], [1, 2], [0, 0]] {
        row[18..20].copy_from_slice(&last);
        for _ in 0..48 {
            for i in (1..SLOTS).rev() {
                row.swap(i, random.random_range(0..=i));
            }
            rows.push(row.map(|x: i8| if random.random() { x } else { -x }));
            row.sort_by_key(|x| -x);
        }
    }
    check(&rows);
    rows.chunks(13).for_each(check);
}

/// What a pair of signals of one kind looks like.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Every slot has its own value.
    Dense,
    /// A table of numbers in five levels, half of them the same.
    FewLevels,
    /// One to eight categories of sixteen levels, some the same.
    OneHot,
}

#[allow(clippy::needless_range_loop, reason = "an index stands for a slot of both")]
fn pair(kind: Kind, random: &mut impl Rng) -> [[i8; SLOTS]; 2] {
    let mut pair = [[0; SLOTS]; 2];
    let share: f64 = random.random();
    match kind {
        Kind::Dense => {
            for i in 0..SLOTS {
                let mut bell = || (0..6).map(|_| random.random_range(-9.0..9.0)).sum::<f64>();
                let (common, own) = (bell(), [bell(), bell()]);
                for side in 0..2 {
                    let x = share.sqrt() * common + (1.0 - share).sqrt() * own[side];
                    pair[side][i] = x.round() as i8;
                }
            }
        }
        Kind::FewLevels => {
            for i in 0..SLOTS {
                pair[0][i] = 20 * random.random_range(-2..=2);
                let same = random.random_bool(share);
                pair[1][i] = if same { pair[0][i] } else { 20 * random.random_range(-2..=2) };
            }
        }
        Kind::OneHot => {
            for feature in 0..random.random_range(1..=8) {
                let level = random.random_range(0..16);
                let other = if random.random_bool(share) { level } else { random.random_range(0..16) };
                pair[0][16 * feature + level] = 48;
                pair[1][16 * feature + other] = 48;
            }
        }
    }
    pair
}

/// Against 256 independent Gaussian directions, of which each bit differs with probability
/// p = angle / pi, so that the squared error is p (1 - p) / 256.
#[test]
fn angles_are_no_worse_than_those_of_gaussian_directions() {
    const PAIRS: usize = 20_000;
    for kind in [Kind::Dense, Kind::FewLevels, Kind::OneHot] {
        let mut random = ChaCha8Rng::seed_from_u64(9);
        let (mut bias, mut squares, mut gaussian, mut counted) = (0.0, 0.0, 0.0, 0);
        for _ in 0..PAIRS {
            let [a, b] = pair(kind, &mut random);
            let dot: f64 = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            let lengths = norm(&a.map(f64::from)) * norm(&b.map(f64::from));
            if lengths == 0.0 || dot >= lengths {
                continue;
            }
            let mut bits = [[0; 32]; 2];
            let rows = Array2::from_shape_fn((2, SLOTS), |(side, slot)| [a, b][side][slot]);
            simd::fingerprint(rows.view(), &mut bits);
            let differing = (0..256).filter(|&i| bit(&bits[0], i) != bit(&bits[1], i)).count();
            let p = (dot / lengths).acos() / PI;
            let error = differing as f64 / 256.0 - p;
            bias += error;
            squares += error * error;
            gaussian += p * (1.0 - p) / 256.0;
            counted += 1;
        }
        let n = f64::from(counted);
        let (bias, error, gaussian) = (bias / n, (squares / n).sqrt(), (gaussian / n).sqrt());
        println!("{kind:?}: {counted} pairs, error {error:.5}, Gaussian {gaussian:.5}, bias {bias:.5}");
        assert!(counted > PAIRS as i32 / 2);
        assert!(error <= gaussian, "{kind:?}: error {error} against {gaussian} of Gaussian directions");
        assert!(bias.abs() < 0.002, "{kind:?}: bias {bias}");
    }
}
