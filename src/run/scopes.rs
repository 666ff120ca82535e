//! Questions across scopes: a case that belongs to several of them, say to two specialities.
//!
//! The mailboxes of all its scopes are read, and their packets make one batch, each packet once. Tallies
//! add exactly, so the answer is, bit for bit, that over the union of the packets, and the sums behind it
//! are the sums of what each scope contributes alone. The combined answer supposes that cases of
//! different scopes that are alike in all other features are alike: whether they are is what the parts
//! are shown for.

use super::{Learner, LearnerError};
use crate::address::Address;
use crate::distill::Case;
use crate::limits::SCOPES_PER_QUESTION_MAX;
use crate::mailbox::Mailbox;
use crate::merge::Answer;
use crate::packet::Id;

/// One question over several scopes.
#[derive(Clone, Debug)]
pub struct Spanning {
    /// The case, under the first of its scopes.
    pub case: Case,
    /// Each once, in the order in which they were named.
    pub scopes: Vec<Id>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Spanned {
    /// Over the packets of all scopes.
    pub answer: Answer,
    /// Every mailbox read, each once.
    pub addresses: Vec<Address>,
    /// In the order of the scopes.
    pub parts: Vec<Part>,
}

/// What one scope contributes.
#[derive(Clone, Debug)]
pub struct Part {
    pub scope: Id,
    /// Live packets in its mailboxes.
    pub live: u64,
    /// What would be answered from this scope alone.
    pub alone: Answer,
}

/// Why rows do not make one question.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanningError {
    #[error(
        "row {row} names another scope of the question of row {first}, but differs from it in more than the exact features: rows of one record must agree in all others"
    )]
    OtherSituation { first: u64, row: u64 },
    #[error("the question of row {first} names more than {SCOPES_PER_QUESTION_MAX} scopes")]
    TooMany { first: u64 },
}

impl Spanning {
    /// A question over the case's own scope.
    pub fn new(case: Case) -> Spanning {
        Spanning { scopes: vec![case.scope], case }
    }

    /// Takes in another row of the same question; a scope named twice counts once.
    ///
    /// # Errors
    /// Another situation; more than [`SCOPES_PER_QUESTION_MAX`] scopes.
    pub fn join(&mut self, case: &Case) -> Result<(), SpanningError> {
        let first = self.case.row;
        if case.signal != self.case.signal {
            return Err(SpanningError::OtherSituation { first, row: case.row });
        }
        if !self.scopes.contains(&case.scope) {
            self.scopes.push(case.scope);
        }
        match self.scopes.len() > SCOPES_PER_QUESTION_MAX {
            true => Err(SpanningError::TooMany { first }),
            false => Ok(()),
        }
    }

    /// The mailboxes that the question reads: per scope, and of all scopes together, each once.
    pub fn addresses<M: Mailbox>(&self, learner: &Learner<M>) -> (Vec<Vec<Address>>, Vec<Address>) {
        let at = |&scope: &Id| learner.addresses(&Case { scope, ..self.case.clone() });
        let by_scope: Vec<Vec<Address>> = self.scopes.iter().map(at).collect();
        let mut all: Vec<Address> = vec![];
        for address in by_scope.iter().flatten() {
            if !all.contains(address) {
                all.push(*address);
            }
        }
        (by_scope, all)
    }
}

/// Pulls what is new in the mailboxes of all scopes, and answers from all together and from each alone.
///
/// # Errors
/// As [`Learner::ask`].
pub async fn ask<M: Mailbox>(
    learner: &mut Learner<M>,
    question: &Spanning,
    ask_ms: u64,
) -> Result<Spanned, LearnerError> {
    let (by_scope, addresses) = question.addresses(learner);
    learner.pull(&addresses).await?;
    let signal = &question.case.signal;
    let answer = learner.answer_at(&addresses, signal, ask_ms)?;
    let mut parts = Vec::with_capacity(by_scope.len());
    for (scope, addresses) in question.scopes.iter().zip(&by_scope) {
        let alone = learner.answer_at(addresses, signal, ask_ms)?;
        let live = learner.batch(addresses, ask_ms)?.live() as u64;
        parts.push(Part { scope: *scope, live, alone });
    }
    Ok(Spanned { answer, addresses, parts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Domain, Kernel, Purpose, Table};
    use crate::engine::{Backend, Choice, Engine};
    use crate::limits::SLOTS;
    use crate::mailbox::{Admission, LocalMailbox};
    use crate::merge::{Batch, Question, Tally, cpu, live};
    use crate::packet::{AuthorKey, Verified};
    use crate::store::MemoryStore;
    use ndarray::ArrayView2;
    use std::sync::Arc;

    const NOW_MS: u64 = 1_000_000;

    fn domain() -> Domain {
        let kernel = Kernel::gaussian(50.0).to_toml();
        let text = format!(
            r#"
format = 1
name = "clinic"
[schema]
time_step = "1ms"
exact = ["speciality"]
actions = ["wait", "treat"]
[[feature]]
name = "age"
kind = "numeric"
centre = 50
scale = 10
[[feature]]
name = "speciality"
kind = "categorical"
levels = ["cardiology", "nephrology", "surgery"]
[[outcome]]
name = "ill"
kind = "binary"
direction = "lower"
[[view]]
name = "plain"
prior = {{ cases = 1 }}
{kernel}
[[view]]
name = "split"
address = {{ tables = 2, bits = 3, probes = 2 }}
{kernel}
[source]
record = "id"
"#
        );
        Domain::parse("clinic.toml", &text).unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn cases(domain: &Domain, text: &str, purpose: Purpose) -> Vec<Case> {
        let bytes: crate::domain::table::Bytes = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
        let table = Table::from_bytes("clinic.csv", bytes, domain, purpose).expect("a table");
        Case::read_all(table, &domain.schema, NOW_MS - 1).expect("rows")
    }

    fn evidence(domain: &Domain) -> Vec<Case> {
        let mut text = String::from("id,age,speciality,action,ill\n");
        for i in 0..90 {
            let speciality = ["cardiology", "nephrology", "surgery"][i % 3];
            let action = ["wait", "treat"][i / 3 % 2];
            text += &format!("{i},{},{speciality},{action},{}\n", 30 + i % 40, usize::from(i % 5 == 0));
        }
        cases(domain, &text, Purpose::Evidence)
    }

    fn question(domain: &Domain, rows: &str) -> Result<Spanning, SpanningError> {
        let text = format!("id,age,speciality\n{rows}");
        let mut cases = cases(domain, &text, Purpose::Questions).into_iter();
        let mut question = Spanning::new(cases.next().expect("a row"));
        cases.try_for_each(|case| question.join(&case))?;
        Ok(question)
    }

    #[tokio::test]
    async fn the_answer_is_that_over_the_union_and_the_sums_are_those_of_the_parts() {
        let domain = domain();
        for view in &domain.views {
            let engine = Arc::new(
                Engine::new(&Choice { backend: Backend::Cpu, ..Choice::default() }).expect("an engine"),
            );
            let (schema, view) = (Arc::new(domain.schema.clone()), Arc::new(view.clone()));
            let store = Arc::new(MemoryStore::new([9; 32]));
            let mailbox = LocalMailbox::new(store, Admission::default().carry_any_schema(), || NOW_MS);
            let node = |seed: u8| {
                let key = AuthorKey::from_seed([seed; 32]);
                Learner::new(mailbox.clone(), schema.clone(), view.clone(), engine.clone(), key, 0)
            };
            let mut all: Vec<Verified> = vec![];
            for (number, case) in evidence(&domain).into_iter().enumerate() {
                all.extend(node(1 + number as u8 % 5).observe(&[vec![case]]).await.expect("deposited"));
            }
            let mut asking = node(77);
            let rows = "a,44,cardiology\na,44,nephrology\na,44,cardiology\n";
            let question = question(&domain, rows).expect("one question");
            assert_eq!(question.scopes.len(), 2);
            let found = ask(&mut asking, &question, NOW_MS).await.expect("answered");

            // By hand: every packet of the two scopes that lies in a mailbox read, in one batch.
            let addresser = crate::address::Addresser::new(&view);
            let read = |packet: &&Verified| {
                let embedding = crate::embed::cpu::embed_one(&view.metric, packet.signal());
                let places = addresser.deposit(packet.scope(), &embedding);
                places.iter().any(|address| found.addresses.contains(address))
            };
            let union: Vec<&Verified> = all.iter().filter(read).collect();
            let signal = ArrayView2::from_shape((1, SLOTS), question.case.signal.as_slice()).expect("a row");
            let batch = |packets: &[&Verified]| {
                let live = live(packets.iter().copied(), NOW_MS);
                Batch::new(live, 1, |signals| engine.embed(&view.metric, signals))
            };
            let whole = batch(&union);
            let asked = Question { schema: &schema, view: &view, batch: &whole, ask_ms: NOW_MS };
            assert_eq!(
                found.answer,
                engine.answer(asked, crate::merge::Situations::public(signal, signal))[0],
                "{}",
                view.name
            );
            assert!(found.answer.packets > 10);

            let tally = |batch: &Batch| {
                let gains = batch.gains_under(&view, NOW_MS);
                let spans = [cpu::Span { queries: 0..1, packets: 0..batch.len() }];
                cpu::merge(&batch.job(&view.kernel, &gains, signal, &spans)).tally(0)
            };
            let mut sum = Tally::zero(2);
            for (part, scope) in found.parts.iter().zip(&question.scopes) {
                let mine: Vec<&Verified> = union.iter().filter(|p| p.scope() == scope).copied().collect();
                let alone = batch(&mine);
                let asked = Question { schema: &schema, view: &view, batch: &alone, ask_ms: NOW_MS };
                assert_eq!(
                    (part.scope, &part.alone),
                    (*scope, &engine.answer(asked, crate::merge::Situations::public(signal, signal))[0])
                );
                assert_eq!(part.live, mine.len() as u64);
                sum.add(&tally(&alone));
            }
            assert_eq!(sum, tally(&whole), "exact sums add");
            assert_eq!(sum.count, found.parts.iter().map(|part| part.alone.packets).sum::<u64>());
        }
    }

    #[test]
    fn rows_of_one_question_agree_in_all_but_the_scope() {
        let domain = domain();
        let error = question(&domain, "a,44,cardiology\na,61,nephrology\n").expect_err("two situations");
        assert_eq!(error, SpanningError::OtherSituation { first: 1, row: 2 });
    }
}
