//! How an answer is shown: a table for people, an object for programs.

use super::choose::{Choosing, Told};
use crate::cli::output;
use crate::distill::Case;
use crate::domain::{Domain, Outcome};
use crate::merge::choice::Overlap;
use crate::merge::effect::Effect;
use crate::merge::finish::{THIN_EFFECTIVE_CASES, THIN_FURTHER_CASES};
use crate::merge::{Answer, answer::Estimates};
use crate::packet::{Verdict, hex};
use crate::run::scopes::Part;
use serde_json::{Value as Json, json};

/// The verdict, for a thin answer why it is thin, and what is behind it.
fn headline(row: u64, answer: &Answer) -> String {
    let mut why = vec![];
    let mut rest = String::new();
    if answer.effective_cases < THIN_EFFECTIVE_CASES {
        why.push(format!("fewer than {THIN_EFFECTIVE_CASES} effective cases"));
    }
    match answer.authors {
        0 => why = vec!["no similar case".into()],
        1 => why.push("one author only".into()),
        _ => {}
    }
    if let Some(further) = answer.further_cases {
        let flip = format!("{} may flip the choice", output::count(further, "further case"));
        match answer.verdict {
            Verdict::Thin if further <= THIN_FURTHER_CASES => why.push(flip),
            _ => rest = format!("; {flip}"),
        }
    }
    let why = match answer.verdict {
        Verdict::Thin => format!(" ({})", why.join(", ")),
        _ => String::new(),
    };
    format!(
        "row {row}: {}{why} from {:.1} effective cases, {} of {}{rest}",
        answer.verdict.name(),
        answer.effective_cases,
        output::count(answer.packets, "packet"),
        output::count(answer.authors, "author"),
    )
}

/// Prints answers of one domain.
pub struct Printer<'a> {
    pub domain: &'a Domain,
    pub json: bool,
    /// Packets listed behind each answer.
    pub evidence: usize,
}

/// A packet behind an answer: its id, author, weight of one case, cases.
pub type Behind = (String, String, f64, u16);

/// Everything that is known of one row.
pub struct Shown<'a> {
    pub case: &'a Case,
    pub answer: &'a Answer,
    pub behind: Vec<Behind>,
    pub backend: &'a str,
    pub choosing: &'a Choosing,
    /// Names and contributions of the scopes of a question across several.
    pub parts: &'a [(String, Part)],
}

impl Printer<'_> {
    pub fn print(&self, shown: &Shown) {
        if self.json {
            output::json(&self.object(shown));
            return;
        }
        let Shown { case, answer, behind, choosing, .. } = shown;
        output::line(&headline(case.row, answer));
        let mut rows = self.lines("all", &answer.outcomes);
        if answer.actions.len() > 1 {
            for (action, estimates) in &answer.actions {
                let best = if action.is_some() && *action == answer.action { " (best)" } else { "" };
                rows.extend(self.lines(&format!("{}{best}", self.action(*action)), estimates));
            }
        }
        output::table(["action", "outcome", "estimate", "interval"], rows);
        self.print_parts(shown.parts);
        self.print_choosing(choosing);
        for (id, author, weight, cases) in behind {
            output::line(&format!(
                "  weight {weight:.4} x {}  packet {}  author {}",
                output::count((*cases).into(), "case"),
                &id[..16],
                &author[..16]
            ));
        }
    }

    fn lines(&self, action: &str, estimates: &Estimates) -> Vec<[String; 4]> {
        let outcomes = self.domain.schema.outcomes.iter().zip(estimates);
        outcomes
            .map(|(outcome, estimate)| {
                let unit = if outcome.unit.is_empty() { String::new() } else { format!(" {}", outcome.unit) };
                let (value, interval) = match estimate {
                    None => ("unknown".to_string(), "-".to_string()),
                    Some(e) => (
                        format!("{:.4}{unit}", e.estimate),
                        format!("{:.4} to {:.4}{unit}", e.lower, e.upper),
                    ),
                };
                [action.to_string(), outcome.name.clone(), value, interval]
            })
            .collect()
    }

    fn object(&self, shown: &Shown) -> Json {
        let Shown { case, answer, behind, backend, choosing, parts } = shown;
        let actions: Vec<Json> = answer
            .actions
            .iter()
            .map(|(action, estimates)| {
                let mut object =
                    json!({"action": action.map(|_| self.action(*action)), "outcomes": self.outcomes(estimates)});
                self.add_choosing(&mut object, *action, choosing);
                object
            })
            .collect();
        let mut object = json!({
            "row": case.row,
            "verdict": answer.verdict.name(),
            "outcomes": self.outcomes(&answer.outcomes),
            "action": answer.action.map(|action| self.action(Some(action))),
            "actions": actions,
            "effective_cases": answer.effective_cases,
            "further_cases": answer.further_cases,
            "packets": answer.packets,
            "authors": answer.authors,
            "backend": backend,
        });
        if !choosing.effects.is_empty() {
            object["effects"] = choosing.effects.iter().map(|told| self.effect(told)).collect();
        }
        if let Some(explored) = &choosing.explored {
            object["explored"] = json!({
                "action": self.action(Some(explored.action)),
                "chance": explored.chance,
                "greedy": Some(explored.action) == answer.action,
                "seed": explored.seed,
            });
        }
        if !parts.is_empty() {
            let one = |(name, part): &(String, Part)| {
                json!({
                    "scope": name,
                    "scope_id": hex(&part.scope),
                    "live_packets": part.live,
                    "packets": part.alone.packets,
                    "authors": part.alone.authors,
                    "effective_cases": part.alone.effective_cases,
                    "verdict": part.alone.verdict.name(),
                    "outcomes": self.outcomes(&part.alone.outcomes),
                })
            };
            object["scopes"] = parts.iter().map(one).collect();
        }
        if self.evidence > 0 {
            let list = behind.iter().map(|(id, author, weight, cases)| {
                json!({"packet": id, "author": author, "weight": weight, "cases": cases})
            });
            object["evidence"] = list.collect();
        }
        object
    }

    fn outcomes(&self, estimates: &Estimates) -> Vec<Json> {
        let outcomes = self.domain.schema.outcomes.iter().zip(estimates);
        outcomes
            .filter_map(|(outcome, estimate)| {
                let e = (*estimate)?;
                Some(
                    json!({"name": outcome.name, "estimate": e.estimate, "lower": e.lower, "upper": e.upper}),
                )
            })
            .collect()
    }

    pub fn action(&self, action: Option<u16>) -> String {
        let known = |index: u16| self.domain.schema.actions.get(usize::from(index)).cloned();
        action
            .map_or_else(|| "none".into(), |index| known(index).unwrap_or_else(|| format!("action {index}")))
    }

    /// What each scope contributes.
    fn print_parts(&self, parts: &[(String, Part)]) {
        let rows = parts.iter().flat_map(|(name, part)| {
            self.lines(name, &part.alone.outcomes).into_iter().map(|[scope, outcome, estimate, interval]| {
                let cases =
                    format!("{:.1} from {} of {}", part.alone.effective_cases, part.alone.packets, part.live);
                [scope, cases, outcome, estimate, interval]
            })
        });
        if !parts.is_empty() {
            output::table(
                ["scope alone", "effective cases, packets", "outcome", "estimate", "interval"],
                rows,
            );
        }
    }

    fn print_choosing(&self, choosing: &Choosing) {
        if choosing.chances.len() > 1 {
            let one = |(action, chance): &(u16, f64)| format!("{} {chance:.3}", self.action(Some(*action)));
            let chances: Vec<String> = choosing.chances.iter().map(one).collect();
            output::line(&format!("  chance to be the best: {}", chances.join(", ")));
        }
        if !choosing.effects.is_empty() {
            self.print_effects(&choosing.effects);
        }
        for (action, overlap) in &choosing.overlaps {
            let action = self.action(*action);
            match overlap {
                Overlap::Enough => {}
                Overlap::Thin(cases) => output::line(&format!(
                    "  warning: {action} has {cases:.1} effective cases near this situation, fewer than {THIN_EFFECTIVE_CASES}"
                )),
                Overlap::OutOfReach => output::line(&format!(
                    "  warning: every case of {action} lies farther away than the kernel reaches: its estimate is its plain mean"
                )),
            }
        }
        if let Some(explored) = &choosing.explored {
            output::line(&format!(
                "  explore: {} (taken with a chance of {:.3}; seed {})",
                self.action(Some(explored.action)),
                explored.chance,
                explored.seed
            ));
        }
    }

    /// A table of effects, of one row or over all.
    pub fn print_effects(&self, effects: &[Told]) {
        let shown = |effect: &Effect, outcome: &Outcome| {
            let unit = if outcome.unit.is_empty() { String::new() } else { format!(" {}", outcome.unit) };
            let [estimate, lower, upper] = in_unit(effect, outcome);
            format!("{estimate:+.4} ({lower:+.4} to {upper:+.4}){unit}")
        };
        let rows = effects.iter().map(|told| {
            let outcome = &self.domain.schema.outcomes[told.pair.outcome];
            let of = |effect: &Option<Effect>| effect.map_or_else(|| "-".into(), |e| shown(&e, outcome));
            [
                format!(
                    "{} against {}",
                    self.action(Some(told.pair.action)),
                    self.action(Some(told.pair.against))
                ),
                outcome.name.clone(),
                of(&told.difference),
                of(&told.robust),
            ]
        });
        output::table(["effect of", "on", "difference of estimates", "corrected for unlike cases"], rows);
    }

    /// An effect for programs, in the outcome's unit.
    pub fn effect(&self, told: &Told) -> Json {
        let outcome = &self.domain.schema.outcomes[told.pair.outcome];
        let one = |effect: &Effect| {
            let [estimate, lower, upper] = in_unit(effect, outcome);
            json!({"estimate": estimate, "lower": lower, "upper": upper, "degrees_of_freedom": effect.degrees})
        };
        json!({
            "action": self.action(Some(told.pair.action)),
            "against": self.action(Some(told.pair.against)),
            "outcome": outcome.name,
            "difference": told.difference.as_ref().map(one),
            "robust": told.robust.as_ref().map(one),
        })
    }

    fn add_choosing(&self, object: &mut Json, action: Option<u16>, choosing: &Choosing) {
        let chance = choosing.chances.iter().find(|(of, _)| Some(*of) == action);
        if let Some((_, chance)) = chance {
            object["chance_best"] = json!(chance);
        }
        let overlap = choosing.overlaps.iter().find(|(of, _)| *of == action);
        if let Some((_, overlap)) = overlap {
            object["overlap"] = json!(match overlap {
                Overlap::Enough => "enough",
                Overlap::Thin(_) => "thin",
                Overlap::OutOfReach => "out of reach",
            });
        }
    }
}

/// Estimate, lower and upper end in the outcome's unit.
fn in_unit(effect: &Effect, outcome: &Outcome) -> [f64; 3] {
    [effect.estimate, effect.lower, effect.upper].map(|x| x * (outcome.high - outcome.low))
}
