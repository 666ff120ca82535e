//! Merges in plain Rust that compilers turn into whatever vectors a processor has: for those without
//! AVX2, equal to [`super::cpu::merge`] bit for bit.
//!
//! Packets are widened to 16 bits once for many questions, so that a distance is one sum of products,
//! and sums run along sixteen packets instead of along a packet's columns.

use super::block::{self, Factors, Row, Shared, Unit};
use super::cpu::Job;
use super::groups::GROUP;
use super::tally::{ROW_HEAD, Tallies};
use crate::limits::{KERNEL_ENTRIES, SLOTS};
use std::ops::Range;

/// As [`super::cpu::merge`].
///
/// # Panics
/// If the job's shapes do not fit ([`Job::check`]).
pub fn merge(job: &Job) -> Tallies {
    block::merge(Lanes, job)
}

#[derive(Clone, Copy)]
struct Lanes;

impl Unit for Lanes {
    fn distances(self, shared: &Shared, questions: Range<usize>, group: usize, out: &mut [[u32; GROUP]]) {
        let group = &shared.columns.balls().centres().groups()[group];
        for index in 0..GROUP {
            let centre = group.row(index).map(i16::from);
            for (question, out) in questions.clone().zip(out.iter_mut()) {
                out[index] = distance(shared, question, &centre, group.norms[index]);
            }
        }
    }

    fn indices(
        self,
        shared: &Shared,
        first: usize,
        near: &[u16],
        group: usize,
        rows: &mut [Row],
        place: usize,
    ) {
        let norms = &shared.columns.groups().groups()[group].norms;
        let packets = shared.embeddings.chunks(GROUP).nth(group).unwrap_or_default();
        for (index, packet) in packets.iter().enumerate() {
            let packet = packet.map(i16::from);
            for &question in near {
                let question = usize::from(question);
                let distance = distance(shared, first + question, &packet, norms[index]);
                let last = KERNEL_ENTRIES as u32 - 1;
                rows[question][place][index] = (distance >> shared.job.kernel.shift).min(last) as u16;
            }
        }
    }

    fn weigh(self, shared: &Shared, gains: &[[i16; GROUP]], row: &mut Row) -> bool {
        let mut any = 0;
        for (lanes, gains) in row.iter_mut().zip(gains) {
            if lanes.iter().all(|&index| index >= shared.support) {
                *lanes = [0; GROUP];
                continue;
            }
            for (lane, &gain) in lanes.iter_mut().zip(gains) {
                let kernel = i32::from(shared.table[usize::from(*lane) % KERNEL_ENTRIES]);
                // (2k * 4g + 2^14) >> 15 = (k g + 2048) >> 12.
                *lane = ((kernel * i32::from(gain) + (1 << 14)) >> 15) as u16;
                any |= *lane;
            }
        }
        any != 0
    }

    fn sum(self, factors: &Factors, weights: &[[u16; GROUP]], cells: &mut [u64]) {
        let (head, sums) = cells.split_at_mut(ROW_HEAD);
        let mut all = 0;
        for (index, lanes) in weights.iter().enumerate() {
            let w = lanes.map(|w| w as i16);
            head[0] += lanes.iter().map(|&w| u64::from(w != 0)).sum::<u64>();
            let weight = lanes.iter().map(|&w| u64::from(w)).sum::<u64>();
            all += weight;
            match &factors.several {
                None => {
                    head[1] += weight;
                    head[2] += products(&w, &w) as u64;
                }
                Some(several) => {
                    let cases = &several.cases[index];
                    head[1] += products(&w, &cases.map(|n| n as i16)) as u64;
                    for (&w, &n) in lanes.iter().zip(cases) {
                        head[2] += u64::from(u32::from(w) * u32::from(w)) * u64::from(n);
                    }
                }
            }
            let low = &factors.low[index * factors.columns..][..factors.columns];
            for (sum, plane) in sums.iter_mut().zip(low) {
                *sum = sum.wrapping_add(i64::from(products(&w, plane)) as u64);
            }
            if let Some(several) = &factors.several {
                let high = &several.high[index * factors.columns..][..factors.columns];
                for (sum, plane) in sums.iter_mut().zip(high) {
                    *sum = sum.wrapping_add((i64::from(products(&w, plane)) as u64) << 16);
                }
            }
        }
        // The 32,768 that each value lacks.
        sums.iter_mut().for_each(|sum| *sum = sum.wrapping_add(all << 15));
    }
}

/// D = |q|^2 + |p|^2 + (-2 q) p.
#[inline]
fn distance(shared: &Shared, question: usize, packet: &[i16; SLOTS], norm: u32) -> u32 {
    let slots = shared.questions[question].pairs.as_flattened();
    let product = slots.iter().zip(packet).map(|(&q, &p)| i32::from(q) * i32::from(p)).sum::<i32>();
    (shared.norms[question] + norm).wrapping_add_signed(product)
}

/// Sixteen weights of at most 2^12 times numbers of 16 bits: within [-2^31, 2^31).
#[inline]
fn products(w: &[i16; GROUP], x: &[i16; GROUP]) -> i32 {
    w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
}
