//! From the profile of a table to the text of a domain file.

use super::profile::{Column, Profile};
use super::{InitError, Request, bandwidth};
use crate::domain::file::{Domain, quoted};
use crate::domain::schema::Direction;
use crate::domain::source::Separator;
use crate::domain::table::{Purpose, Table};
use crate::domain::view::Kernel;
use crate::limits::{OUTCOMES_MAX, SLOTS};
use std::fmt::Write;

/// More levels than this are hashed.
const LEVELS_MAX: usize = 24;
/// Slots of a hashed categorical, and fewer where slots are short.
const HASHED_SLOTS: usize = 16;
const HASHED_SLOTS_MIN: usize = 8;
/// Thermometer thresholds of a numeric feature where slots allow.
const THRESHOLDS: usize = 4;
/// Whole numbers with at most this many neighbouring values are ordinal.
const ORDINAL_LEVELS_MAX: usize = 6;

/// Which columns are what; indices into the table's columns.
pub(super) struct Roles {
    pub(super) outcomes: Vec<usize>,
    pub(super) action: Vec<usize>,
    pub(super) site: Option<usize>,
    pub(super) exact: Vec<usize>,
}

struct Plan {
    column: usize,
    kind: Kind,
    /// Whether missing values get a slot.
    missing_slot: bool,
    exact: bool,
    /// A line for people.
    note: String,
    marks: Vec<String>,
}

enum Kind {
    Numeric {
        centre: f64,
        scale: f64,
        digits: i32,
        thermometer: Vec<f64>,
    },
    Levels {
        levels: Vec<String>,
        ordinal: bool,
    },
    /// Spellings of false and true where they are not the usual ones.
    Boolean {
        spellings: Option<(String, String)>,
    },
    Hashed {
        slots: usize,
    },
    /// Exact, any text.
    Any,
}

impl Plan {
    fn slots(&self) -> usize {
        if self.exact {
            return 0;
        }
        usize::from(self.missing_slot)
            + match &self.kind {
                Kind::Numeric { thermometer, .. } => 1 + thermometer.len(),
                Kind::Levels { levels, ordinal } => levels.len() - usize::from(*ordinal),
                Kind::Boolean { .. } => 1,
                Kind::Hashed { slots } => *slots,
                Kind::Any => 0,
            }
    }
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

/// How a column becomes a feature, or why it does not.
fn plan(profile: &Profile, index: usize, exact: bool) -> Result<Plan, String> {
    let column = &profile.columns[index];
    let values = column.values();
    if column.name.is_empty() {
        return Err("it has no name".into());
    }
    if profile.columns.iter().filter(|other| other.name == column.name).count() > 1 {
        return Err("two columns have this name".into());
    }
    if column.present() == 0 {
        return Err("it is empty".into());
    }
    let mut plan = Plan {
        column: index,
        kind: Kind::Any,
        missing_slot: true,
        exact,
        note: String::new(),
        marks: Vec::new(),
    };
    let numeric = column.is_numeric() || column.is_numeric_with_marks();
    match values {
        Some(values) if values.len() == 1 && column.missing == 0 => {
            return Err(format!("every row has the same value, {}", values[0]));
        }
        Some(values) if values.len() == 2 => {
            let spellings = spellings(&values[0], &values[1]);
            if let Some((_, yes)) = &spellings {
                plan.note = format!("true stands for {}", quoted(yes));
            }
            plan.kind = Kind::Boolean { spellings };
        }
        Some(values) if column.is_numeric() && is_short_scale(column, &values) => {
            plan.note = "whole numbers in order: ordinal; make it categorical if they are codes".into();
            plan.kind = Kind::Levels { levels: values, ordinal: true };
        }
        Some(values) if !numeric || exact => {
            if profile.rows > 20 && values.len() as u64 * 2 > column.present() {
                return Err("nearly every row has another value".into());
            }
            plan.kind = if values.len() <= LEVELS_MAX {
                Kind::Levels { levels: values, ordinal: false }
            } else if exact {
                Kind::Any
            } else {
                plan.note = format!("{} levels: each is hashed to one of few slots", values.len());
                Kind::Hashed { slots: HASHED_SLOTS }
            };
        }
        _ if numeric && !exact => {
            let near_unique = column.whole && profile.uniqueness(index) > 0.95;
            let name = column.name.to_lowercase();
            let named_key = name == "id" || name.ends_with("_id") || name.ends_with(" id") || name == "uid";
            if profile.rows > 20 && column.whole && column.ascending {
                return Err("it counts the rows".into());
            }
            if profile.rows > 20 && near_unique && named_key {
                return Err("it names the rows".into());
            }
            if column.is_numeric_with_marks() {
                plan.marks = column.strays.iter().cloned().collect();
                plan.note = "some cells are no numbers; they are read as missing".into();
            }
            plan.kind = numeric_kind(profile, index);
        }
        _ if numeric => return Err("it is numeric, and equal numbers are rare".into()),
        _ => {
            if profile.rows > 20 && profile.uniqueness(index) > 0.5 {
                return Err("nearly every row has another text".into());
            }
            if !exact {
                plan.note = "many levels: each is hashed to one of few slots".into();
                plan.kind = Kind::Hashed { slots: HASHED_SLOTS };
            }
        }
    }
    Ok(plan)
}

/// A few neighbouring whole numbers such as grades and counts.
fn is_short_scale(column: &Column, values: &[String]) -> bool {
    column.whole
        && (3..=ORDINAL_LEVELS_MAX).contains(&values.len())
        && column.high - column.low == (values.len() - 1) as f64
}

/// Spellings of false and true, `None` where the reader knows them: the same words as
/// [`crate::domain::schema::Feature::read`].
fn spellings(a: &str, b: &str) -> Option<(String, String)> {
    let word = |text: &str| match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" | "1.0" => Some(true),
        "false" | "f" | "no" | "n" | "0" | "0.0" => Some(false),
        _ => None,
    };
    match (word(a), word(b)) {
        (Some(x), Some(y)) if x != y => None,
        _ => Some((a.into(), b.into())),
    }
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = (q * (sorted.len().saturating_sub(1)) as f64).round() as usize;
    sorted.get(place).copied().unwrap_or(0.0)
}

fn numeric_kind(profile: &Profile, index: usize) -> Kind {
    let column = &profile.columns[index];
    let sorted = profile.sorted_numbers(index);
    // A normal distribution has 80% of its cases within 2.563 standard deviations, 98% in 4.653.
    let spread = [
        (quantile(&sorted, 0.9) - quantile(&sorted, 0.1)) / 2.563,
        (quantile(&sorted, 0.99) - quantile(&sorted, 0.01)) / 4.653,
        (column.high - column.low) / 4.0,
        1.0,
    ];
    let spread = spread.into_iter().find(|x| *x > 0.0 && x.is_finite()).unwrap_or(1.0);
    // Two digits of the scale; centre and thresholds to the same place.
    let digits = 1 - libm::log10(spread).floor() as i32;
    let low = quantile(&sorted, 0.0);
    let mut thermometer: Vec<f64> = (1..=THRESHOLDS)
        .map(|i| rounded(quantile(&sorted, i as f64 / (THRESHOLDS + 1) as f64), digits))
        .filter(|&x| x > low)
        .collect();
    thermometer.dedup();
    let centre = rounded(quantile(&sorted, 0.5), digits);
    Kind::Numeric { centre, scale: rounded(spread, digits), digits, thermometer }
}

/// `x` with `digits` decimal places, which may be negative.
fn rounded(x: f64, digits: i32) -> f64 {
    let text = format!("{:.*}", digits.max(0) as usize, x);
    if digits >= 0 {
        return text.parse().unwrap_or(x);
    }
    let unit = libm::pow(10.0, f64::from(-digits));
    (x / unit).round() * unit
}

/// Cuts the plans down to the slots of a signal: thermometers first, then large categoricals, then
/// slots for missing values where none was seen, then whole features from the end.
fn fit(profile: &Profile, plans: &mut Vec<Plan>, left_out: &mut Vec<(String, String)>) {
    let total = |plans: &[Plan]| plans.iter().map(Plan::slots).sum::<usize>();
    for most in (0..THRESHOLDS).rev() {
        if total(plans) <= SLOTS {
            return;
        }
        for plan in plans.iter_mut() {
            if let Kind::Numeric { thermometer, .. } = &mut plan.kind
                && thermometer.len() > most
            {
                // Of n thresholds the middle ones stay.
                let first = (thermometer.len() - most) / 2;
                *thermometer = thermometer[first..first + most].to_vec();
            }
        }
    }
    for most in [HASHED_SLOTS, HASHED_SLOTS_MIN] {
        let mut order: Vec<usize> = (0..plans.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(plans[index].slots()));
        for index in order {
            if total(plans) <= SLOTS {
                return;
            }
            let plan = &mut plans[index];
            let large = match &plan.kind {
                Kind::Levels { levels, .. } => levels.len() > most,
                Kind::Hashed { slots } => *slots > most,
                _ => false,
            };
            if large && !plan.exact {
                plan.note = "its levels are hashed, because slots are short".into();
                plan.kind = Kind::Hashed { slots: most };
            }
        }
    }
    for index in (0..plans.len()).rev() {
        if total(plans) > SLOTS
            && profile.columns[plans[index].column].missing == 0
            && plans[index].marks.is_empty()
        {
            plans[index].missing_slot = false;
        }
    }
    while total(plans) > SLOTS {
        let Some(last) = plans.iter().rposition(|plan| !plan.exact) else { return };
        let plan = plans.remove(last);
        let name = profile.columns[plan.column].name.clone();
        left_out.push((name, format!("the {SLOTS} slots of a signal are taken")));
    }
}

struct OutcomePlan {
    name: String,
    column: String,
    kind: &'static str,
    range: Option<(f64, f64)>,
    equals: Option<String>,
    missing: Vec<String>,
    note: String,
}

fn outcomes(
    request: &Request,
    roles: &Roles,
    profile: &Profile,
) -> Result<Vec<OutcomePlan>, (String, &'static str)> {
    let mut outcomes = Vec::new();
    for &index in &roles.outcomes {
        let column = &profile.columns[index];
        let name = column.name.clone();
        let plain = |kind, range, note: &str| OutcomePlan {
            name: name.clone(),
            column: name.clone(),
            kind,
            range,
            equals: None,
            missing: Vec::new(),
            note: note.into(),
        };
        let numeric = column.is_numeric() || column.is_numeric_with_marks();
        match column.values() {
            Some(values) if values.len() < 2 => {
                return Err((
                    format!("the outcome `{name}` has fewer than two different values"),
                    "there is nothing to learn from it; choose another column",
                ));
            }
            Some(values) if values.len() == 2 => {
                let number = |text: &String| text.parse::<f64>().ok();
                if number(&values[0]) == Some(0.0) && number(&values[1]) == Some(1.0) {
                    outcomes.push(plain("binary", None, ""));
                } else {
                    // The word for true, else the rarer value: that is what people ask about.
                    let counts = |value: &String| {
                        column.distinct.as_ref().and_then(|d| d.get(value)).copied().unwrap_or(0)
                    };
                    let yes = match spellings(&values[0], &values[1]) {
                        None if ["true", "t", "yes", "y", "1", "1.0"]
                            .contains(&values[0].to_ascii_lowercase().as_str()) =>
                        {
                            &values[0]
                        }
                        None => &values[1],
                        Some(_) if counts(&values[0]) < counts(&values[1]) => &values[0],
                        Some(_) => &values[1],
                    };
                    let note = format!("1 stands for {}", quoted(yes));
                    let plan = plain("binary", None, &note);
                    outcomes.push(OutcomePlan { equals: Some(yes.clone()), ..plan });
                }
            }
            Some(values) if (!numeric || request.labels) && values.len() <= OUTCOMES_MAX => {
                for value in values {
                    let plan = plain("binary", None, "");
                    outcomes.push(OutcomePlan {
                        name: format!("{name}_{value}"),
                        equals: Some(value),
                        ..plan
                    });
                }
            }
            _ if numeric && !request.labels => {
                let width = column.high - column.low;
                if !width.is_finite() {
                    return Err((
                        format!("the values of the outcome `{name}` are too far apart"),
                        "give the column another unit",
                    ));
                }
                let note = "the range is that of the table, a little widened; give the one that is possible";
                let mut plan = if column.whole {
                    let low = if column.low >= 0.0 { 0.0 } else { column.low - (0.1 * width).ceil() };
                    plain("count", Some((low, column.high + (0.1 * width).ceil())), note)
                } else {
                    let digits = 2 - libm::log10(width).floor() as i32;
                    let low = rounded(column.low - 0.05 * width, digits);
                    let low = if column.low >= 0.0 { low.max(0.0) } else { low };
                    plain("real", Some((low, rounded(column.high + 0.05 * width, digits))), note)
                };
                if !column.is_numeric() {
                    plan.missing = column.strays.iter().cloned().collect();
                }
                outcomes.push(plan);
            }
            _ => {
                return Err((
                    format!("the outcome `{name}` is a text with more than {OUTCOMES_MAX} values"),
                    "an outcome is a number, or one of few labels",
                ));
            }
        }
    }
    if outcomes.len() > OUTCOMES_MAX {
        let count = outcomes.len();
        return Err((format!("{count} outcomes; a packet holds {OUTCOMES_MAX}"), "name fewer columns"));
    }
    Ok(outcomes)
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
        writeln!(text, "# Levels of a slot: 32 are 5 bits.\nlevels = 32")?;
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
