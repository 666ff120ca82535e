//! Signal -> embedding: the signal under a view's metric, `i8[128]`.
//!
//! embedding = clamp((M s + r) >> shift, -127, 127), r = 0 for shift 0 and 1 << (shift - 1) else,
//! arithmetic shift. Identity costs nothing. [`cpu`] is the law; the shader of the same name equals
//! it bit for bit.

pub mod cpu;
pub mod gpu;

use crate::limits::SLOTS;
use ndarray::ArrayView2;

/// The rows of an n x 128 array as plain arrays, without a copy.
///
/// # Panics
/// If the array has other than 128 columns or does not lie row after row.
pub fn rows<'a>(array: &'a ArrayView2<i8>) -> &'a [[i8; SLOTS]] {
    assert_eq!(array.ncols(), SLOTS, "a row has 128 slots");
    bytemuck::cast_slice(array.as_slice().expect("rows in standard order"))
}
