//! Batch re-synthesis: every public answer of a large set of packets, computed anew.
//!
//! The way through: [`input`] reads blocks of packets, a first [`pass`] checks them and puts each under
//! its address into buckets of neighbouring addresses ([`partition`]: on disk where they do not fit
//! into memory), [`refresh`] goes through the buckets in ascending order of address, answers one
//! public question per mailbox and action, and [`output`] signs and writes what came out. [`verify`]
//! goes the same way and compares the syntheses that are there with what their evidence gives; [`shards`]
//! puts the results of several machines together; [`copy`] moves packets between files, stores and views.
//!
//! The result is a function of the packets, the view and the time asked for. Its [`digest`] depends
//! neither on threads, backend or memory, nor on the order of the input, nor on how often the work was
//! killed and resumed: [`checkpoint`] keeps what is done.

pub mod checkpoint;
pub mod copy;
pub mod digest;
pub mod input;
pub mod mailboxes;
pub mod output;
pub mod partition;
pub mod pass;
pub mod refresh;
pub mod shards;
#[cfg(test)]
mod tests;
pub mod verify;

use crate::packet::{FileError, PacketError};
use crate::store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a batch job could not go on.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {problem}")]
    Input { path: PathBuf, problem: String },
    /// The folder of an interrupted job is damaged, or is of another job.
    #[error("{path}: {problem}; without --resume the job starts from the beginning")]
    Checkpoint { path: PathBuf, problem: String },
    #[error("no sequence numbers: {0}")]
    Numbers(String),
    #[error("a synthesis breaks a rule of the packet format, which is a defect of this program: {0}")]
    Packet(#[from] PacketError),
    /// More packets at one address than one exact sum holds.
    #[error(
        "{packets} packets at address {address}: at most {max} can be merged; a view with more address bits splits the mailbox"
    )]
    TooMany { packets: u64, address: String, max: u64 },
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> JobError + '_ {
    move |source| JobError::Io { path: path.into(), source }
}
