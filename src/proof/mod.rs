//! Answers that anybody can recompute, on any machine and without a network.
//!
//! A *proof* is one file: the domain, questions with their answers, and every packet that they were made
//! from. [`check`](mod@check) reads one, recomputes the answers and compares them bit for bit; [`mod@file`] is
//! the way there and back. [`synthesis`] does the same for the synthesis packets of a mailbox.
//!
//! # Format
//!
//! | part | bytes |
//! |---|---|
//! | header | one line of JSON, ended by a newline; it begins with `{"format":"qis proof 1"` |
//! | packets | n x 512, ascending by id |
//! | digest | 32: BLAKE3 `derive_key("qis 1 proof", all before)` |
//!
//! The header holds `finish` (version of the finish's formulas), `schema` and `view` (ids),
//! `view_name`, `packets` (n), `domain` (the text of the domain file), and `answers`: row, signal
//! (256 hexadecimal digits), scopes, `ask_ms`, lineage root, and the answer as [`fields`](mod@fields).
//!
//! The packets are the newest version of everything observed in the mailboxes read, dead or alive, and
//! all retractions there. What an answer was made from follows from its question alone: its addresses,
//! and what is live there at its ask time.
//!
//! # What it shows, and what it cannot
//!
//! *Equal* says that the answer is what these packets give, and that their authors signed them. It
//! cannot say that no packet was left out: for that, compare the lineage root with a synthesis that
//! somebody else published, or ask the mailbox. Whoever has the file sees what was asked (signals and
//! scopes) and the whole domain file, its `[source]` too.

pub mod check;
pub mod fields;
pub mod file;
pub mod recompute;
pub mod synthesis;
#[cfg(test)]
mod tests;

pub use check::{Checked, Outcome, check};
pub use file::{Asked, Claim, Proof, ProofError, ProofWriter};
pub use synthesis::{Finding, Why, content, judge, judge_mailbox};
