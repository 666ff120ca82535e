//! Which code does the CPU's part.

use crate::fingerprint::{self, Fingerprint};
use crate::merge::{self, Job, Tallies};
use ndarray::ArrayView2;

/// Instructions that fingerprints and merges use on the CPU. The bits do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions {
    /// The law itself: plain code, on any processor.
    Scalar,
    /// Plain Rust that the compiler turns into whatever vectors the target has.
    Portable,
    /// 256-bit integer vectors of x86-64.
    Avx2,
}

impl Instructions {
    /// The fastest that this processor has.
    pub fn best() -> Instructions {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            return Instructions::Avx2;
        }
        Instructions::Portable
    }

    /// `scalar`, `portable` or `avx2`.
    pub fn name(self) -> &'static str {
        match self {
            Instructions::Scalar => "scalar",
            Instructions::Portable => "portable",
            Instructions::Avx2 => "avx2",
        }
    }

    pub(super) fn fingerprint(self, embeddings: ArrayView2<i8>, out: &mut [Fingerprint]) {
        match self {
            Instructions::Scalar | Instructions::Portable => fingerprint::cpu::fingerprint(embeddings, out),
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
