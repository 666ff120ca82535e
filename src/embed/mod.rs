//! Signal -> embedding: the signal under a view's metric, `i8[128]`.
//!
//! embedding = clamp((M s + r) >> shift, -127, 127), r = 0 for shift 0 and 1 << (shift - 1) else,
//! arithmetic shift. Identity costs nothing. [`cpu`] is the law; [`lanes`], [`simd`] and the shader of
//! the law's name equal it bit for bit.

pub mod cpu;
pub mod gpu;
pub mod lanes;
pub mod simd;

use crate::domain::Metric;
use crate::limits::SLOTS;
use ndarray::{ArrayView2, ArrayViewMut2};

/// The rows of an n x 128 array as plain arrays, without a copy.
///
/// # Panics
/// If the array has other than 128 columns or does not lie row after row.
pub fn rows<'a>(array: &'a ArrayView2<i8>) -> &'a [[i8; SLOTS]] {
    assert_eq!(array.ncols(), SLOTS, "a row has 128 slots");
    bytemuck::cast_slice(array.as_slice().expect("rows in standard order"))
}

/// r: what is added before the shift, so that it rounds half up.
fn rounding(shift: u8) -> i32 {
    if shift == 0 { 0 } else { 1 << (shift - 1) }
}

/// The rows of `out` as plain arrays, after a check of everything that the kernels rely on.
///
/// # Panics
/// If the shapes differ or the metric is not sound.
fn rows_mut<'a>(
    metric: &Metric,
    signals: &ArrayView2<i8>,
    out: &'a mut ArrayViewMut2<i8>,
) -> &'a mut [[i8; SLOTS]] {
    assert_eq!(signals.dim(), out.dim(), "one embedding per signal");
    assert_eq!(signals.ncols(), SLOTS, "a signal has 128 slots");
    assert!(metric.is_sound(), "a metric of the wrong size");
    bytemuck::cast_slice_mut(out.as_slice_mut().expect("rows in standard order"))
}
