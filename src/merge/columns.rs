//! The packets' side of a merge: what stays the same from ask to ask.

use crate::limits::SLOTS;
use ndarray::{Array2, ArrayView2, Axis};
use std::sync::atomic::{AtomicU64, Ordering};

/// Packets as columns. Built once, read by many merges, and only ever appended to, so that whoever
/// keeps a copy elsewhere (a GPU) knows by [`Columns::id`] and [`Columns::len`] what it has.
#[derive(Debug)]
pub struct Columns {
    id: u64,
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
        Columns {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            embeddings: Array2::zeros((0, SLOTS)),
            cases: vec![],
            values: Array2::zeros((0, value_columns)),
        }
    }

    /// Adds packets behind the others; shapes as in [`Columns::new`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn append(&mut self, embeddings: ArrayView2<i8>, cases: &[u16], values: ArrayView2<u16>) {
        assert_eq!(embeddings.nrows(), cases.len(), "one number of cases per packet");
        assert_eq!(embeddings.nrows(), values.nrows(), "one row of values per packet");
        self.embeddings.append(Axis(0), embeddings).expect("128 slots per packet");
        self.values.append(Axis(0), values).expect("as many value columns as before");
        self.cases.extend_from_slice(cases);
    }

    /// Unique within the process: equal ids and lengths mean equal rows.
    pub fn id(&self) -> u64 {
        self.id
    }
    /// Packets.
    pub fn len(&self) -> usize {
        self.cases.len()
    }
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }
    /// Packets x 128.
    pub fn embeddings(&self) -> ArrayView2<'_, i8> {
        self.embeddings.view()
    }
    /// Cases per packet.
    pub fn cases(&self) -> &[u16] {
        &self.cases
    }
    /// Packets x value columns.
    pub fn values(&self) -> ArrayView2<'_, u16> {
        self.values.view()
    }
}

impl Clone for Columns {
    /// The copy has an id of its own, since the two may be appended to apart.
    fn clone(&self) -> Columns {
        Columns {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            embeddings: self.embeddings.clone(),
            cases: self.cases.clone(),
            values: self.values.clone(),
        }
    }
}
