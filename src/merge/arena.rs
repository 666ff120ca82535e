//! Which packets are on the device, and where.
//!
//! All columns share one set of large buffers, so that one dispatch reads packets of any mailboxes.
//! Columns are cut into windows; each has a range of its own, grows by what was appended, and is
//! evicted when it was not asked for the longest and room is needed.

use super::columns::Columns;
use crate::gpu::{Gpu, GpuError, Resident, Write};
use crate::limits::SLOTS;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// Most packets of a window: one question over a window is the shortest dispatch there is.
pub const WINDOW_PACKETS_MAX: usize = 1 << 19;
/// Value columns that lie side by side as one unit.
pub const GROUP_COLUMNS: usize = 4;
/// Ranges begin and end at multiples of this.
const PACKETS_STEP: usize = 64;
/// Packets of the first set of buffers.
const PACKETS_FIRST: usize = 1 << 14;
/// Bytes per packet of embeddings, of facts (norm, cases), of gains; bytes per group of values.
const SLOT_BYTES: usize = SLOTS;
const FACT_BYTES: usize = 8;
const GAIN_BYTES: usize = 2;
const GROUP_BYTES: usize = 2 * GROUP_COLUMNS;

/// Groups of values per packet: one at least, so that every binding has something in it.
pub fn groups(columns: usize) -> usize {
    columns.div_ceil(GROUP_COLUMNS).max(1)
}

/// The buffers, in the order of the shader's bindings.
pub struct Buffers {
    pub embeddings: Resident,
    pub facts: Resident,
    pub gains: Resident,
    pub values: Resident,
}

/// Which of the buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Embeddings,
    Facts,
    Gains,
    Values,
}

/// Bytes that must be on the device before the next dispatch.
struct Pending<'a> {
    target: Target,
    offset: usize,
    bytes: Cow<'a, [u8]>,
}

/// One window of one set of columns.
struct Entry {
    packets: Range<usize>,
    groups: Range<usize>,
    /// Packets of the window that are there.
    len: usize,
    /// Gains that are there.
    gains: Vec<u16>,
    /// When it was last asked for.
    used: u64,
    /// Read by a dispatch that is not yet submitted.
    pinned: bool,
}

/// Room for a window: packets, and groups of values.
type Room = (Range<usize>, Range<usize>);

/// First packet and first group of values of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub packet: usize,
    pub group: usize,
}

/// What happened to the arena so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Residency {
    /// Packets on the device.
    pub packets: usize,
    /// Windows on the device.
    pub windows: usize,
    /// Windows that had to make room.
    pub evicted: u64,
    /// Packets that were uploaded, each time counted.
    pub uploaded: u64,
}

/// The device's packets.
pub struct Arena<'s, 'a> {
    state: &'s mut State,
    pending: Vec<Pending<'a>>,
}

/// What lives on between merges.
pub struct State {
    buffers: Option<Buffers>,
    packets: Ranges,
    groups: Ranges,
    /// What windows are cut by: they must stay what they were when the first was placed.
    packets_max: usize,
    groups_max: usize,
    /// By columns and window.
    entries: HashMap<(u64, usize), Entry>,
    clock: u64,
    residency: Residency,
}

impl State {
    /// Nothing yet; at most `bytes_max` of embeddings and as much of values.
    pub fn new(bytes_max: u64) -> State {
        let packets_max = (bytes_max as usize / SLOT_BYTES) & !(PACKETS_STEP - 1);
        let groups_max = bytes_max as usize / GROUP_BYTES;
        State {
            buffers: None,
            packets: Ranges::new(0, packets_max),
            groups: Ranges::new(0, groups_max),
            packets_max,
            groups_max,
            entries: HashMap::new(),
            clock: 0,
            residency: Residency::default(),
        }
    }

    /// Forgets everything, as after the device was lost.
    pub fn clear(&mut self) {
        self.buffers = None;
        self.entries.clear();
        self.packets = Ranges::new(0, self.packets_max);
        self.groups = Ranges::new(0, self.groups_max);
    }

    pub fn residency(&self) -> Residency {
        Residency {
            packets: self.entries.values().map(|entry| entry.len).sum(),
            windows: self.entries.len(),
            ..self.residency
        }
    }

    /// Whether every packet of these columns is on the device.
    pub fn holds(&self, columns: &Columns) -> bool {
        let step = self.window(groups(columns.values().ncols()));
        let windows = columns.len().div_ceil(step);
        (0..windows).all(|window| {
            let packets = columns.len().min((window + 1) * step) - window * step;
            self.entries.get(&(columns.id(), window)).is_some_and(|entry| entry.len == packets)
        })
    }

    /// Packets of a window of columns with so many groups of values.
    pub fn window(&self, groups: usize) -> usize {
        let most = (self.packets_max / 2).min(self.groups_max / (2 * groups));
        (most & !(PACKETS_STEP - 1)).clamp(PACKETS_STEP, WINDOW_PACKETS_MAX)
    }
}

impl<'s, 'a> Arena<'s, 'a> {
    pub fn new(state: &'s mut State) -> Arena<'s, 'a> {
        state.entries.values_mut().for_each(|entry| entry.pinned = false);
        Arena { state, pending: Vec::new() }
    }

    pub fn window(&self, groups: usize) -> usize {
        self.state.window(groups)
    }

    pub fn buffers(&self) -> &Buffers {
        self.state.buffers.as_ref().expect("something was placed")
    }

    /// Sees to it that a window's packets and gains are on the device before the next dispatch; `None`
    /// where there is no room, or other gains are in use, until what was placed has been dispatched.
    /// Without gains those that are there stay.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn place(
        &mut self,
        gpu: &Gpu,
        columns: &'a Columns,
        window: usize,
        gains: Option<&[u16]>,
    ) -> Result<Option<Place>, GpuError> {
        let groups = groups(columns.values().ncols());
        let step = self.window(groups);
        let range = window * step..columns.len().min((window + 1) * step);
        let gains = gains.map(|gains| &gains[range.clone()]);
        let key = (columns.id(), window);
        self.state.clock += 1;
        let known = self.state.entries.get(&key);
        let differ = |entry: &Entry| gains.is_some_and(|gains| entry.gains != gains);
        if known.is_some_and(|entry| entry.pinned && differ(entry)) {
            return Ok(None);
        }
        let fits = known.is_some_and(|entry| entry.packets.len() >= range.len());
        if !fits {
            // Whoever has outgrown its place will grow again.
            let spare = if known.is_some() { range.len() / 2 } else { 0 };
            if known.is_some_and(|entry| entry.pinned) {
                return Ok(None);
            }
            self.state.remove(key);
            let capacity = (range.len() + spare).next_multiple_of(PACKETS_STEP).min(step);
            let Some((packets, groups)) = self.find_room(gpu, capacity, groups)? else { return Ok(None) };
            let entry = Entry { packets, groups, len: 0, gains: vec![], used: 0, pinned: false };
            self.state.entries.insert(key, entry);
        }
        let entry = self.state.entries.get_mut(&key).expect("found or just inserted");
        entry.used = self.state.clock;
        entry.pinned = true;
        let new = range.start + entry.len..range.end;
        self.state.residency.uploaded += new.len() as u64;
        let place = Place { packet: entry.packets.start, group: entry.groups.start };
        let first = place.packet + entry.len;
        let first_group = place.group + entry.len * groups;
        entry.len = range.len();
        if let Some(gains) = gains.filter(|gains| entry.gains != *gains) {
            entry.gains.clear();
            entry.gains.extend_from_slice(gains);
            let mut padded = gains.to_vec();
            padded.resize(gains.len().next_multiple_of(2), 0);
            let bytes = Cow::Owned(bytemuck::cast_slice(&padded).to_vec());
            self.pending.push(Pending { target: Target::Gains, offset: place.packet * GAIN_BYTES, bytes });
        }
        if !new.is_empty() {
            self.upload(columns, new, first, first_group, groups);
        }
        Ok(Some(place))
    }

    fn upload(
        &mut self,
        columns: &'a Columns,
        new: Range<usize>,
        first: usize,
        first_group: usize,
        groups: usize,
    ) {
        let embeddings = columns.embeddings().to_slice().expect("rows in standard order");
        let embeddings: &'a [[i8; SLOTS]] = bytemuck::cast_slice(embeddings);
        let norm = |slots: &[i8; SLOTS]| slots.iter().map(|&slot| i32::from(slot).pow(2)).sum::<i32>() as u32;
        let facts: Vec<[u32; 2]> = embeddings[new.clone()]
            .iter()
            .zip(&columns.cases()[new.clone()])
            .map(|(slots, &cases)| [norm(slots), u32::from(cases)])
            .collect();
        let values = columns.values().to_slice().expect("rows in standard order");
        let count = columns.values().ncols();
        let values = &values[new.start * count..new.end * count];
        let values: Cow<'a, [u8]> = if count == groups * GROUP_COLUMNS {
            Cow::Borrowed(bytemuck::cast_slice(values))
        } else {
            let mut padded = vec![0u16; new.len() * groups * GROUP_COLUMNS];
            if count > 0 {
                let rows = padded.chunks_exact_mut(groups * GROUP_COLUMNS).zip(values.chunks_exact(count));
                rows.for_each(|(padded, row)| padded[..count].copy_from_slice(row));
            }
            Cow::Owned(bytemuck::cast_slice(&padded).to_vec())
        };
        let embeddings = Cow::Borrowed(bytemuck::cast_slice(&embeddings[new]));
        let facts = Cow::Owned(bytemuck::cast_slice(&facts).to_vec());
        self.pending.extend([
            Pending { target: Target::Embeddings, offset: first * SLOT_BYTES, bytes: embeddings },
            Pending { target: Target::Facts, offset: first * FACT_BYTES, bytes: facts },
            Pending { target: Target::Values, offset: first_group * GROUP_BYTES, bytes: values },
        ]);
    }

    /// Bytes that wait to be uploaded.
    pub fn pending_bytes(&self) -> u64 {
        self.pending.iter().map(|pending| pending.bytes.len() as u64).sum()
    }

    /// Hands what waits to `work`, after which it counts as uploaded and nothing is in use.
    pub fn flush<T>(&mut self, work: impl FnOnce(&Buffers, &[Write]) -> T) -> T {
        let buffers = self.state.buffers.as_ref().expect("something was placed");
        let writes: Vec<Write> = self
            .pending
            .iter()
            .map(|pending| {
                let target = match pending.target {
                    Target::Embeddings => &buffers.embeddings,
                    Target::Facts => &buffers.facts,
                    Target::Gains => &buffers.gains,
                    Target::Values => &buffers.values,
                };
                Write { target, offset: pending.offset as u64, bytes: &pending.bytes }
            })
            .collect();
        let result = work(buffers, &writes);
        self.pending.clear();
        result
    }

    /// What was placed so far may move again.
    pub fn unpin(&mut self) {
        self.state.entries.values_mut().for_each(|entry| entry.pinned = false);
    }

    /// Room for so many packets with so many groups each: free, by larger buffers, or by eviction.
    /// `None` where it takes a dispatch of what was placed first.
    fn find_room(&mut self, gpu: &Gpu, packets: usize, groups: usize) -> Result<Option<Room>, GpuError> {
        let state = &mut *self.state;
        loop {
            let room = state.packets.take(packets);
            if let Some(range) = &room {
                match state.groups.take(packets * groups) {
                    Some(values) => return Ok(Some((range.clone(), values))),
                    None => state.packets.give_back(range.clone()),
                }
            }
            let short = if room.is_none() { &state.packets } else { &state.groups };
            let can_grow = short.size < short.most;
            // Larger buffers begin empty, so nothing that was placed may be waiting.
            let in_use = state.entries.values().any(|entry| entry.pinned);
            if can_grow && in_use {
                return Ok(None);
            }
            if can_grow && state.grow(gpu, packets, groups, room.is_none())? {
                continue;
            }
            let free = state.entries.iter().filter(|(_, entry)| !entry.pinned);
            match free.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key) {
                Some(oldest) => {
                    state.remove(oldest);
                    state.residency.evicted += 1;
                }
                None if in_use => return Ok(None),
                None => return Err(GpuError::OutOfMemory),
            }
        }
    }
}

impl State {
    fn remove(&mut self, key: (u64, usize)) {
        if let Some(entry) = self.entries.remove(&key) {
            self.packets.give_back(entry.packets);
            self.groups.give_back(entry.groups);
        }
    }

    /// Larger buffers with nothing in them; false where the device has no memory for them.
    fn grow(
        &mut self,
        gpu: &Gpu,
        packets: usize,
        groups: usize,
        more_packets: bool,
    ) -> Result<bool, GpuError> {
        let first = self.buffers.is_none();
        let mut packets_size = self.packets.size;
        let mut groups_size = self.groups.size;
        if first || more_packets {
            packets_size = self.packets.larger(packets);
        }
        if first || !more_packets {
            groups_size = self.groups.larger(packets.max(PACKETS_FIRST) * groups);
        }
        match Buffers::new(gpu, packets_size, groups_size) {
            Ok(buffers) => {
                self.entries.clear();
                if let Some(old) = self.buffers.replace(buffers) {
                    old.release(gpu);
                }
                self.packets = Ranges::new(packets_size, self.packets.most);
                self.groups = Ranges::new(groups_size, self.groups.most);
                Ok(true)
            }
            // The device has other uses for its memory: what there is must do.
            Err(GpuError::OutOfMemory) if !first => {
                self.packets.most = self.packets.size;
                self.groups.most = self.groups.size;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Buffers {
    fn new(gpu: &Gpu, packets: usize, groups: usize) -> Result<Buffers, GpuError> {
        Ok(Buffers {
            embeddings: gpu.reserve((packets * SLOT_BYTES) as u64)?,
            facts: gpu.reserve((packets * FACT_BYTES) as u64)?,
            gains: gpu.reserve((packets * GAIN_BYTES) as u64)?,
            values: gpu.reserve((groups * GROUP_BYTES) as u64)?,
        })
    }

    fn release(self, gpu: &Gpu) {
        for buffer in [self.embeddings, self.facts, self.gains, self.values] {
            gpu.release(buffer);
        }
    }
}

/// Free parts of a line, ascending and never adjacent.
struct Ranges {
    size: usize,
    /// How large the line may become.
    most: usize,
    free: Vec<Range<usize>>,
}

impl Ranges {
    fn new(size: usize, most: usize) -> Ranges {
        let mut free = vec![];
        if size > 0 {
            free.push(0..size);
        }
        Ranges { size, most, free }
    }

    /// The next size with room for `more`.
    fn larger(&self, more: usize) -> usize {
        (2 * self.size).max(2 * more).max(PACKETS_FIRST).next_power_of_two().min(self.most)
    }

    /// The first place of that length.
    fn take(&mut self, length: usize) -> Option<Range<usize>> {
        let index = self.free.iter().position(|range| range.len() >= length)?;
        let free = &mut self.free[index];
        let taken = free.start..free.start + length;
        free.start = taken.end;
        if free.start == free.end {
            self.free.remove(index);
        }
        Some(taken)
    }

    fn give_back(&mut self, range: Range<usize>) {
        if range.start == range.end {
            return;
        }
        let index = self.free.partition_point(|free| free.start < range.start);
        self.free.insert(index, range);
        if index + 1 < self.free.len() && self.free[index].end == self.free[index + 1].start {
            self.free[index].end = self.free.remove(index + 1).end;
        }
        if index > 0 && self.free[index - 1].end == self.free[index].start {
            self.free[index - 1].end = self.free.remove(index).end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_back_whole() {
        let mut ranges = Ranges::new(1_000, 1_000);
        let taken: Vec<_> = [100, 200, 300, 400].map(|length| ranges.take(length).unwrap()).into();
        assert_eq!(taken, [0..100, 100..300, 300..600, 600..1_000]);
        assert_eq!(ranges.take(1), None);
        ranges.give_back(300..600);
        ranges.give_back(0..100);
        assert_eq!((ranges.take(301), ranges.take(300)), (None, Some(300..600)));
        ranges.give_back(600..1_000);
        ranges.give_back(300..600);
        ranges.give_back(100..300);
        assert_eq!((ranges.free.len(), ranges.take(1_000)), (1, Some(0..1_000)));
    }
}
