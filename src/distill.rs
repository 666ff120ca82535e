//! Rows -> packets: what a node tells the others of what happened to it.

use crate::domain::{Row, Schema, Table, TableError, mean_and_deviation, mean_signal};
use crate::limits::{CASES_MAX, OUTCOMES_MAX, SLOTS};
use crate::packet::{AuthorKey, Draft, Id, Kind, PacketError, Verified};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// One row, distilled as far as it can be without a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Row of the table, from 1, for messages and predictions.
    pub row: u64,
    pub signal: [i8; SLOTS],
    pub scope: Id,
    /// Quantised outcomes; `None` where unknown.
    pub values: [Option<u16>; OUTCOMES_MAX],
    /// Outcomes in their own units, as measured; one per outcome of the schema.
    pub truth: Vec<Option<f64>>,
    pub action: Option<u16>,
    pub site: Option<String>,
    /// What makes the record the same record in a later run: its key, else site and row number.
    pub record: String,
    /// Unix milliseconds, floored to the schema's step.
    pub observed_at: u64,
}

impl Case {
    /// `now_ms` stands in where the table has no time.
    pub fn new(schema: &Schema, row: Row, now_ms: u64) -> Case {
        let mut values = [None; OUTCOMES_MAX];
        values[..row.outcomes.len()].copy_from_slice(&row.outcomes);
        let record = row.record_key();
        Case {
            row: row.number,
            signal: schema.signal(&row.values),
            scope: schema.scope(&row.values),
            values,
            truth: row.outcome_numbers,
            action: row.action,
            site: row.site,
            record,
            observed_at: schema.floor_time(row.time_ms.unwrap_or(now_ms)),
        }
    }

    /// Reads a whole table.
    ///
    /// # Errors
    /// The first row that does not fit the domain, by file, line and field.
    pub fn read_all(table: Table, schema: &Schema, now_ms: u64) -> Result<Vec<Case>, TableError> {
        table.map(|row| Ok(Case::new(schema, row?, now_ms))).collect()
    }

    /// Whether some outcome is known: a case without one is a question, no evidence.
    pub fn has_outcome(&self) -> bool {
        self.values.iter().any(Option::is_some)
    }
}

/// Turns cases into signed packets, numbering them.
pub struct Distiller {
    key: AuthorKey,
    schema: Arc<Schema>,
    schema_id: Id,
    sequence: u32,
}

impl Distiller {
    /// `sequence` is the author's next unused sequence number.
    pub fn new(key: AuthorKey, schema: Arc<Schema>, sequence: u32) -> Distiller {
        let schema_id = schema.id();
        Distiller { key, schema, schema_id, sequence }
    }

    pub fn author(&self) -> &Id {
        self.key.public()
    }

    /// Goes on numbering packets from `first`.
    pub fn number_from(&mut self, first: u32) {
        self.sequence = first;
    }

    /// One packet of 1..=4,095 similar cases: same scope, action and known outcomes.
    ///
    /// # Errors
    /// A packet field that breaks a rule, which only a schema built in code can cause.
    pub fn observe(&mut self, cases: &[&Case]) -> Result<Verified, PacketError> {
        assert!((1..=usize::from(CASES_MAX)).contains(&cases.len()), "1..=4095 cases");
        let first = cases[0];
        let kind = kindred(first);
        assert!(cases.iter().all(|case| kindred(case) == kind), "cases of one scope, action and outcomes");
        let outcomes = self.schema.outcomes.len();
        let mut values = [None; OUTCOMES_MAX];
        for (outcome, value) in values.iter_mut().enumerate().take(outcomes) {
            let seen: Vec<u16> = cases.iter().filter_map(|case| case.values[outcome]).collect();
            *value = (!seen.is_empty()).then(|| mean_and_deviation(&seen));
        }
        let signals: Vec<[i8; SLOTS]> = cases.iter().map(|case| case.signal).collect();
        let records: Vec<&str> = cases.iter().map(|case| case.record.as_str()).collect();
        self.sign(Draft {
            action: first.action,
            observed_at: cases.iter().map(|case| case.observed_at).max().unwrap_or(0),
            cases: cases.len() as u16,
            reference: self.key.evidence_id(&self.schema_id, &records.join("\n")),
            signal: mean_signal(&signals),
            values,
            scope: first.scope,
            ..Draft::new(Kind::Observed, self.schema_id, outcomes)
        })
    }

    /// Takes back one of the author's own packets.
    ///
    /// # Errors
    /// As [`Distiller::observe`].
    pub fn retract(&mut self, packet: &Verified) -> Result<Verified, PacketError> {
        self.sign(Draft {
            observed_at: packet.observed_at(),
            reference: packet.id(),
            signal: *packet.signal(),
            scope: *packet.scope(),
            ..Draft::new(Kind::Retraction, self.schema_id, packet.outcomes())
        })
    }

    /// Numbers and signs any draft.
    ///
    /// # Errors
    /// As [`Distiller::observe`].
    pub fn sign(&mut self, draft: Draft) -> Result<Verified, PacketError> {
        let packet = self.key.sign(&Draft { sequence: self.sequence, ..draft })?;
        self.sequence += 1;
        Ok(packet)
    }
}

/// What the cases of one packet have in common: scope, action, and which outcomes are known.
type Kindred = (Id, Option<u16>, [bool; OUTCOMES_MAX]);

fn kindred(case: &Case) -> Kindred {
    (case.scope, case.action, case.values.map(|value| value.is_some()))
}

/// Gathers cases into groups of `size` near ones that may share a packet. Of each kind a window of
/// cases stays open; when it is full, or memory is, the oldest case leaves with its nearest.
///
/// Which cases meet depends on what else is in the window, so a table whose rows have changed makes
/// other groups, which count beside the old ones: with a size above 1, distil each row once.
pub struct Gatherer {
    size: usize,
    open: HashMap<Kindred, VecDeque<Case>>,
    /// Cases in all windows.
    waiting: usize,
    /// Cases for which there was no room to wait.
    turned_away: usize,
}

/// Groups' worth of cases in one window: a wider one finds nearer cases.
const WINDOW_GROUPS: usize = 16;
/// Cases that wait at most, over all windows: some 50 MB.
const WAITING_MAX: usize = 1 << 16;

impl Gatherer {
    /// `size` is the schema's smallest number of cases of a packet.
    pub fn new(size: u16) -> Gatherer {
        Gatherer { size: usize::from(size.max(1)), open: HashMap::new(), waiting: 0, turned_away: 0 }
    }

    /// All groups of some cases; those that found too few others are left out.
    pub fn groups(size: u16, cases: impl Iterator<Item = Case>) -> Vec<Vec<Case>> {
        let mut gatherer = Gatherer::new(size);
        let mut groups: Vec<Vec<Case>> = cases.filter_map(|case| gatherer.add(case)).collect();
        groups.extend(gatherer.finish());
        groups
    }

    /// Takes a case; gives a group back when a window is full.
    pub fn add(&mut self, case: Case) -> Option<Vec<Case>> {
        let kind = kindred(&case);
        let window = self.open.entry(kind).or_default();
        window.push_back(case);
        self.waiting += 1;
        let full = self.size == 1 || window.len() >= WINDOW_GROUPS * self.size;
        if !full && self.waiting < WAITING_MAX {
            return None;
        }
        if window.len() < self.size {
            // Too many kinds of cases for the memory: this one finds no others any more.
            window.pop_back();
            self.waiting -= 1;
            self.turned_away += 1;
            return None;
        }
        let group = leave(window, self.size);
        self.waiting -= group.len();
        if window.is_empty() {
            self.open.remove(&kind);
        }
        Some(group)
    }

    /// The groups that are left, at the end of the cases.
    pub fn finish(&mut self) -> Vec<Vec<Case>> {
        let mut windows: Vec<&mut VecDeque<Case>> = self.open.values_mut().collect();
        windows.sort_by_key(|window| window.front().map(|case| case.row));
        let mut groups = vec![];
        for window in windows {
            while window.len() >= self.size {
                groups.push(leave(window, self.size));
            }
        }
        self.waiting = self.open.values().map(VecDeque::len).sum();
        groups
    }

    /// Cases that found too few others to share a packet with.
    pub fn rest(&self) -> usize {
        self.waiting + self.turned_away
    }
}

/// Takes the oldest case of a window and the `size - 1` nearest to it, by signal.
fn leave(window: &mut VecDeque<Case>, size: usize) -> Vec<Case> {
    let Some(oldest) = window.pop_front() else { return vec![] };
    let distance = |case: &Case| -> i32 {
        let pairs = oldest.signal.iter().zip(&case.signal);
        pairs.map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2)).sum()
    };
    let mut near: Vec<(i32, usize)> = window.iter().map(distance).zip(0..).collect();
    near.sort_unstable();
    near.truncate(size - 1);
    let mut positions: Vec<usize> = near.into_iter().map(|(_, position)| position).collect();
    positions.sort_unstable_by(|a, b| b.cmp(a));
    let mut group: Vec<Case> = positions.into_iter().filter_map(|at| window.remove(at)).collect();
    group.push(oldest);
    group.reverse();
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(row: u64, slot: i8, scope: u8) -> Case {
        let mut signal = [0; SLOTS];
        signal[0] = slot;
        let mut values = [None; OUTCOMES_MAX];
        values[0] = Some(1);
        Case {
            row,
            signal,
            scope: [scope; 32],
            values,
            truth: vec![Some(0.0)],
            action: None,
            site: None,
            record: row.to_string(),
            observed_at: 0,
        }
    }

    #[test]
    fn near_cases_share_a_packet_and_none_is_lost_or_doubled() {
        let cases: Vec<Case> =
            (0..200).map(|row| case(row, if row % 2 == 0 { -60 } else { 60 }, 0)).collect();
        let groups = Gatherer::groups(4, cases.into_iter());
        assert_eq!(groups.len(), 50);
        assert!(
            groups.iter().all(|group| group.len() == 4 && group.iter().all(|c| c.signal == group[0].signal))
        );
        let mut rows: Vec<u64> = groups.iter().flatten().map(|case| case.row).collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn scopes_stay_apart_and_the_rest_is_counted() {
        let mut gatherer = Gatherer::new(3);
        let early: Vec<_> = (0..8).filter_map(|row| gatherer.add(case(row, 0, row as u8 % 2))).collect();
        assert!(early.is_empty());
        let groups = gatherer.finish();
        assert_eq!((groups.len(), gatherer.rest()), (2, 2));
        assert!(groups.iter().all(|group| group.iter().all(|case| case.scope == group[0].scope)));
    }

    #[test]
    fn single_cases_leave_at_once() {
        let mut gatherer = Gatherer::new(1);
        assert_eq!(gatherer.add(case(1, 0, 0)).unwrap().len(), 1);
        assert_eq!((gatherer.finish().len(), gatherer.rest()), (0, 0));
    }

    /// Many scopes must not make it slow: this took minutes when windows were searched one by one.
    #[test]
    fn many_kinds_of_cases_are_found_at_once() {
        let cases = (0..100_000u64).map(|row| {
            let mut case = case(row, 0, 0);
            case.scope[..4].copy_from_slice(&(row as u32 % 30_000).to_le_bytes());
            case
        });
        assert_eq!(Gatherer::groups(3, cases).len(), 30_000);
    }
}
