//! `qis ask`: what the swarm knows of situations, with intervals and the packets behind it.

mod choose;
mod print;

use super::places::{From, Origin};
use super::{Compute, Failure, data, output};
use crate::address::Address;
use crate::distill::Case;
use crate::domain::{Domain, FeatureKind, Purpose, Row, Schema, Table, Value};
use crate::mailbox::Receipt;
use crate::merge::{Answer, Question};
use crate::packet::{AuthorKey, hex};
use crate::proof::{Asked, ProofError, ProofWriter};
use crate::run::scopes::{self, Part, Spanning};
use crate::run::{AuthorFile, Learner};
use choose::{Choice, Chooser};
use print::{Behind, Printer, Shown};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Rows that are asked about together: memory stays bounded for any table.
const ROWS_AT_ONCE: usize = 4_096;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  qis ask --domain heart.toml --input new.csv --peer 192.0.2.7:4001
  qis ask --domain heart.toml --input new.csv --mailbox file:///mnt/shared
  qis ask --domain heart.toml --input - --packets heart.qpk --evidence 5 < new.csv
  qis ask --domain heart.toml --input new.csv --packets heart.qpk --proof answers.qpf
  qis ask --domain trial.toml --input subgroup.csv --store /var/lib/qis --against placebo --randomised")]
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
    /// Rows of one record, one behind the other, are one question over the scopes that they name: they
    /// differ in exact features alone
    #[arg(long, conflicts_with = "publish")]
    scopes: bool,
    /// Write the answers with everything they were made from; `qis verify FILE` recomputes them anywhere
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// Deposit each public answer as a synthesis: it names its evidence and counts as none
    #[arg(long, requires = "author")]
    publish: bool,
    /// Answer as this author's node: under a view with own levels, moved by how its outcomes differ
    /// from those of others. Never published, and no proof
    #[arg(long, requires = "author", conflicts_with_all = ["publish", "proof"])]
    personal: bool,
    /// The author's key and counter, to sign what is published, or to ask for; made where there is none
    #[arg(long, value_name = "FILE")]
    author: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    /// One JSON object per row
    #[arg(long)]
    json: bool,
}

/// A question with what came of it.
struct Answered {
    question: Named,
    answer: Answer,
    addresses: Vec<Address>,
    parts: Vec<Part>,
}

/// A question, with its scopes as people write them.
struct Named {
    spanning: Spanning,
    scopes: Vec<String>,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let domain = data::load(&arguments.domain)?;
    let view = Arc::new(data::view(&domain, arguments.view.as_deref())?.clone());
    let engine = Arc::new(arguments.compute.engine()?);
    let table = data::open(&arguments.input, &domain, Purpose::Questions)?;
    let schema = Arc::new(domain.schema.clone());
    let printer = Printer { domain: &domain, json: arguments.json, evidence: arguments.evidence };
    let mut chooser = Chooser::new(&arguments.choice, &domain, &view, &engine)?;
    let mut author = arguments.author.as_deref().map(AuthorFile::open).transpose()?;
    let mut proof = arguments.proof.is_some().then(|| ProofWriter::new(&domain, &view));
    let now_ms = data::now_ms();
    let mut questions = Questions::new(table, &domain, arguments.scopes, now_ms)?;
    data::runtime()?.block_on(async {
        let from = arguments.origin.open(&domain).await?;
        // Asking alone signs nothing.
        let key = author.as_ref().map_or_else(|| AuthorKey::from_seed([0; 32]), AuthorFile::key);
        let mut learner = Learner::new(from.clone(), schema.clone(), view.clone(), engine.clone(), key, 0);
        if arguments.personal {
            learner.ask_personally();
        }
        while !output::closed() {
            let asked = questions.next(ROWS_AT_ONCE)?;
            if asked.is_empty() {
                break;
            }
            let answered = ask(&mut learner, asked, arguments.scopes, now_ms).await?;
            let backend = engine.ran();
            for one in &answered {
                if output::closed() {
                    break;
                }
                let Answered { question, answer, addresses, .. } = one;
                let case = &question.spanning.case;
                let batch = learner.batch(addresses, now_ms)?;
                let behind = behind(
                    Question { schema: &schema, view: &view, batch, ask_ms: now_ms },
                    case,
                    arguments.evidence,
                );
                let choosing = chooser.choose(case, answer, batch, addresses, now_ms);
                let parts: Vec<(String, Part)> =
                    question.scopes.iter().cloned().zip(one.parts.iter().cloned()).collect();
                let (choosing, backend, parts) = (&choosing, backend.backend, &parts[..]);
                printer.print(&Shown { case, answer, behind, backend, choosing, parts });
            }
            if let Some(proof) = &mut proof {
                prove(proof, &learner, &answered, now_ms)?;
            }
            if let Some(author) = author.as_mut().filter(|_| arguments.publish) {
                // One number per synthesis, taken before it is signed.
                learner.number_from(author.reserve(answered.len() as u32)?);
                for Answered { question, answer, .. } in &answered {
                    let case = &question.spanning.case;
                    let receipts = learner.publish(case, answer.action, now_ms).await?;
                    report(case, receipts.unwrap_or_default());
                }
            }
        }
        over_all(&printer, &chooser, arguments.json);
        output::note(&format!("computed on {}", engine.ran()));
        from.close().await;
        Ok::<(), Failure>(())
    })?;
    if let (Some(proof), Some(path)) = (proof, &arguments.proof) {
        let (answers, packets, bytes) = proof.finish(path)?;
        output::note(&format!(
            "{}: {} and {}, {bytes} bytes; `qis verify` recomputes them",
            path.display(),
            output::count(answers as u64, "answer"),
            output::count(packets as u64, "packet"),
        ));
    }
    Ok(())
}

/// Asks together where every question has one scope.
async fn ask(
    learner: &mut Learner<From>,
    questions: Vec<Named>,
    scopes: bool,
    now_ms: u64,
) -> Result<Vec<Answered>, Failure> {
    let mut answered = Vec::with_capacity(questions.len());
    if scopes {
        for question in questions {
            let found = scopes::ask(learner, &question.spanning, now_ms).await?;
            let (answer, addresses, parts) = (found.answer, found.addresses, found.parts);
            answered.push(Answered { question, answer, addresses, parts });
        }
        return Ok(answered);
    }
    let cases: Vec<Case> = questions.iter().map(|question| question.spanning.case.clone()).collect();
    let answers = learner.ask(&cases, now_ms).await?;
    for (question, answer) in questions.into_iter().zip(answers) {
        let addresses = learner.addresses(&question.spanning.case);
        answered.push(Answered { question, answer, addresses, parts: vec![] });
    }
    Ok(answered)
}

/// The questions of a table, one row each, or one record each.
struct Questions<'a> {
    table: Table,
    schema: &'a Schema,
    scopes: bool,
    now_ms: u64,
    /// The record of the question that is being read, and what there is of it.
    open: Option<(String, Named)>,
}

impl<'a> Questions<'a> {
    fn new(table: Table, domain: &'a Domain, scopes: bool, now_ms: u64) -> Result<Questions<'a>, Failure> {
        if scopes && domain.source.record.is_none() {
            return Err(Failure::usage(
                "--scopes: rows of one question are known by their record: name its column in [source], record = \"...\" (no id changes)",
            ));
        }
        if scopes && domain.schema.exact.is_empty() {
            return Err(Failure::usage("--scopes: the schema has no exact features, so there is one scope"));
        }
        Ok(Questions { table, schema: &domain.schema, scopes, now_ms, open: None })
    }

    /// At most so many; none at the end of the table.
    fn next(&mut self, most: usize) -> Result<Vec<Named>, Failure> {
        let mut questions = vec![];
        while questions.len() < most {
            let Some(row) = self.table.next().transpose()? else {
                questions.extend(self.open.take().map(|(_, question)| question));
                break;
            };
            let scope = scope_name(self.schema, &row);
            let record = row.record.clone().filter(|_| self.scopes);
            let case = Case::new(self.schema, row, self.now_ms);
            match (&mut self.open, record) {
                (Some((of, question)), Some(record)) if *of == record => {
                    let before = question.spanning.scopes.len();
                    question.spanning.join(&case).map_err(Failure::rejected)?;
                    if question.spanning.scopes.len() > before {
                        question.scopes.push(scope);
                    }
                }
                (_, record) => {
                    questions.extend(self.open.take().map(|(_, question)| question));
                    let question = Named { spanning: Spanning::new(case), scopes: vec![scope] };
                    match record {
                        Some(record) => self.open = Some((record, question)),
                        None => questions.push(question),
                    }
                }
            }
        }
        Ok(questions)
    }
}

/// The exact values of a row, as in `speciality cardiology, ward 3`.
fn scope_name(schema: &Schema, row: &Row) -> String {
    let one = |&index: &u16| {
        let feature = &schema.features[usize::from(index)];
        let value = match (&feature.kind, &row.values[usize::from(index)]) {
            (FeatureKind::Categorical { levels } | FeatureKind::Ordinal { levels }, Value::Level(level)) => {
                levels[*level].clone()
            }
            (_, Value::Bool(value)) => value.to_string(),
            (_, Value::Text(text)) => text.clone(),
            (_, Value::Number(number)) => number.to_string(),
            _ => "missing".into(),
        };
        format!("{} {value}", feature.name)
    };
    schema.exact.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The packets behind an answer, heaviest first.
fn behind(question: Question, case: &Case, most: usize) -> Vec<Behind> {
    if most == 0 {
        return vec![];
    }
    let batch = question.batch;
    let embedding = crate::embed::cpu::embed_one(&question.view.metric, &case.signal);
    let one = |(row, weight): (usize, u16)| {
        let author = &batch.authors[batch.author[row] as usize];
        (hex(&batch.ids[row]), hex(author), f64::from(weight) / 4_096.0, batch.columns.cases()[row])
    };
    question.evidence(&embedding).into_iter().take(most).map(one).collect()
}

/// Adds answers to a proof, mailbox by mailbox.
fn prove(
    proof: &mut ProofWriter,
    learner: &Learner<From>,
    answered: &[Answered],
    ask_ms: u64,
) -> Result<(), Failure> {
    let mut together: BTreeMap<&[Address], Vec<&Answered>> = BTreeMap::new();
    for one in answered {
        together.entry(&one.addresses).or_default().push(one);
    }
    for (addresses, answered) in together {
        let claims = answered.iter().map(|one| {
            let Spanning { case, scopes } = &one.question.spanning;
            (Asked { row: case.row, signal: case.signal, scopes: scopes.clone(), ask_ms }, &one.answer)
        });
        proof.add(claims, &learner.packets(addresses))?;
    }
    Ok(())
}

/// The effects over all rows asked, where they were wanted.
fn over_all(printer: &Printer, chooser: &Chooser, json: bool) {
    let (told, rows) = chooser.over_all();
    if told.is_empty() {
        return;
    }
    if json {
        let effects: Vec<_> = told.iter().map(|told| printer.effect(told)).collect();
        output::json(&json!({ "effects_over_all_rows": effects, "rows": rows }));
        return;
    }
    output::line(&format!("over {}:", output::count(rows, "row")));
    printer.print_effects(&told);
}

/// Says which published answers were not taken.
fn report(case: &Case, receipts: Vec<Receipt>) {
    for receipt in receipts {
        if let Receipt::Rejected(reason) = receipt {
            output::note(&format!("row {}: the synthesis was rejected: {reason}", case.row));
        }
    }
}

impl std::convert::From<ProofError> for Failure {
    fn from(error: ProofError) -> Failure {
        match &error {
            ProofError::TooMany { .. } => Failure::usage(error.to_string()),
            ProofError::Io { .. } => Failure::failed(error),
            _ => Failure::rejected(error),
        }
    }
}
