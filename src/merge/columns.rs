//! The packets' side of a merge: what stays the same from ask to ask.

use crate::limits::SLOTS;
use ndarray::{Array2, ArrayView2, Axis};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Packets as columns. Built once, read by many merges, and only ever appended to, so that whoever
/// keeps a copy elsewhere (a GPU) knows by [`Columns::id`] and [`Columns::len`] what it has.
///
/// A clone shares the rows, at no cost, until one of the two is appended to.
#[derive(Clone, Debug)]
pub struct Columns {
    id: u64,
    rows: Arc<Rows>,
}

#[derive(Clone, Debug)]
struct Rows {
    embeddings: Array2<i8>,
    cases: Vec<u16>,
    values: Array2<u16>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Columns {
    /// `embeddings` packets x 128, i8 in [-127, 127]; `cases` 1..=4,095 per packet; `values` packets x
    /// value columns.
    ///
    /// # Panics
    /// If the numbers of rows differ.
    pub fn new(embeddings: Array2<i8>, cases: Vec<u16>, values: Array2<u16>) -> Columns {
        let mut columns = Columns::empty(values.ncols());
        columns.append(embeddings.view(), &cases, values.view());
        columns
    }

    /// No packets yet, with so many value columns.
    pub fn empty(value_columns: usize) -> Columns {
        let rows = Rows {
            embeddings: Array2::zeros((0, SLOTS)),
            cases: vec![],
            values: Array2::zeros((0, value_columns)),
        };
        Columns { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), rows: Arc::new(rows) }
    }

    /// Adds packets behind the others; shapes as in [`Columns::new`]. Where a clone shares the rows,
    /// they are copied first and have a new id, since the two go apart.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn append(&mut self, embeddings: ArrayView2<i8>, cases: &[u16], values: ArrayView2<u16>) {
        assert_eq!(embeddings.nrows(), cases.len(), "one number of cases per packet");
        assert_eq!(embeddings.nrows(), values.nrows(), "one row of values per packet");
        if Arc::get_mut(&mut self.rows).is_none() {
            self.id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        }
        let rows = Arc::make_mut(&mut self.rows);
        rows.embeddings.append(Axis(0), embeddings).expect("128 slots per packet");
        rows.values.append(Axis(0), values).expect("as many value columns as before");
        rows.cases.extend_from_slice(cases);
    }

    /// Unique within the process: equal ids and lengths mean equal rows.
    pub fn id(&self) -> u64 {
        self.id
    }
    /// Packets.
    pub fn len(&self) -> usize {
        self.rows.cases.len()
    }
    pub fn is_empty(&self) -> bool {
        self.rows.cases.is_empty()
    }
    /// Packets x 128.
    pub fn embeddings(&self) -> ArrayView2<'_, i8> {
        self.rows.embeddings.view()
    }
    /// Cases per packet.
    pub fn cases(&self) -> &[u16] {
        &self.rows.cases
    }
    /// Packets x value columns.
    pub fn values(&self) -> ArrayView2<'_, u16> {
        self.rows.values.view()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize, slot: i8) -> Columns {
        let embeddings = Array2::from_elem((count, SLOTS), slot);
        Columns::new(embeddings, vec![1; count], Array2::zeros((count, 2)))
    }

    /// What a copy elsewhere rests on: an id never stands for two contents of one length.
    #[test]
    fn clones_that_go_apart_have_different_ids() {
        let more = rows(2, 9);
        let mut one = rows(3, 1);
        let (id, clone) = (one.id(), one.clone());
        assert_eq!(clone.id(), id);
        one.append(more.embeddings(), more.cases(), more.values());
        assert_ne!(one.id(), id);
        assert_eq!((one.len(), clone.len(), clone.id()), (5, 3, id));
        let id = one.id();
        one.append(more.embeddings(), more.cases(), more.values());
        assert_eq!((one.id(), one.len()), (id, 7), "nobody else has the rows");
    }
}
