//! Which outcomes a column becomes.

use super::Request;
use super::draft::Roles;
use super::features::{rounded, spellings};
use super::profile::Profile;
use crate::domain::file::quoted;
use crate::limits::OUTCOMES_MAX;

/// One outcome of the draft.
pub(super) struct OutcomePlan {
    pub(super) name: String,
    pub(super) column: String,
    pub(super) kind: &'static str,
    pub(super) range: Option<(f64, f64)>,
    pub(super) equals: Option<String>,
    pub(super) missing: Vec<String>,
    pub(super) note: String,
}

/// The outcomes of the columns that were asked for.
///
/// # Errors
/// What is wrong with a column, and the remedy.
pub(super) fn outcomes(
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
