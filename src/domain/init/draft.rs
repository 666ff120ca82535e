//! From the profile of a table to the text of a domain file.

use super::features::{Kind, Plan, fit, plan};
use super::outcomes::{OutcomePlan, outcomes};
use super::profile::Profile;
use super::{InitError, Request, bandwidth};
use crate::domain::file::{Domain, quoted};
use crate::domain::schema::Direction;
use crate::domain::source::Separator;
use crate::domain::table::{Purpose, Table};
use crate::domain::view::Kernel;
use crate::limits::SLOTS;
use std::fmt::Write;

/// Which columns are what; indices into the table's columns.
pub(super) struct Roles {
    pub(super) outcomes: Vec<usize>,
    pub(super) action: Vec<usize>,
    pub(super) site: Option<usize>,
    pub(super) exact: Vec<usize>,
}

/// Writes the draft, with a kernel from the distances between sampled rows, and checks it on them.
pub(super) fn write(
    file: &str,
    request: &Request,
    roles: &Roles,
    profile: &Profile,
    separator: Separator,
) -> Result<String, InitError> {
    let refuse = |problem: String, remedy: &str| InitError::Column {
        file: file.into(),
        problem,
        remedy: remedy.into(),
    };
    if roles.outcomes.is_empty() {
        return Err(refuse("no outcome is named".into(), "name a column: --outcome COLUMN"));
    }
    let mut plans = Vec::new();
    let mut left_out: Vec<(String, String)> = Vec::new();
    let mut record = None;
    for (index, column) in profile.columns.iter().enumerate() {
        if roles.outcomes.contains(&index) || roles.action.contains(&index) || roles.site == Some(index) {
            if roles.exact.contains(&index) {
                return Err(refuse(
                    format!("`{}` cannot be exact and something else too", column.name),
                    "an exact column is a feature",
                ));
            }
            continue;
        }
        let exact = roles.exact.contains(&index);
        match plan(profile, index, exact) {
            Ok(plan) => plans.push(plan),
            Err(reason) if exact => {
                let problem = format!("`{}` cannot be exact: {reason}", column.name);
                return Err(refuse(problem, "choose a column of few or repeated values"));
            }
            Err(reason) => {
                if column.ascending && column.whole && column.is_numeric() && record.is_none() {
                    record = Some(column.name.clone());
                }
                left_out.push((column.name.clone(), reason));
            }
        }
    }
    fit(profile, &mut plans, &mut left_out);
    if plans.is_empty() {
        return Err(refuse("no column is left that could describe a case".into(), "add such columns"));
    }
    let outcomes = outcomes(request, roles, profile).map_err(|(problem, remedy)| refuse(problem, remedy))?;
    if !roles.action.is_empty() && profile.actions.is_none() {
        return Err(refuse(
            "the action has too many different values".into(),
            "actions are a short list of things that can be done",
        ));
    }

    let parts = Parts { request, roles, profile, plans: &plans, left_out: &left_out, separator };
    let draft = parts.text(&outcomes, record.as_deref(), 30.0);
    let bandwidth = bandwidth::best(&parts.cases(file, &draft)?);
    Ok(parts.text(&outcomes, record.as_deref(), bandwidth))
}

struct Parts<'a> {
    request: &'a Request,
    roles: &'a Roles,
    profile: &'a Profile,
    plans: &'a [Plan],
    left_out: &'a [(String, String)],
    separator: Separator,
}

impl Parts<'_> {
    /// The first sampled rows, read by the draft as every reader would.
    fn cases(&self, file: &str, draft: &str) -> Result<Vec<bandwidth::Case>, InitError> {
        let wrong = |source| InitError::Draft { file: file.into(), source };
        let mut domain = Domain::parse("draft", draft).map_err(wrong)?;
        domain.source.separator = Some(Separator::Character(b','));
        domain.source.compression = Some(crate::domain::source::Compression::None);
        domain.source.header = self.profile.columns.iter().map(|column| column.name.clone()).collect();
        let mut writer = csv::Writer::from_writer(Vec::new());
        let broken = |error: csv::Error| super::TableError::Read {
            file: file.into(),
            line: 0,
            source: std::io::Error::other(error.to_string()),
        };
        for record in self.profile.sample.iter().take(bandwidth::CASES_MAX) {
            writer.write_byte_record(record).map_err(broken)?;
        }
        let bytes = writer.into_inner().map_err(|error| broken(error.into_error().into()))?;
        let table =
            Table::from_bytes(file, Box::new(std::io::Cursor::new(bytes)), &domain, Purpose::Evidence)?;
        let mut cases = Vec::new();
        for row in table {
            let row = row?;
            cases.push(bandwidth::Case {
                signal: domain.schema.signal(&row.values),
                scope: domain.schema.scope(&row.values),
                site: row.site,
                outcomes: row.outcomes,
            });
        }
        Ok(cases)
    }

    fn text(&self, outcomes: &[OutcomePlan], record: Option<&str>, bandwidth: f64) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut text, outcomes, record, bandwidth);
        text
    }

    fn write(
        &self,
        text: &mut String,
        outcomes: &[OutcomePlan],
        record: Option<&str>,
        bandwidth: f64,
    ) -> std::fmt::Result {
        let name = |index: usize| quoted(&self.profile.columns[index].name);
        let list = |texts: &[String]| {
            let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            format!("[{}]", quoted.join(", "))
        };
        let slots: usize = self.plans.iter().map(Plan::slots).sum();
        writeln!(
            text,
            "# A draft from a table of {} rows. Read it through: units, which way an",
            self.profile.rows
        )?;
        writeln!(text, "# outcome is better, and what tells cases apart are for you to say. Everything")?;
        writeln!(text, "# but [source] and `about` enters the ids: change it before packets are made.")?;
        writeln!(text, "# `qis domain check FILE --data TABLE` tests it.")?;
        writeln!(text, "format = 1\nname = {}\nabout = \"\"\n", quoted(&self.request.name))?;

        writeln!(text, "[schema]\n# Times of observation are rounded down to this.\ntime_step = \"1d\"")?;
        writeln!(
            text,
            "# Levels of a slot: 32 (5 bits) tell less of a case, and thresholds are found less well.\nlevels = 256"
        )?;
        writeln!(text, "# Fewest cases that one packet may summarise.\ncases_min = 1")?;
        let exact: Vec<String> = self
            .plans
            .iter()
            .filter(|plan| plan.exact)
            .map(|plan| self.profile.columns[plan.column].name.clone())
            .collect();
        if !exact.is_empty() {
            writeln!(text, "# Only cases that are equal in these are compared.\nexact = {}", list(&exact))?;
        }
        if let (false, Some(actions)) = (self.roles.action.is_empty(), &self.profile.actions) {
            let actions: Vec<String> =
                actions.keys().map(|action| format!("  {},\n", quoted(action))).collect();
            writeln!(text, "actions = [\n{}]", actions.concat())?;
        }
        writeln!(text, "\n# Features: {slots} of {SLOTS} slots.")?;
        for (column, reason) in self.left_out {
            writeln!(text, "# Left out: {} ({reason}).", quoted(column))?;
        }
        for plan in self.plans {
            writeln!(text)?;
            self.write_feature(text, plan)?;
        }
        let direction = match self.request.direction {
            Direction::Higher => "higher",
            Direction::Lower => "lower",
            Direction::Neutral => "neutral",
        };
        for outcome in outcomes {
            writeln!(text)?;
            if !outcome.note.is_empty() {
                writeln!(text, "# {}.", outcome.note)?;
            }
            writeln!(text, "[[outcome]]\nname = {}\nkind = \"{}\"", quoted(&outcome.name), outcome.kind)?;
            if let Some((low, high)) = outcome.range {
                writeln!(text, "unit = \"\"\nrange = [{low}, {high}]\noutside = \"clip\"")?;
            }
            writeln!(text, "# Which way is better: \"higher\", \"lower\" or \"neutral\".")?;
            writeln!(text, "direction = \"{direction}\"")?;
        }

        writeln!(text, "\n[[view]]\nname = \"default\"")?;
        writeln!(text, "# Intervals in per cent.\nlevel = 90\nfinish = 1")?;
        writeln!(text, "# Thin evidence is drawn toward the mean of all, worth this many cases.")?;
        writeln!(text, "prior = {{ kind = \"mean\", cases = 2.0 }}")?;
        writeln!(
            text,
            "metric = \"identity\"\n# One mailbox for all cases; right up to some ten thousand packets."
        )?;
        writeln!(text, "address = {{ tables = 1, bits = 0, probes = 1 }}")?;
        writeln!(
            text,
            "# How much a case counts by its distance: the Gaussian that predicts sampled rows best."
        )?;
        writeln!(
            text,
            "# `qis domain kernel --bandwidth {bandwidth}` prints this one; smaller is narrower."
        )?;
        text.push_str(&Kernel::gaussian(bandwidth).to_toml());
        self.write_source(text, outcomes, record, &name, &list)
    }

    fn write_feature(&self, text: &mut String, plan: &Plan) -> std::fmt::Result {
        let column = &self.profile.columns[plan.column];
        if !plan.note.is_empty() {
            writeln!(text, "# {}.", capital(&plan.note))?;
        }
        writeln!(text, "[[feature]]\nname = {}", quoted(&column.name))?;
        match &plan.kind {
            Kind::Numeric { centre, scale, thermometer, digits } => {
                let decimals = (*digits).max(0) as usize;
                writeln!(text, "kind = \"numeric\"\nunit = \"\"")?;
                writeln!(text, "# {} to {} in the table.", column.low, column.high)?;
                writeln!(text, "centre = {centre:.decimals$}\nscale = {scale:.decimals$}")?;
                if !thermometer.is_empty() {
                    let steps: Vec<String> = thermometer.iter().map(|t| format!("{t:.decimals$}")).collect();
                    writeln!(text, "thermometer = [{}]", steps.join(", "))?;
                }
            }
            Kind::Levels { levels, ordinal } => {
                let kind = if *ordinal { "ordinal" } else { "categorical" };
                let levels: Vec<String> = levels.iter().map(|level| quoted(level)).collect();
                writeln!(text, "kind = \"{kind}\"\nlevels = [{}]", levels.join(", "))?;
            }
            Kind::Boolean { .. } => writeln!(text, "kind = \"boolean\"")?,
            Kind::Hashed { slots } => {
                writeln!(text, "kind = \"categorical\"\nhashed_slots = {slots}")?;
            }
            Kind::Any => writeln!(text, "kind = \"categorical\"")?,
        }
        if !plan.exact {
            writeln!(text, "weight = 1.0")?;
        }
        let missing = if plan.missing_slot { "slot" } else { "refuse" };
        match column.missing {
            0 => writeln!(text, "missing = \"{missing}\""),
            n => writeln!(text, "# {n} of {} missing.\nmissing = \"{missing}\"", self.profile.rows),
        }
    }

    fn write_source(
        &self,
        text: &mut String,
        outcomes: &[OutcomePlan],
        record: Option<&str>,
        name: &dyn Fn(usize) -> String,
        list: &dyn Fn(&[String]) -> String,
    ) -> std::fmt::Result {
        writeln!(text, "\n# How the table is read; nothing of this enters an id.\n[source]")?;
        let separator = match self.separator {
            Separator::Whitespace => "whitespace".into(),
            Separator::Json => "json".into(),
            Separator::Character(b'\t') => "tab".into(),
            Separator::Character(byte) => char::from(byte).to_string(),
        };
        writeln!(text, "separator = {}", quoted(&separator))?;
        let marks: std::collections::BTreeSet<&str> =
            self.profile.columns.iter().flat_map(|column| column.marks.keys().copied()).collect();
        if !marks.is_empty() {
            let marks: Vec<String> = marks.into_iter().map(String::from).collect();
            writeln!(
                text,
                "# Spellings of a missing value; an empty cell is one anyway.\nmissing = {}",
                list(&marks)
            )?;
        }
        match self.roles.site {
            Some(site) => writeln!(text, "site = {}", name(site))?,
            None => writeln!(text, "# site = \"the column that names who observed the case\"")?,
        }
        match record {
            Some(record) => writeln!(
                text,
                "# Names a record for good, so that it counts once.\nrecord = {}",
                quoted(record)
            )?,
            None => writeln!(text, "# record = \"the column that names a record for good\"")?,
        }
        writeln!(text, "# time = \"the column of the time of observation\"")?;
        for plan in self.plans {
            let column = name(plan.column);
            let spellings = match &plan.kind {
                Kind::Boolean { spellings: Some((no, yes)) } => Some((no, yes)),
                _ => None,
            };
            if spellings.is_some() || !plan.marks.is_empty() {
                writeln!(text, "\n[source.feature.{column}]")?;
            }
            if let Some((no, yes)) = spellings {
                writeln!(text, "values = {{ {} = \"false\", {} = \"true\" }}", quoted(no), quoted(yes))?;
            }
            if !plan.marks.is_empty() {
                writeln!(text, "missing = {}", list(&plan.marks))?;
            }
        }
        for outcome in outcomes {
            if outcome.equals.is_none() && outcome.missing.is_empty() {
                continue;
            }
            writeln!(
                text,
                "\n[source.outcome.{}]\ncolumn = {}",
                quoted(&outcome.name),
                quoted(&outcome.column)
            )?;
            if let Some(equals) = &outcome.equals {
                writeln!(text, "equals = {}", quoted(equals))?;
            }
            if !outcome.missing.is_empty() {
                writeln!(text, "missing = {}", list(&outcome.missing))?;
            }
        }
        if !self.roles.action.is_empty() {
            let columns: Vec<String> =
                self.roles.action.iter().map(|&index| self.profile.columns[index].name.clone()).collect();
            writeln!(text, "\n[source.action]\ncolumns = {}", list(&columns))?;
        }
        Ok(())
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
