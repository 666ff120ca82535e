//! Reads `[[view]]`.
//!
//! Keys: `name`, `metric` ("identity", `{ diagonal = [one weight per slot], shift = 0 }` or
//! `{ full = [128 rows] or hex digits, shift = 0 }`), `kernel` (`{ shift = 0, table = [...] }`, a
//! shorter table is filled up with zeros), `prior` (`{ kind = "mean", cases = 2.0 }`), `address`
//! (`{ tables = 1, bits = 0, probes = 1 }`), `decay` (`{ half_life = "30d", table = [...] }`; none
//! where absent), `level` (90), `finish` (1). With finish 2 the prior may be
//! `{ kind = "scores", cases = 2.0, fitted = "hex digits of its postcard" }`, and there may be `options`
//! (own offset, trust, calibration). `signature`, hex digits, is the curator's over the view's id.

use super::diagnose::Problems;
use super::fields::{Fields, Placed};
use super::schema::{Names, duration, hex, named};
use crate::domain::prior::{Prior, Scores};
use crate::domain::schema::Schema;
use crate::domain::view::{Addressing, Bits, Calibration, Decay, Kernel, Metric, Options, Trust, View};
use crate::limits::{
    CALIBRATION_ENTRIES_MAX, DECAY_ENTRIES_MAX, FINGERPRINT_BITS, FINISH_VERSION, KERNEL_ENTRIES, PROBES_MAX,
    SHIFT_MAX, SLOTS, TABLES_MAX, WEIGHT_ONE,
};
use crate::packet::is_signed;
use std::sync::Arc;

/// What a view's signature is for.
pub const VIEW_PURPOSE: &str = "qis 1 view signature";

/// The prior's strength where the file names none, in cases.
const PRIOR_CASES: f64 = 2.0;

pub(super) fn read(root: &mut Fields, schema: &Schema, problems: &mut Problems) -> Vec<View> {
    let tables = root.sections("view", problems);
    if tables.is_empty() && root.raw("view").is_none() {
        let help = "what \"similar\" means; `qis domain kernel --bandwidth 20` prints a kernel to start with";
        root.absent("[[view]]", help, problems);
    }
    let mut names = Names::new("view");
    let schema_id = schema.id();
    let slots = schema.layout().1;
    let mut views = Vec::new();
    for (span, table) in tables {
        let mut fields = Fields::new("a view", span, table);
        let name = named(&mut fields, "view", &mut names, problems);
        let level = fields.integer("level", 1..=99u8, problems);
        let finish = finish(&mut fields, problems);
        let view = View {
            name,
            schema: schema_id,
            metric: metric(&mut fields, slots, problems),
            kernel: kernel(&mut fields, problems),
            prior: prior(&mut fields, schema.outcomes.len(), finish, problems),
            addressing: addressing(&mut fields, problems),
            decay: decay(&mut fields, problems),
            level: level.map_or(90, |level| level.value),
            finish,
            curator: schema.curator,
            options: options(&mut fields, finish, schema.outcomes.len(), problems),
        };
        signature(&mut fields, &view, problems);
        fields.finish(problems);
        views.push(view);
    }
    views
}

/// A view that says it is signed must be signed by the schema's curator; nothing of it is hashed.
fn signature(fields: &mut Fields, view: &View, problems: &mut Problems) {
    let Some(Placed { value, span }) = fields.text("signature", problems) else { return };
    let bytes = hex(&value).and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    let signed = bytes.is_some_and(|bytes| is_signed(&view.curator, VIEW_PURPOSE, &view.id(), &bytes));
    if !signed {
        let message = format!("the signature of {} is not its curator's", fields.what);
        let help = "the view was changed after it was signed, or the schema names another curator; without the \
                    line the view is unsigned";
        problems.note(span, message, "does not match", Some(help.into()));
    }
}

fn finish(fields: &mut Fields, problems: &mut Problems) -> u16 {
    // The default is 1 for good, whatever this program's newest version is: it enters the id.
    let Some(finish) = fields.integer("finish", 0..=u16::MAX, problems) else { return 1 };
    if !(1..=FINISH_VERSION).contains(&finish.value) {
        let message = format!("`finish` {} of {} is not known to this program", finish.value, fields.what);
        let help = format!("this program knows 1 to {FINISH_VERSION}; a newer one may know this version");
        problems.note(finish.span, message, "unknown version", help);
    }
    finish.value
}

fn metric(fields: &mut Fields, slots: usize, problems: &mut Problems) -> Metric {
    let Some(value) = fields.raw("metric") else { return Metric::Identity };
    if value.get_ref().is_str() {
        fields.choice("metric", &[("identity", ())], problems);
        return Metric::Identity;
    }
    let what = format!("`metric` of {}", fields.what);
    let Some(mut metric) = fields.section("metric", what, problems) else { return Metric::Identity };
    let shift = metric.integer("shift", 0..=SHIFT_MAX, problems).map_or(0, |shift| shift.value);
    let diagonal = metric.raw("diagonal");
    let full = metric.raw("full");
    let read = match (diagonal, full) {
        (Some(_), None) => {
            let weights = metric.integers("diagonal", -127..=127i8, problems);
            weights.map(|Placed { value: mut weights, span }| {
                if ![slots, SLOTS].contains(&weights.len()) {
                    let message = format!("`diagonal` of {} has {} weights", metric.what, weights.len());
                    let label = format!("{slots}, one per slot of the features, or {SLOTS} expected");
                    problems.note(span, message, label, None);
                }
                // Slots that no feature owns are always 0.
                weights.resize(SLOTS, 0);
                Metric::Diagonal { shift, weights }
            })
        }
        (None, Some(value)) => {
            full_matrix(&mut metric, value.span(), problems).map(|matrix| Metric::Full { shift, matrix })
        }
        _ => {
            let message = format!("{} has not one of `diagonal` and `full`", metric.what);
            let help =
                "metric = \"identity\", { diagonal = [...], shift = 0 } or { full = [...], shift = 0 }";
            problems.note(metric.span.clone(), message, "one of the two expected", Some(help.into()));
            None
        }
    };
    metric.finish(problems);
    read.unwrap_or(Metric::Identity)
}

/// 128 x 128 weights, row-major: a list of rows, or hex digits of the two's complement bytes.
fn full_matrix(
    fields: &mut Fields,
    span: std::ops::Range<usize>,
    problems: &mut Problems,
) -> Option<Vec<i8>> {
    let value = fields.raw("full")?;
    let range = -127..=127i8;
    let matrix: Vec<i8> = if let Some(rows) = value.get_ref().as_array() {
        let mut matrix = Vec::with_capacity(SLOTS * SLOTS);
        for row in rows {
            let cells = row.get_ref().as_array();
            if cells.is_none_or(|cells| cells.len() != SLOTS) {
                let message = format!("a row of {} is no list of {SLOTS} weights", fields.what);
                problems.note(row.span(), message, format!("{SLOTS} integers expected"), None);
                return None;
            }
            for cell in cells.into_iter().flatten() {
                matrix.push(fields.integer_of("full", cell, &range, problems)?.value);
            }
        }
        matrix
    } else {
        let text = fields.text("full", problems)?;
        let bytes = hex(&text.value).unwrap_or_default();
        bytes.into_iter().map(|byte| byte as i8).collect()
    };
    if matrix.len() != SLOTS * SLOTS || matrix.contains(&i8::MIN) {
        let message = format!("`full` of {} is no {SLOTS} x {SLOTS} matrix in -127..=127", fields.what);
        let label = format!("{SLOTS} rows of {SLOTS}, or {} hex digits expected", 2 * SLOTS * SLOTS);
        problems.note(span, message, label, None);
        return None;
    }
    Some(matrix)
}

fn kernel(fields: &mut Fields, problems: &mut Problems) -> Kernel {
    let empty = Kernel { shift: 0, table: vec![0; KERNEL_ENTRIES] };
    let what = format!("`kernel` of {}", fields.what);
    if fields.raw("kernel").is_none() {
        let help = "`qis domain kernel --bandwidth 20` prints one, ready to be pasted here";
        fields.absent("kernel", help, problems);
    }
    let Some(mut kernel) = fields.section("kernel", what, problems) else { return empty };
    let shift = kernel.integer("shift", 0..=SHIFT_MAX, problems).map_or(0, |shift| shift.value);
    if kernel.raw("table").is_none() {
        kernel.absent("table", "weights by distance, 0 to 4096, the last 0", problems);
    }
    let table = kernel.integers("table", 0..=WEIGHT_ONE, problems);
    let what = kernel.what.clone();
    kernel.finish(problems);
    let Some(Placed { value: mut table, span }) = table else { return empty };
    if table.len() > KERNEL_ENTRIES {
        let message = format!("`table` of {what} has {} entries", table.len());
        problems.note(span, message, format!("at most {KERNEL_ENTRIES}"), None);
        return empty;
    }
    if table.len() == KERNEL_ENTRIES && table[KERNEL_ENTRIES - 1] != 0 {
        let message = format!("`table` of {what} does not end with 0");
        let help = "the last entry stands for all larger distances, whose packets are skipped; raise `shift`";
        problems.note(span, message, "the last entry must be 0", Some(help.into()));
        return empty;
    }
    if table.iter().all(|&weight| weight == 0) {
        let message = format!("`table` of {what} is zero everywhere");
        problems.note(span, message, "no packet would ever count", None);
        return empty;
    }
    table.resize(KERNEL_ENTRIES, 0);
    Kernel { shift, table }
}

fn prior(fields: &mut Fields, outcomes: usize, finish: u16, problems: &mut Problems) -> Prior {
    let what = format!("`prior` of {}", fields.what);
    let Some(mut prior) = fields.section("prior", what, problems) else {
        return Prior::Mean { cases: PRIOR_CASES };
    };
    let kind = prior.choice("kind", &[("mean", false), ("scores", true)], problems);
    let scored = kind.is_some_and(|kind| kind.value);
    let cases = prior.real("cases", problems);
    if let Some(Placed { value, span }) = &cases
        && *value < 0.0
    {
        let message = format!("`cases` of {} is negative", prior.what);
        problems.note(span.clone(), message, "0 or more expected", None);
    }
    let cases = cases.map_or(PRIOR_CASES, |cases| cases.value);
    let fitted = prior.text("fitted", problems);
    let read = match (scored, fitted) {
        (false, None) => Prior::Mean { cases },
        (true, Some(text)) => match scores(&text.value, outcomes) {
            Ok(scores) if finish >= 2 => Prior::Scores(Arc::new(Scores { cases: Bits(cases), ..scores })),
            Ok(_) => {
                let message = format!("{} are scores, and `finish` is {finish}", prior.what);
                problems.note(text.span, message, "finish = 2 expected", None);
                Prior::Mean { cases }
            }
            Err(why) => {
                let message = format!("`fitted` of {} is not to be read: {why}", prior.what);
                let help = "`qis domain tune` writes this line; it is not made to be edited";
                problems.note(text.span, message, "damaged", Some(help.into()));
                Prior::Mean { cases }
            }
        },
        _ => {
            let message = format!("{}: `fitted` belongs to kind = \"scores\", and only there", prior.what);
            problems.note(prior.span.clone(), message, "one without the other", None);
            Prior::Mean { cases }
        }
    };
    prior.finish(problems);
    read
}

/// Scores from the hex digits of their postcard.
fn scores(text: &str, outcomes: usize) -> Result<Scores, String> {
    let bytes = hex(text).ok_or("it is no hex digits")?;
    let (scores, rest): (Scores, _) = postcard::take_from_bytes(&bytes).map_err(|e| e.to_string())?;
    if !rest.is_empty() {
        return Err(format!("{} bytes too many", rest.len()));
    }
    if scores.outcomes.len() != outcomes {
        return Err(format!("{} scores for {outcomes} outcomes", scores.outcomes.len()));
    }
    if !scores.is_sound() {
        return Err("a size or value is outside the format".into());
    }
    Ok(scores)
}

/// `options = { own_offset = cases, trust = { spread, cases_max }, calibration = [{ scale, floor,
/// lower, upper }, ...] }`.
fn options(fields: &mut Fields, finish: u16, outcomes: usize, problems: &mut Problems) -> Option<Options> {
    let what = format!("`options` of {}", fields.what);
    let mut options = fields.section("options", what, problems)?;
    if finish < 2 {
        let message = format!("{} need `finish` 2", options.what);
        problems.note(options.span.clone(), message, "finish = 2 expected", None);
    }
    let own_offset = positive(&mut options, "own_offset", problems).map(Bits);
    let what = format!("`trust` of {}", options.what);
    let trust = options.section("trust", what, problems).map(|mut trust| {
        let spread = positive(&mut trust, "spread", problems).unwrap_or(0.0);
        let cases_max = trust.integer("cases_max", 1..=u32::MAX, problems).map_or(u32::MAX, |n| n.value);
        trust.finish(problems);
        Trust { spread: Bits(spread), cases_max }
    });
    let mut calibration = vec![];
    for (span, table) in options.sections("calibration", problems) {
        let mut one = Fields::new(format!("a calibration of {}", options.what), span, table);
        let mut read = |key| Bits(positive(&mut one, key, problems).unwrap_or(0.0));
        let (scale, floor) = (read("scale"), read("floor"));
        let mut ends = |key| -> Vec<Bits> {
            let reals = one.reals(key, problems).map(|reals| reals.value).unwrap_or_default();
            reals.into_iter().map(|real| Bits(real.value.max(0.0))).collect()
        };
        let (lower, upper) = (ends("lower"), ends("upper"));
        if lower.len() != upper.len() || lower.len() > CALIBRATION_ENTRIES_MAX {
            let message = format!("{}: {} lower and {} upper ends", one.what, lower.len(), upper.len());
            let label = format!("as many of both, at most {CALIBRATION_ENTRIES_MAX}");
            problems.note(one.span.clone(), message, label, None);
        }
        calibration.push(Calibration { scale, floor, lower, upper });
        one.finish(problems);
    }
    if !calibration.is_empty() && calibration.len() != outcomes {
        let message = format!("{} has {} calibrations", options.what, calibration.len());
        problems.note(options.span.clone(), message, format!("{outcomes} expected, one per outcome"), None);
    }
    options.finish(problems);
    Some(Options { own_offset, trust, calibration })
}

/// A number that is not negative.
fn positive(fields: &mut Fields, key: &'static str, problems: &mut Problems) -> Option<f64> {
    let Placed { value, span } = fields.real(key, problems)?;
    if value < 0.0 {
        let message = format!("`{key}` of {} is negative", fields.what);
        problems.note(span, message, "0 or more expected", None);
        return None;
    }
    Some(value)
}

fn addressing(fields: &mut Fields, problems: &mut Problems) -> Addressing {
    let plain = Addressing { tables: 1, bits: 0, probes: 1 };
    let what = format!("`address` of {}", fields.what);
    let Some(mut address) = fields.section("address", what, problems) else { return plain };
    let tables = address.integer("tables", 1..=TABLES_MAX, problems).map_or(1, |n| n.value);
    let bits = address.integer("bits", 0..=FINGERPRINT_BITS as u16, problems).map_or(0, |n| n.value);
    let probes = address.integer("probes", 1..=PROBES_MAX, problems).map_or(1, |n| n.value);
    if usize::from(tables) * usize::from(bits) > FINGERPRINT_BITS {
        let message = format!("{}: {tables} tables of {bits} bits", address.what);
        let label = format!("a fingerprint has {FINGERPRINT_BITS} bits");
        problems.note(address.span.clone(), message, label, Some("use fewer tables or bits".into()));
    }
    if bits == 0 && (tables > 1 || probes > 1) {
        let message = format!("{}: bits = 0 is one mailbox per scope", address.what);
        let help = "tables = 1, bits = 0, probes = 1; or choose bits above 0";
        problems.note(address.span.clone(), message, "more tables or probes add nothing", Some(help.into()));
    }
    address.finish(problems);
    Addressing { tables, bits, probes }
}

fn decay(fields: &mut Fields, problems: &mut Problems) -> Decay {
    let what = format!("`decay` of {}", fields.what);
    let Some(mut decay) = fields.section("decay", what, problems) else { return Decay::none() };
    let none = decay.raw("half_life").and_then(|value| super::fields::whole(value.get_ref())) == Some(0);
    let half_life = if none { None } else { duration(&mut decay, "half_life", problems) };
    if decay.raw("half_life").is_none() {
        let help = "for example half_life = \"30d\"; without decay leave the whole `decay` out";
        decay.absent("half_life", help, problems);
    }
    let table = decay.integers("table", 0..=WEIGHT_ONE, problems);
    if decay.raw("table").is_none() && !none {
        let help = "`qis domain decay --half-life 30d` prints one; readers never compute it";
        decay.absent("table", help, problems);
    }
    let table = table.map(|table| {
        if table.value.is_empty() || table.value.len() > DECAY_ENTRIES_MAX {
            let message = format!("`table` of {} has {} entries", decay.what, table.value.len());
            problems.note(table.span, message, format!("1 to {DECAY_ENTRIES_MAX} expected"), None);
        } else if none && table.value != [WEIGHT_ONE] {
            let message = format!("`table` of {} fades, and half_life is 0", decay.what);
            problems.note(table.span, message, "[4096] expected", None);
        }
        table.value
    });
    decay.finish(problems);
    Decay {
        half_life_ms: half_life.map_or(0, |half_life| half_life.value),
        table: table.filter(|table| !table.is_empty()).unwrap_or_else(|| vec![WEIGHT_ONE]),
    }
}
