//! Changes to the tables that will be made together or not at all.

use super::damage::Place;
use super::layout::{Head, Sum, TABLES, parse_packet_key};
use super::tables::{Table, Tables};
use crate::store::StoreError;
use fjall::{Slice, Snapshot};
use std::collections::HashMap;

/// Changes on their way into one commit; reads see them already.
pub struct Change<'a> {
    tables: &'a Tables,
    snapshot: Snapshot,
    cells: Vec<Cell>,
    /// Where in `cells` a key of a table is.
    places: [HashMap<Slice, usize>; TABLES],
}

/// One key that was looked up or will change.
struct Cell {
    table: Table,
    key: Slice,
    /// What the key holds in the database, where it was looked up or is known.
    before: Option<Slice>,
    /// What it will hold.
    after: Option<Slice>,
}

impl<'a> Change<'a> {
    pub fn new(tables: &'a Tables) -> Change<'a> {
        Change { tables, snapshot: tables.snapshot(), cells: Vec::new(), places: Default::default() }
    }

    /// The cell of a key, made from what `before` knows the key to hold if there is none yet.
    fn cell<E>(
        &mut self,
        table: Table,
        key: &[u8],
        before: impl FnOnce(&Tables, &Snapshot) -> Result<Option<Slice>, E>,
    ) -> Result<&mut Cell, E> {
        let place = match self.places[table as usize].get(key) {
            Some(&place) => place,
            None => {
                let before = before(self.tables, &self.snapshot)?;
                let key = Slice::from(key);
                self.places[table as usize].insert(key.clone(), self.cells.len());
                self.cells.push(Cell { table, key, after: before.clone(), before });
                self.cells.len() - 1
            }
        };
        Ok(&mut self.cells[place])
    }

    fn looked_up(&mut self, table: Table, key: &[u8]) -> Result<&mut Cell, fjall::Error> {
        self.cell(table, key, |tables, snapshot| tables.get(snapshot, table, key))
    }

    fn known(&mut self, table: Table, key: &[u8], before: Option<Slice>) -> &mut Cell {
        let Ok(cell) = self.cell(table, key, |_, _| Ok::<_, std::convert::Infallible>(before));
        cell
    }

    /// # Errors
    /// Unreadable files.
    pub fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, fjall::Error> {
        Ok(self.looked_up(table, key)?.after.as_deref())
    }

    /// Like [`Change::get`], decoded; an entry that does not decode is damage.
    ///
    /// # Errors
    /// Unreadable files.
    pub fn read<T>(
        &mut self,
        table: Table,
        key: &[u8],
        decode: fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let tables = self.tables;
        let value = self.get(table, key).map_err(|e| tables.error(e))?;
        value.map(|value| decode(value).ok_or_else(|| tables.damaged(table))).transpose()
    }

    /// # Errors
    /// Unreadable files: what was there before is read for the head.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let tables = self.tables;
        self.looked_up(table, key).map_err(|e| tables.error(e))?.after = Some(value.into());
        Ok(())
    }

    /// # Errors
    /// As for [`Change::put`].
    pub fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        let tables = self.tables;
        self.looked_up(table, key).map_err(|e| tables.error(e))?.after = None;
        Ok(())
    }

    /// Writes under a key that holds nothing, which is not looked up.
    pub fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.known(table, key, None).after = Some(value.into());
    }

    /// Removes a packet's record without reading it: it may be damaged.
    pub fn remove_record(&mut self, key: &[u8]) {
        self.known(Table::Packets, key, Some(Slice::empty())).after = None;
    }

    pub fn error(&self, error: fjall::Error) -> StoreError {
        self.tables.error(error)
    }

    /// Places of the packets that will go.
    pub fn removed_records(&self) -> Vec<Place> {
        let gone = self.cells.iter().filter(|cell| cell.before.is_some() && cell.after.is_none());
        let records = gone.filter(|cell| cell.table == Table::Packets);
        records.filter_map(|cell| parse_packet_key(&cell.key)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.cells.iter().all(|cell| cell.before == cell.after)
    }

    /// Writes all changes and the head that follows `head` as one batch, and syncs. Returns the new
    /// head.
    ///
    /// # Errors
    /// Nothing is acknowledged then; whether the batch is on disk shows when the store is opened.
    pub fn commit(mut self, head: &Head) -> Result<Head, StoreError> {
        let tables = self.tables;
        let mut head = Head { commits: head.commits + 1, ..*head };
        self.cells.retain(|cell| cell.before != cell.after);
        // Neighbours one after the other: the database walks a shorter way from one to the next.
        self.cells.sort_unstable_by(|a, b| (a.table, &a.key[..]).cmp(&(b.table, &b.key[..])));
        let mut batch = tables.batch(self.cells.len() + 1);
        for Cell { table, key, before, after } in self.cells {
            let number = table as usize;
            let sum = &mut head.sums[number];
            if let Some(before) = before {
                sum.remove(Sum::entry(number, &key, &before));
            }
            match after {
                Some(after) => {
                    sum.add(Sum::entry(number, &key, &after));
                    batch.insert(tables.space(table), key, after);
                }
                None => batch.remove(tables.space(table), key),
            }
        }
        batch.insert(tables.head_space(), "head", head.write());
        batch.commit().map_err(|e| tables.error(e))?;
        Ok(head)
    }
}
