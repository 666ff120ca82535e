//! Packets become columns once.

use super::columns::Columns;
use super::cpu::{Job, Span, gain};
use super::live::Live;
use crate::domain::{Decay, Kernel};
use crate::limits::SLOTS;
use crate::packet::Id;
use ndarray::{Array2, ArrayView2};
use std::collections::HashMap;
use std::ops::Range;

/// Value columns per outcome without a prior: mean y, second moment z.
pub const COLUMNS_PER_OUTCOME: usize = 2;

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

/// Packets of one action and one set of outcomes.
#[derive(Clone, Debug)]
pub struct Group {
    pub action: Option<u16>,
    /// Bit i: outcome i is present.
    pub mask: u16,
    /// Rows of each author in the group, as (author index, rows); an author has two runs where it
    /// has packets of one case and of several.
    pub runs: Vec<(u32, Range<usize>)>,
}

/// Live packets as columns, sorted by (action, mask, one case or several, author, id).
#[derive(Clone, Debug)]
pub struct Batch {
    /// Two value columns per outcome: y, z; zero where the outcome is absent.
    pub columns: Columns,
    pub observed_at: Vec<u64>,
    /// Index into `authors`.
    pub author: Vec<u32>,
    pub ids: Vec<Id>,
    /// Author keys, ascending.
    pub authors: Vec<Id>,
    pub groups: Vec<Group>,
    /// Number of outcomes of the schema.
    pub outcomes: usize,
}

impl Batch {
    /// Builds columns; `embed` turns packets x 128 signals into embeddings.
    pub fn new(
        mut packets: Vec<Live>,
        outcomes: usize,
        embed: impl FnOnce(ArrayView2<i8>) -> Array2<i8>,
    ) -> Batch {
        let mut authors: Vec<Id> = packets.iter().map(|live| *live.packet.author()).collect();
        authors.sort_unstable();
        authors.dedup();
        let index: HashMap<Id, u32> =
            authors.iter().enumerate().map(|(index, author)| (*author, index as u32)).collect();
        let key = |live: &Live| {
            let p = &live.packet;
            (p.action(), p.mask(), p.cases() != 1, index[p.author()], live.id)
        };
        packets.sort_unstable_by_key(key);

        let mut signals = Array2::zeros((packets.len(), SLOTS));
        let mut values = Array2::zeros((packets.len(), COLUMNS_PER_OUTCOME * outcomes));
        let mut groups: Vec<Group> = vec![];
        let mut last_run = None;
        for (row, live) in packets.iter().enumerate() {
            let p = &live.packet;
            for (slot, &value) in signals.row_mut(row).iter_mut().zip(p.signal()) {
                *slot = value;
            }
            for outcome in 0..outcomes {
                let (y, s) = p.value(outcome);
                values[[row, COLUMNS_PER_OUTCOME * outcome]] = y;
                values[[row, COLUMNS_PER_OUTCOME * outcome + 1]] = second_moment(y, s);
            }
            let (action, mask, several, author, _) = key(live);
            if groups.last().is_none_or(|group| (group.action, group.mask) != (action, mask)) {
                groups.push(Group { action, mask, runs: vec![] });
                last_run = None;
            }
            let runs = &mut groups.last_mut().expect("just pushed").runs;
            if last_run != Some((several, author)) {
                runs.push((author, row..row));
                last_run = Some((several, author));
            }
            runs.last_mut().expect("just pushed").1.end = row + 1;
        }
        let cases = packets.iter().map(|live| live.packet.cases()).collect();
        Batch {
            columns: Columns::new(embed(signals.view()), cases, values),
            observed_at: packets.iter().map(|live| live.packet.observed_at()).collect(),
            author: packets.iter().map(|live| index[live.packet.author()]).collect(),
            ids: packets.iter().map(|live| live.id).collect(),
            authors,
            groups,
            outcomes,
        }
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Gain of each packet when asked at `ask_ms`; `trust` per author, 0..=4,096.
    pub fn gains(&self, decay: &Decay, ask_ms: u64, trust: &[u16]) -> Vec<u16> {
        assert_eq!(trust.len(), self.authors.len(), "one trust per author");
        self.observed_at
            .iter()
            .zip(&self.author)
            .map(|(&observed, &author)| gain(decay.freshness(ask_ms, observed), trust[author as usize]))
            .collect()
    }

    /// One span per author's run of every group, each read by all `queries`; the tallies come back
    /// in the order of groups and runs.
    pub fn spans_by_author(&self, queries: usize) -> Vec<Span> {
        let runs = self.groups.iter().flat_map(|group| &group.runs);
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
