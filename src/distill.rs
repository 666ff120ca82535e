//! Rows -> packets: what a node tells the others of what happened to it.

use crate::domain::{Row, Schema, Table, TableError, mean_and_deviation, mean_signal};
use crate::limits::{CASES_MAX, OUTCOMES_MAX, SLOTS};
use crate::packet::{AuthorKey, Draft, Id, Kind, PacketError, Verified};
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

    /// The next unused sequence number.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// One packet of 1..=4,095 similar cases: same scope, action and known outcomes.
    ///
    /// # Errors
    /// A packet field that breaks a rule, which only a schema built in code can cause.
    pub fn observe(&mut self, cases: &[&Case]) -> Result<Verified, PacketError> {
        assert!((1..=usize::from(CASES_MAX)).contains(&cases.len()), "1..=4095 cases");
        let first = cases[0];
        assert!(cases.iter().all(|case| alike(first, case)), "cases of one scope, action and outcomes");
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

/// Whether two cases may share a packet.
fn alike(a: &Case, b: &Case) -> bool {
    let known = |case: &Case| case.values.map(|value| value.is_some());
    a.scope == b.scope && a.action == b.action && known(a) == known(b)
}

/// Gathers cases into groups of `size` that may share a packet, in the order in which groups fill.
/// What is left over waits in [`Gatherer::rest`].
pub struct Gatherer {
    size: usize,
    open: Vec<Vec<Case>>,
}

impl Gatherer {
    /// `size` is the schema's smallest number of cases of a packet.
    pub fn new(size: u16) -> Gatherer {
        Gatherer { size: usize::from(size.max(1)), open: vec![] }
    }

    /// Takes a case; gives a full group back.
    pub fn add(&mut self, case: Case) -> Option<Vec<Case>> {
        let index = match self.open.iter().position(|group| alike(&group[0], &case)) {
            Some(index) => index,
            None => {
                self.open.push(vec![]);
                self.open.len() - 1
            }
        };
        self.open[index].push(case);
        (self.open[index].len() >= self.size).then(|| self.open.swap_remove(index))
    }

    /// Cases that found too few others to share a packet with.
    pub fn rest(&self) -> usize {
        self.open.iter().map(Vec::len).sum()
    }
}
