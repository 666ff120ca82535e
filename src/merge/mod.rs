//! Columns -> tallies -> synthesis: the exact merge.
//!
//! For query q and packet p: D = sum (q - p)^2; k = TABLE[min(D >> kernel_shift, 1023)]; gain
//! g = (freshness x trust + 2048) >> 12; w = (k g + 2048) >> 12. A [`tally::Tally`] sums w n, w^2 n
//! and w n x in exact u64. [`cpu`] is the law; [`simd`], [`lanes`] and the
//! shader equal it bit for bit. [`live`](mod@live) and [`batch`] say what packets count and lay them out;
//! [`warm`] keeps both from ask to ask, with the same answers.

pub mod answer;
pub mod arena;
pub mod batch;
mod block;
pub mod columns;
pub mod cpu;
pub mod finish;
pub mod gpu;
pub mod groups;
pub mod lanes;
pub mod live;
pub mod quantile;
pub mod reach;
pub mod simd;
mod stretch;
pub mod synthesis;
pub mod tally;
pub mod tile;
pub mod tuning;
pub mod warm;

pub use answer::{Answer, Asking, Estimate, Question, answer};
pub use batch::Batch;
pub use columns::Columns;
pub use cpu::{Job, Span};
pub use live::{Live, lineage_root, live};
pub use stretch::is_small;
pub use synthesis::{Situation, synthesis};
pub use tally::{Tallies, Tally};
pub use tuning::Tuning;
pub use warm::Warm;

#[cfg(test)]
mod equality;
#[cfg(test)]
mod tests;
