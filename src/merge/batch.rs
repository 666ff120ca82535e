//! Packets become columns once.

use super::columns::Columns;
use super::cpu::{Job, Span, gain};
use super::layout::Layout;
use super::live::Live;
use super::trust;
use crate::domain::view::Trust;
use crate::domain::{Decay, Kernel, View};
use crate::limits::{SLOTS, WEIGHT_ONE};
use crate::packet::Id;
use ndarray::{Array2, ArrayView2, Axis};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// z = min(65535, (y^2 + s^2 + 32767) / 65535): the second moment over the range.
pub fn second_moment(y: u16, s: u16) -> u16 {
    let z = (u64::from(y).pow(2) + u64::from(s).pow(2) + 32_767) / 65_535;
    z.min(65_535) as u16
}

/// The columns that a prior's prediction b adds: b, then v = b (65535 - b) / 65535 for binary
/// outcomes, then zr = ((y - b)^2 + s^2) / 65535, floored.
pub fn prior_columns(y: u16, s: u16, b: u16, binary: bool) -> Vec<u16> {
    let prediction = u64::from(b);
    let residual = u64::from(y.abs_diff(b));
    let mut columns = vec![b];
    if binary {
        columns.push((prediction * (65_535 - prediction) / 65_535) as u16);
    }
    columns.push(((residual.pow(2) + u64::from(s).pow(2)) / 65_535).min(65_535) as u16);
    columns
}

/// Action and mask of outcomes: what the packets of a group have in common.
type Kind = (Option<u16>, u16);

/// Packets of one action and one set of outcomes.
#[derive(Clone, Debug)]
pub struct Group {
    pub action: Option<u16>,
    /// Bit i: outcome i is present.
    pub mask: u16,
    /// Rows of each author in the group, as (author index, rows). An author has two runs where it
    /// has packets of one case and of several, and more where packets were appended later.
    pub runs: Vec<(u32, Range<usize>)>,
    /// Live packets of the group.
    pub live: usize,
    /// Cases of the live packets.
    pub cases: u64,
    /// Per value column, over the live packets: the sum of n x.
    pub sums: Vec<u64>,
}

/// Packets as columns, rows sorted by (action, mask, one case or several, author, id), and again so
/// wherever some were appended.
///
/// A row may be dead: superseded, retracted or expired since it came. Its gain is 0, so that it
/// counts nothing, and everything that speaks of packets passes it over.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Value columns as `layout` says; zero where the outcome is absent.
    pub columns: Columns,
    pub layout: Layout,
    pub observed_at: Vec<u64>,
    /// Index into `authors`.
    pub author: Vec<u32>,
    pub ids: Vec<Id>,
    /// Author keys, ascending.
    pub authors: Vec<Id>,
    /// In ascending order of (action, mask).
    pub groups: Vec<Group>,
    /// Number of outcomes of the schema.
    pub outcomes: usize,
    kinds: Vec<Kind>,
    alive: Vec<bool>,
    live: usize,
    kept: Option<Kept>,
}

/// Gains of all rows for one step of freshness.
#[derive(Clone, Debug)]
struct Kept {
    decay: Decay,
    step_start_ms: u64,
    /// How authors were trusted; `None` is all alike.
    trust: Option<Trust>,
    gains: Vec<u16>,
}

impl Batch {
    /// Builds columns ([`Layout::of`] a view, or a number of outcomes alone); `embed` turns packets x
    /// 128 signals into embeddings.
    pub fn new(
        packets: Vec<Live>,
        layout: impl Into<Layout>,
        embed: impl FnOnce(ArrayView2<i8>) -> Array2<i8>,
    ) -> Batch {
        let mut batch = Batch::empty(layout);
        batch.append(packets, embed);
        batch
    }

    /// No packets yet.
    pub fn empty(layout: impl Into<Layout>) -> Batch {
        let layout = layout.into();
        let outcomes = layout.outcomes;
        Batch {
            columns: Columns::empty(layout.columns()),
            layout,
            observed_at: vec![],
            author: vec![],
            ids: vec![],
            authors: vec![],
            groups: vec![],
            outcomes,
            kinds: vec![],
            alive: vec![],
            live: 0,
            kept: None,
        }
    }

    /// Adds live packets as rows behind the others; none of them may be here already.
    pub fn append(&mut self, mut packets: Vec<Live>, embed: impl FnOnce(ArrayView2<i8>) -> Array2<i8>) {
        self.admit_authors(&packets);
        let index: HashMap<Id, u32> =
            self.authors.iter().enumerate().map(|(index, author)| (*author, index as u32)).collect();
        packets.sort_unstable_by_key(|live| {
            let p = &live.packet;
            (p.action(), p.mask(), p.cases() != 1, index[p.author()], live.id)
        });
        let mut signals = Array2::zeros((packets.len(), SLOTS));
        let mut values = Array2::zeros((packets.len(), self.layout.columns()));
        for (row, live) in packets.iter().enumerate() {
            let p = &live.packet;
            for (slot, &value) in signals.row_mut(row).iter_mut().zip(p.signal()) {
                *slot = value;
            }
            self.layout.fill(p, values.row_mut(row).into_slice().expect("rows in standard order"));
        }
        let first = self.len();
        let cases: Vec<u16> = packets.iter().map(|live| live.packet.cases()).collect();
        self.columns.append(embed(signals.view()).view(), &cases, values.view());
        self.observed_at.extend(packets.iter().map(|live| live.packet.observed_at()));
        self.author.extend(packets.iter().map(|live| index[live.packet.author()]));
        self.ids.extend(packets.iter().map(|live| live.id));
        self.kinds.extend(packets.iter().map(|live| (live.packet.action(), live.packet.mask())));
        self.file_rows(first);
    }

    /// The live rows alone, sorted as if they had come together; the columns have a new id.
    pub fn compacted(&self) -> Batch {
        let mut rows: Vec<usize> = (0..self.len()).filter(|&row| self.alive[row]).collect();
        let cases = self.columns.cases();
        rows.sort_unstable_by_key(|&row| (self.kinds[row], cases[row] != 1, self.author[row], self.ids[row]));
        let of = |list: &[u64]| rows.iter().map(|&row| list[row]).collect();
        let mut batch = Batch {
            columns: Columns::new(
                self.columns.embeddings().select(Axis(0), &rows),
                rows.iter().map(|&row| cases[row]).collect(),
                self.columns.values().select(Axis(0), &rows),
            ),
            observed_at: of(&self.observed_at),
            author: rows.iter().map(|&row| self.author[row]).collect(),
            ids: rows.iter().map(|&row| self.ids[row]).collect(),
            authors: self.authors.clone(),
            kinds: rows.iter().map(|&row| self.kinds[row]).collect(),
            ..Batch::empty(&self.layout)
        };
        batch.forget_silent_authors();
        batch.file_rows(0);
        batch
    }

    /// Takes the authors of new packets into the list, which stays ascending.
    fn admit_authors(&mut self, packets: &[Live]) {
        let mut new: Vec<Id> = packets.iter().map(|live| *live.packet.author()).collect();
        new.sort_unstable();
        new.dedup();
        new.retain(|author| self.authors.binary_search(author).is_err());
        if new.is_empty() {
            return;
        }
        let before = std::mem::take(&mut self.authors);
        self.authors = before.iter().copied().chain(new).collect();
        self.authors.sort_unstable();
        self.renumber_authors(&before);
    }

    /// Drops authors without any row.
    fn forget_silent_authors(&mut self) {
        let mut speaks = vec![false; self.authors.len()];
        self.author.iter().for_each(|&author| speaks[author as usize] = true);
        let before = std::mem::take(&mut self.authors);
        self.authors = before.iter().zip(speaks).filter(|(_, speaks)| *speaks).map(|(id, _)| *id).collect();
        self.renumber_authors(&before);
    }

    /// Carries indices into the list `before` over to the present one.
    fn renumber_authors(&mut self, before: &[Id]) {
        let new: Vec<u32> = before
            .iter()
            .map(|author| self.authors.binary_search(author).map_or(u32::MAX, |index| index as u32))
            .collect();
        let runs = self.groups.iter_mut().flat_map(|group| &mut group.runs);
        for author in self.author.iter_mut().chain(runs.map(|(author, _)| author)) {
            *author = new[*author as usize];
        }
    }

    /// Files the rows from `first` on, whose columns are there, under their groups, as live ones.
    fn file_rows(&mut self, first: usize) {
        for row in first..self.len() {
            let index = self.group_of(self.kinds[row]);
            let cases = self.columns.cases();
            let author = self.author[row];
            let runs = &mut self.groups[index].runs;
            match runs.last_mut() {
                Some((of, rows))
                    if *of == author && rows.end == row && (cases[row - 1] == 1) == (cases[row] == 1) =>
                {
                    rows.end = row + 1;
                }
                _ => runs.push((author, row..row + 1)),
            }
            self.alive.push(false);
            if let Some(kept) = &mut self.kept {
                kept.gains.push(0);
            }
            self.set_live(row, true);
        }
    }

    /// The index of the group of that kind, which is made where there is none.
    fn group_of(&mut self, (action, mask): Kind) -> usize {
        let found = self.groups.binary_search_by_key(&(action, mask), |group| (group.action, group.mask));
        found.unwrap_or_else(|index| {
            let sums = vec![0; self.layout.columns()];
            self.groups.insert(index, Group { action, mask, runs: vec![], live: 0, cases: 0, sums });
            index
        })
    }

    /// Lets a row count, or no longer; as often as one likes.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn set_live(&mut self, row: usize, live: bool) {
        if self.alive[row] == live {
            return;
        }
        self.alive[row] = live;
        let index = self.group_of(self.kinds[row]);
        let group = &mut self.groups[index];
        let n = u64::from(self.columns.cases()[row]);
        let values = self.columns.values();
        let step = |sum: &mut u64, x: u64| if live { *sum += x } else { *sum -= x };
        step(&mut group.cases, n);
        for (sum, &x) in group.sums.iter_mut().zip(values.row(row)) {
            step(sum, n * u64::from(x));
        }
        if live {
            group.live += 1;
            self.live += 1;
        } else {
            group.live -= 1;
            self.live -= 1;
        }
        // Another packet changes what its author is trusted.
        self.kept.take_if(|kept| kept.trust.is_some());
        if let Some(kept) = &mut self.kept {
            let fresh = kept.decay.freshness(kept.step_start_ms, self.observed_at[row]);
            kept.gains[row] = if live { gain(fresh, WEIGHT_ONE) } else { 0 };
        }
    }

    /// Rows, dead ones included.
    pub fn len(&self) -> usize {
        self.ids.len()
    }
    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
    /// Live packets.
    pub fn live(&self) -> usize {
        self.live
    }
    /// Whether a row counts.
    pub fn is_live(&self, row: usize) -> bool {
        self.alive[row]
    }
    /// The mask of a row's outcomes.
    pub fn mask(&self, row: usize) -> u16 {
        self.kinds[row].1
    }
    /// The action of a row.
    pub fn action(&self, row: usize) -> Option<u16> {
        self.kinds[row].0
    }
    /// Ids of the live packets, in no particular order.
    pub fn live_ids(&self) -> impl Iterator<Item = Id> {
        self.ids.iter().zip(&self.alive).filter(|(_, alive)| **alive).map(|(id, _)| *id)
    }
    /// Groups with live packets, in ascending order of (action, mask).
    pub fn live_groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.live > 0)
    }
    /// Runs of all groups.
    pub fn runs(&self) -> usize {
        self.groups.iter().map(|group| group.runs.len()).sum()
    }
    /// Bytes of memory behind the rows, about.
    pub fn bytes(&self) -> usize {
        let row = self.columns.row_bytes() + 8 + 4 + 32 + size_of::<Kind>() + 1 + 2;
        let run = size_of::<(u32, Range<usize>)>();
        self.len() * row + self.runs() * run + self.authors.len() * 32
    }

    /// Gain of each row when asked at `ask_ms`, 0 for dead ones; `trust` per author, 0..=4,096.
    pub fn gains(&self, decay: &Decay, ask_ms: u64, trust: &[u16]) -> Vec<u16> {
        assert_eq!(trust.len(), self.authors.len(), "one trust per author");
        let rows = self.observed_at.iter().zip(&self.author).zip(&self.alive);
        let one = |((&observed, &author), &alive): ((&u64, &u32), &bool)| match alive {
            true => gain(decay.freshness(ask_ms, observed), trust[author as usize]),
            false => 0,
        };
        rows.map(one).collect()
    }

    /// Gains under a view: those that are kept, where they fit its decay, its trust and the time.
    pub fn gains_under(&self, view: &View, ask_ms: u64) -> Cow<'_, [u16]> {
        match &self.kept {
            Some(kept) if kept.fits(view, ask_ms) => Cow::Borrowed(&kept.gains),
            _ => {
                let trust = match view.trust() {
                    None => vec![WEIGHT_ONE; self.authors.len()],
                    Some(options) => trust::of_batch(self, options),
                };
                Cow::Owned(self.gains(&view.decay, ask_ms, &trust))
            }
        }
    }

    /// Computes the gains of a step once for all who ask within it; does nothing where they are kept.
    pub fn keep_gains(&mut self, view: &View, ask_ms: u64) {
        if self.kept.as_ref().is_none_or(|kept| !kept.fits(view, ask_ms)) {
            let gains = self.gains_under(view, ask_ms).into_owned();
            let (decay, step_start_ms) = (view.decay.clone(), view.decay.step_start(ask_ms));
            self.kept = Some(Kept { decay, step_start_ms, trust: view.trust(), gains });
        }
    }

    /// One span per author's run of every live group, each read by all `queries`; the tallies come
    /// back in the order of groups and runs.
    pub fn spans_by_author(&self, queries: usize) -> Vec<Span> {
        let runs = self.live_groups().flat_map(|group| &group.runs);
        runs.map(|(_, rows)| Span { queries: 0..queries, packets: rows.clone() }).collect()
    }

    /// The merge job of some queries over some spans.
    pub fn job<'a>(
        &'a self,
        kernel: &'a Kernel,
        gains: &'a [u16],
        queries: ArrayView2<'a, i8>,
        spans: &'a [Span],
    ) -> Job<'a> {
        Job { kernel, columns: &self.columns, gains, queries, spans, skip: true }
    }
}

impl Kept {
    fn fits(&self, view: &View, ask_ms: u64) -> bool {
        let decay = &view.decay;
        self.step_start_ms == decay.step_start(ask_ms) && self.decay == *decay && self.trust == view.trust()
    }
}
