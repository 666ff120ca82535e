//! `qis ask`: what the swarm knows of situations, with intervals and the packets behind it.

use super::places::{From, Origin};
use super::{Compute, Failure, data, output};
use crate::distill::Case;
use crate::domain::{Domain, Purpose, Schema};
use crate::mailbox::Receipt;
use crate::merge::finish::{THIN_EFFECTIVE_CASES, THIN_FURTHER_CASES};
use crate::merge::{Answer, Question, answer::Estimates};
use crate::packet::{AuthorKey, Verdict, hex};
use crate::run::{AuthorFile, Learner};
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Rows that are asked about together: memory stays bounded for any table.
const ROWS_AT_ONCE: usize = 4_096;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  qis ask --domain heart.toml --input new.csv --peer 192.0.2.7:4001
  qis ask --domain heart.toml --input new.csv --mailbox file:///mnt/shared
  qis ask --domain heart.toml --input - --packets heart.qpk --evidence 5 < new.csv")]
pub struct Arguments {
    /// Domain file
    #[arg(long, value_name = "FILE")]
    domain: PathBuf,
    /// View of the domain [default: its first]
    #[arg(long, value_name = "NAME")]
    view: Option<String>,
    /// Table of situations; `-` for standard input. Outcome columns may be absent
    #[arg(long, value_name = "FILE|-")]
    input: PathBuf,
    #[command(flatten)]
    origin: Origin,
    /// List this many packets behind each answer, heaviest first
    #[arg(long, value_name = "K", default_value_t = 0)]
    evidence: usize,
    /// Deposit each public answer as a synthesis: it names its evidence and counts as none
    #[arg(long, requires = "author")]
    publish: bool,
    /// The author's key and counter, to sign what is published; made where there is none
    #[arg(long, value_name = "FILE", requires = "publish")]
    author: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    /// One JSON object per row
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let domain = data::load(&arguments.domain)?;
    let view = Arc::new(data::view(&domain, arguments.view.as_deref())?.clone());
    let engine = Arc::new(arguments.compute.engine()?);
    let mut table = data::open(&arguments.input, &domain, Purpose::Questions)?;
    let schema = Arc::new(domain.schema.clone());
    let printer = Printer { domain: &domain, json: arguments.json, evidence: arguments.evidence };
    let mut author = arguments.author.as_deref().map(AuthorFile::open).transpose()?;
    data::runtime()?.block_on(async {
        let from = arguments.origin.open(&domain).await?;
        // Asking alone signs nothing.
        let key = author.as_ref().map_or_else(|| AuthorKey::from_seed([0; 32]), AuthorFile::key);
        let mut learner = Learner::new(from.clone(), schema.clone(), view.clone(), engine.clone(), key, 0);
        let now_ms = data::now_ms();
        while !output::closed() {
            let mut cases = vec![];
            for row in table.by_ref().take(ROWS_AT_ONCE) {
                cases.push(Case::new(&schema, row?, now_ms));
            }
            if cases.is_empty() {
                break;
            }
            let answers = learner.ask(&cases, now_ms).await?;
            let backend = engine.ran();
            for (case, answer) in cases.iter().zip(&answers) {
                if output::closed() {
                    break;
                }
                let behind = printer.behind(&mut learner, &schema, &view, case, now_ms)?;
                printer.print(case, answer, behind, backend.backend);
            }
            if let Some(author) = &mut author {
                // One number per synthesis, taken before it is signed.
                learner.number_from(author.reserve(cases.len() as u32)?);
                for (case, answer) in cases.iter().zip(&answers) {
                    let receipts = learner.publish(case, answer.action, now_ms).await?;
                    report(case, receipts.unwrap_or_default());
                }
            }
        }
        output::note(&format!("computed on {}", engine.ran()));
        from.close().await;
        Ok(())
    })
}

/// Says which published answers were not taken.
fn report(case: &Case, receipts: Vec<Receipt>) {
    for receipt in receipts {
        if let Receipt::Rejected(reason) = receipt {
            output::note(&format!("row {}: the synthesis was rejected: {reason}", case.row));
        }
    }
}

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

struct Printer<'a> {
    domain: &'a Domain,
    json: bool,
    evidence: usize,
}

/// A packet behind an answer: its id, author, weight of one case, cases.
type Behind = (String, String, f64, u16);

impl Printer<'_> {
    fn behind(
        &self,
        learner: &mut Learner<From>,
        schema: &Schema,
        view: &crate::domain::View,
        case: &Case,
        ask_ms: u64,
    ) -> Result<Vec<Behind>, Failure> {
        if self.evidence == 0 {
            return Ok(vec![]);
        }
        let addresses = learner.addresses(case);
        let batch = learner.batch(&addresses, ask_ms)?;
        let question = Question { schema, view, batch, ask_ms };
        let embedding = crate::embed::cpu::embed_one(&view.metric, &case.signal);
        let rows = question.evidence(&embedding).into_iter().take(self.evidence);
        let one = |(row, weight): (usize, u16)| {
            let author = &batch.authors[batch.author[row] as usize];
            (hex(&batch.ids[row]), hex(author), f64::from(weight) / 4_096.0, batch.columns.cases()[row])
        };
        Ok(rows.map(one).collect())
    }

    fn print(&self, case: &Case, answer: &Answer, behind: Vec<Behind>, backend: &str) {
        if self.json {
            output::json(&self.object(case, answer, &behind, backend));
            return;
        }
        output::line(&headline(case.row, answer));
        let mut rows = self.lines("all", &answer.outcomes);
        if answer.actions.len() > 1 {
            for (action, estimates) in &answer.actions {
                let best = if action.is_some() && *action == answer.action { " (best)" } else { "" };
                rows.extend(self.lines(&format!("{}{best}", self.action(*action)), estimates));
            }
        }
        output::table(["action", "outcome", "estimate", "interval"], rows);
        for (id, author, weight, cases) in behind {
            output::line(&format!(
                "  weight {weight:.4} x {}  packet {}  author {}",
                output::count(cases.into(), "case"),
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

    fn object(&self, case: &Case, answer: &Answer, behind: &[Behind], backend: &str) -> Json {
        let actions: Vec<Json> = answer
            .actions
            .iter()
            .map(|(action, estimates)| {
                json!({"action": action.map(|_| self.action(*action)), "outcomes": self.outcomes(estimates)})
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

    fn action(&self, action: Option<u16>) -> String {
        let known = |index: u16| self.domain.schema.actions.get(usize::from(index)).cloned();
        action
            .map_or_else(|| "none".into(), |index| known(index).unwrap_or_else(|| format!("action {index}")))
    }
}
