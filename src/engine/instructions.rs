//! Which code does the CPU's part.

use crate::domain::Metric;
use crate::embed;
use crate::fingerprint::{self, Fingerprint};
use crate::merge::{self, Job, Tallies};
use ndarray::{ArrayView2, ArrayViewMut2};

/// Instructions that embeddings, fingerprints and merges use on the CPU. The bits do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions {
    /// The law itself: plain code, on any processor.
    Scalar,
    /// Plain code in the shape of vectors, on any processor: the compiler chooses the instructions.
    Portable,
    /// 256-bit integer vectors of x86-64.
    Avx2,
}

impl Instructions {
    /// The fastest that this processor has.
    pub fn best() -> Instructions {
        *Instructions::available().last().expect("plain code runs anywhere")
    }

    /// All that this processor has, the law first and the fastest last.
    pub fn available() -> Vec<Instructions> {
        let mut available = vec![Instructions::Scalar, Instructions::Portable];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            available.push(Instructions::Avx2);
        }
        available
    }

    /// `scalar`, `portable` or `avx2`.
    pub fn name(self) -> &'static str {
        match self {
            Instructions::Scalar => "scalar",
            Instructions::Portable => "portable",
            Instructions::Avx2 => "avx2",
        }
    }

    /// Embeds n x 128 signals under a metric.
    pub fn embed(self, metric: &Metric, signals: ArrayView2<i8>, out: ArrayViewMut2<i8>) {
        match self {
            Instructions::Scalar => embed::cpu::embed(metric, signals, out),
            Instructions::Portable => embed::lanes::embed(metric, signals, out),
            Instructions::Avx2 => embed::simd::embed(metric, signals, out),
        }
    }

    pub(super) fn fingerprint(self, embeddings: ArrayView2<i8>, out: &mut [Fingerprint]) {
        match self {
            Instructions::Scalar => fingerprint::cpu::fingerprint(embeddings, out),
            Instructions::Portable => fingerprint::lanes::fingerprint(embeddings, out),
            Instructions::Avx2 => fingerprint::simd::fingerprint(embeddings, out),
        }
    }

    /// Whether a merge needs no thread but the one that asks.
    pub(super) fn merges_at_once(self, job: &Job) -> bool {
        self != Instructions::Scalar && merge::is_small(job)
    }

    pub(super) fn merge(self, job: &Job) -> Tallies {
        match self {
            Instructions::Scalar => merge::cpu::merge(job),
            Instructions::Portable => merge::lanes::merge(job),
            Instructions::Avx2 => merge::simd::merge(job),
        }
    }
}
