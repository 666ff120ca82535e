//! Columns -> tallies -> synthesis: the exact merge.
//!
//! For query q and packet p: D = sum (q - p)^2; k = TABLE[min(D >> kernel_shift, 1023)]; gain
//! g = (freshness x trust + 2048) >> 12; w = (k g + 2048) >> 12. A [`tally::Tally`] sums w n, w^2 n
//! and w n x in exact u64. [`cpu`] is the law; [`simd`] and the
//! shader equal it bit for bit.

pub mod answer;
pub mod arena;
pub mod batch;
pub mod columns;
pub mod cpu;
pub mod finish;
pub mod gpu;
pub mod live;
mod quantile;
pub mod simd;
pub mod synthesis;
pub mod tally;
pub mod tile;
pub mod tuning;

pub use answer::{Answer, Estimate, Question, answer};
pub use batch::Batch;
pub use columns::Columns;
pub use cpu::{Job, Span};
pub use live::{Live, lineage_root, live};
pub use synthesis::{Situation, synthesis};
pub use tally::{Tallies, Tally};
pub use tuning::Tuning;

#[cfg(test)]
mod tests;
