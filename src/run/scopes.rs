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
