//! What packets mean: schema and views, their ids, and the way from a row to a signal.
//!
//! A domain is a TOML file. [`schema`] lists what is hashed into the schema id, [`view`] what is
//! hashed into view and index ids; the `[source]` table, which says how a table is read, is in
//! neither. [`mod@file`] reads domain files, [`table`] the rows that they describe, and [`init`]
//! drafts a domain file from a table.

mod encode;
pub mod file;
pub mod init;
pub mod prior;
pub mod schema;
pub mod source;
pub mod table;
pub mod view;

#[cfg(test)]
mod tests;

pub use encode::{Value, ValueError, mean_and_deviation, mean_signal};
pub use file::{Domain, DomainError, Problem};
pub use prior::Prior;
pub use schema::{Direction, Feature, FeatureKind, Missing, Outcome, OutcomeKind, Outside, Schema};
pub use source::Source;
pub use table::{Purpose, Row, Table, TableError};
pub use view::{Addressing, Decay, Kernel, Metric, View};

use crate::packet::Id;
use serde::Serialize;

/// BLAKE3 `derive_key(context, postcard(value))`.
fn derive_id(context: &str, value: &impl Serialize) -> Id {
    // postcard fails only for sequences of unknown length and for full buffers; neither occurs.
    let bytes = postcard::to_stdvec(value).expect("schemas and views serialise");
    blake3::derive_key(context, &bytes)
}
