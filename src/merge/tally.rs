//! Exact sums: a commutative group.
//!
//! Tallies of parts add up to the tally of the whole, whoever computed them, in any order; "without
//! this author" is a subtraction.

/// What one question learns from one group of packets:
///
/// - `count` packets of weight w > 0,
/// - `weight` W = sum w n, in 1/4096 cases,
/// - `squared` V = sum w^2 n,
/// - `sums[c]` S_c = sum w n x_c for each value column c.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub count: u64,
    pub weight: u64,
    pub squared: u64,
    pub sums: Vec<u64>,
}

impl Tally {
    /// The neutral element.
    pub fn zero(columns: usize) -> Tally {
        Tally { sums: vec![0; columns], ..Tally::default() }
    }

    /// The tally of both parts' packets.
    ///
    /// # Panics
    /// If the columns differ or a sum passes u64, which [`crate::limits::TALLY_PACKETS_MAX`] excludes.
    pub fn add(&mut self, other: &Tally) {
        self.combine(other, u64::checked_add);
    }

    /// The tally without the packets of `part`.
    ///
    /// # Panics
    /// If `part` is no part of this tally.
    pub fn subtract(&mut self, part: &Tally) {
        self.combine(part, u64::checked_sub);
    }

    fn combine(&mut self, other: &Tally, operation: fn(u64, u64) -> Option<u64>) {
        assert_eq!(self.sums.len(), other.sums.len(), "tallies of different columns");
        let apply = |a: &mut u64, b: u64| *a = operation(*a, b).expect("a sum within its bounds");
        apply(&mut self.count, other.count);
        apply(&mut self.weight, other.weight);
        apply(&mut self.squared, other.squared);
        for (a, &b) in self.sums.iter_mut().zip(&other.sums) {
            apply(a, b);
        }
    }
}

/// Tallies of many (question, span) pairs as one array: rows of `[count, W, V, S_0, S_1, ...]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tallies {
    columns: usize,
    cells: Vec<u64>,
}

/// Cells of a row before its value sums.
pub const ROW_HEAD: usize = 3;

impl Tallies {
    /// `rows` neutral tallies of `columns` value columns.
    pub fn zero(rows: usize, columns: usize) -> Tallies {
        Tallies { columns, cells: vec![0; rows * (ROW_HEAD + columns)] }
    }

    /// From cells as a kernel leaves them.
    ///
    /// # Panics
    /// If the cells are no whole rows.
    pub fn from_cells(columns: usize, cells: Vec<u64>) -> Tallies {
        assert!(cells.len().is_multiple_of(ROW_HEAD + columns), "whole rows");
        Tallies { columns, cells }
    }

    pub fn rows(&self) -> usize {
        self.cells.len() / self.stride()
    }
    pub fn columns(&self) -> usize {
        self.columns
    }
    /// Cells per row.
    pub fn stride(&self) -> usize {
        ROW_HEAD + self.columns
    }
    pub fn cells(&self) -> &[u64] {
        &self.cells
    }
    pub fn cells_mut(&mut self) -> &mut [u64] {
        &mut self.cells
    }
    /// `[count, W, V, S_0, ...]` of one row.
    pub fn row(&self, row: usize) -> &[u64] {
        &self.cells[row * self.stride()..][..self.stride()]
    }
    /// One row as a tally.
    pub fn tally(&self, row: usize) -> Tally {
        let cells = self.row(row);
        Tally { count: cells[0], weight: cells[1], squared: cells[2], sums: cells[ROW_HEAD..].to_vec() }
    }
}
