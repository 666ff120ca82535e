//! The packets' side of a merge: what stays the same from ask to ask.

use super::groups::{GROUP, Groups};
use super::reach::Balls;
use crate::embed::rows;
use crate::limits::SLOTS;
use ndarray::{Array2, ArrayView2, Axis};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Packets as columns. Built once, read by many merges, and only ever appended to, so that whoever
/// keeps a copy elsewhere (a GPU) knows by [`Columns::id`] and [`Columns::len`] what it has.
///
/// Embeddings and values are kept twice: row after row, and as the CPU's vector units read them. A
/// packet takes 271 bytes and 4 for each value column: 303 bytes with four outcomes.
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
    /// Filled up with 1 to whole groups.
    cases: Vec<u16>,
    cases_max: u16,
    values: Array2<u16>,
    groups: Groups,
    balls: Balls,
    /// Values less 32,768: for each group its value columns one after the other; -32,768 behind the
    /// last packet.
    planes: Vec<[i16; GROUP]>,
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
            cases_max: 0,
            values: Array2::zeros((0, value_columns)),
            groups: Groups::default(),
            balls: Balls::default(),
            planes: vec![],
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
        Arc::make_mut(&mut self.rows).append(embeddings, cases, values);
    }

    /// Unique within the process: equal ids and lengths mean equal rows.
    pub fn id(&self) -> u64 {
        self.id
    }
    /// Packets.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes of memory per packet, about.
    pub fn row_bytes(&self) -> usize {
        271 + 4 * self.rows.values.ncols()
    }
    /// Packets x 128.
    pub fn embeddings(&self) -> ArrayView2<'_, i8> {
        self.rows.embeddings.view()
    }
    /// Cases per packet.
    pub fn cases(&self) -> &[u16] {
        &self.rows.cases[..self.len()]
    }
    /// The largest number of cases of a packet.
    pub fn cases_max(&self) -> u16 {
        self.rows.cases_max
    }
    /// Packets x value columns.
    pub fn values(&self) -> ArrayView2<'_, u16> {
        self.rows.values.view()
    }
    /// The embeddings, sixteen side by side.
    pub fn groups(&self) -> &Groups {
        &self.rows.groups
    }
    /// Around each group.
    pub fn balls(&self) -> &Balls {
        &self.rows.balls
    }
    /// Values less 32,768, as groups x value columns x 16.
    pub fn planes(&self) -> &[[i16; GROUP]] {
        &self.rows.planes
    }
    /// Cases as groups x 16; 1 behind the last packet.
    pub fn grouped_cases(&self) -> &[[u16; GROUP]] {
        self.rows.cases.as_chunks().0
    }
}

impl Rows {
    fn len(&self) -> usize {
        self.embeddings.nrows()
    }

    fn append(&mut self, embeddings: ArrayView2<i8>, cases: &[u16], values: ArrayView2<u16>) {
        let before = self.len();
        self.embeddings.append(Axis(0), embeddings).expect("128 slots per packet");
        self.values.append(Axis(0), values).expect("as many value columns as before");
        let packets = self.len();
        let groups = packets.div_ceil(GROUP);
        self.cases.truncate(before);
        self.cases.extend_from_slice(cases);
        self.cases.resize(groups * GROUP, 1);
        self.cases_max = cases.iter().copied().fold(self.cases_max, u16::max);

        let embeddings = self.embeddings.view();
        let all = rows(&embeddings);
        self.groups.append(&all[before..]);
        self.balls.append(all, before);
        let columns = self.values.ncols();
        self.planes.resize(groups * columns, [i16::MIN; GROUP]);
        for packet in before..packets {
            let planes = &mut self.planes[packet / GROUP * columns..][..columns];
            for (plane, &value) in planes.iter_mut().zip(self.values.row(packet)) {
                plane[packet % GROUP] = (value ^ 0x8000) as i16;
            }
        }
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
