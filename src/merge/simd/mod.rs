//! Merges with 256-bit vectors, equal to [`super::cpu::merge`] bit for bit.

#[cfg(target_arch = "x86_64")]
mod avx2;

use super::cpu::Job;
use super::tally::Tallies;

/// As [`super::cpu::merge`]; [`super::lanes::merge`] does the work where the processor has no AVX2.
///
/// # Panics
/// If the job's shapes do not fit ([`Job::check`]).
pub fn merge(job: &Job) -> Tallies {
    #[cfg(target_arch = "x86_64")]
    if let Some(unit) = avx2::Avx2::detect() {
        return super::block::merge(unit, job);
    }
    super::lanes::merge(job)
}
