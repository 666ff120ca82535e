//! Rows of 128 slots, sixteen side by side: one load takes a pair of slots of several rows, and a sum
//! over slots needs no sum across a register.

use crate::limits::SLOTS;

/// Rows of a group: a register of 16-bit numbers holds one of each.
pub const GROUP: usize = 16;
/// Slots are taken in twos, as vector units multiply and add 16-bit numbers.
pub const PAIRS: usize = SLOTS / 2;

/// Sixteen rows, 2,112 bytes; zeros behind the last.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// `pairs[k][i]`: slots 2k and 2k + 1 of row i.
    pub pairs: [[[i8; 2]; GROUP]; PAIRS],
    /// Squared length of each row, below 2^21.
    pub norms: [u32; GROUP],
}

/// Rows in groups, 132 bytes a row.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    groups: Vec<Group>,
    rows: usize,
}

impl Groups {
    /// Adds rows behind the others.
    pub fn append(&mut self, rows: &[[i8; SLOTS]]) {
        const EMPTY: Group = Group { pairs: [[[0; 2]; GROUP]; PAIRS], norms: [0; GROUP] };
        self.groups.resize((self.rows + rows.len()).div_ceil(GROUP), EMPTY);
        for row in rows {
            self.rows += 1;
            self.set(self.rows - 1, row);
        }
    }

    /// Replaces a row.
    pub fn set(&mut self, row: usize, slots: &[i8; SLOTS]) {
        let group = &mut self.groups[row / GROUP];
        let pairs: &[[i8; 2]] = slots.as_chunks().0;
        for (to, &pair) in group.pairs.iter_mut().zip(pairs) {
            to[row % GROUP] = pair;
        }
        group.norms[row % GROUP] = slots.iter().map(|&slot| i32::from(slot).pow(2)).sum::<i32>() as u32;
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows
    }
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
    /// Group `g` holds rows 16 g to 16 g + 15.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
}

impl Group {
    /// One row again.
    pub fn row(&self, index: usize) -> [i8; SLOTS] {
        let mut slots = [0; SLOTS];
        for (to, pair) in slots.as_chunks_mut().0.iter_mut().zip(&self.pairs) {
            *to = pair[index];
        }
        slots
    }
}
