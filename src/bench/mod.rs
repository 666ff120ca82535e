//! Measures fingerprints, merges, ingest and signatures on one engine, against what the machine can
//! do at most.
//!
//! Inputs are made from a fixed seed, or read from files. The result is compared with the scalar law
//! before the first timed repetition; a wrong one is an error, not a time.
//!
//! | task | work | items |
//! |---|---|---|
//! | fingerprint | embeddings -> 256 bits | packets |
//! | merge | every question reads every packet | query-packet pairs |
//! | ragged | many mailboxes of very different sizes, each with questions of its own | pairs |
//! | query | one question | pairs |
//! | ingest | packet file -> columns, embeddings, fingerprints | packets |
//! | verify | signatures, in batches and one by one | packets |

pub mod crossover;
pub mod data;
pub mod generate;
mod ingest;
pub mod inputs;
pub mod limits;
mod record;
mod verify;
mod workload;

pub use inputs::InputError;
pub use limits::Limits;
pub use record::{Clock, Limit, Record};
pub use workload::{OUTCOMES, Workload};

use crate::engine::Engine;
use crate::limits::TALLY_PACKETS_MAX;
use crate::packet::FileError;
use std::path::PathBuf;
use std::time::Duration;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    Fingerprint,
    Merge,
    Ragged,
    Query,
    Ingest,
    Verify,
}

/// How much of it, and of what. `None` is the task's own default, or all that a file has.
#[derive(Clone, Debug)]
pub struct Plan {
    pub task: Task,
    /// Packets, at least 1; of a ragged merge the mean of its mailboxes.
    pub packets: Option<usize>,
    /// Questions of a merge, at least 1; each reads every packet.
    pub queries: Option<usize>,
    /// Mailboxes of a ragged merge, at least 1.
    pub addresses: Option<usize>,
    /// Whether blocks beyond the kernel's reach may be passed over: [`crate::merge::Job::skip`].
    pub skip: bool,
    /// Packets in kinds that lie far apart and a kernel that reaches one kind, in place of packets
    /// most of which weigh something.
    pub clustered: bool,
    /// Most cases of one packet that is made up.
    pub cases_max: u16,
    /// Folder of `.npy` files to read in place of making things up.
    pub inputs: Option<PathBuf>,
    /// Packet file for ingest, in place of a temporary one.
    pub file: Option<PathBuf>,
    /// Whether ingest checks signatures.
    pub signatures: bool,
    /// How long the work is repeated; five times at least.
    pub time: Duration,
}

impl Plan {
    /// The task at its own size, as the engine would do it.
    pub fn new(task: Task) -> Plan {
        Plan {
            task,
            packets: None,
            queries: None,
            addresses: None,
            skip: true,
            clustered: false,
            cases_max: 6,
            inputs: None,
            file: None,
            signatures: false,
            time: Duration::from_secs(1),
        }
    }
}

/// Most query-packet pairs of one repetition: minutes on one core.
pub const PAIRS_MAX: u64 = 1 << 36;
/// Sizes at which [`Task::Query`] is measured where nobody names one.
pub const QUERY_PACKETS: [usize; 3] = [1_000, 10_000, 100_000];

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(
        "{backend} differs from the scalar law at row {row}: do not use it; `qis doctor` names the \
         driver, and --backend cpu is right"
    )]
    Differs { backend: String, row: usize },
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("a temporary packet file: {0}; TMPDIR names another folder, --input an existing file")]
    Temporary(std::io::Error),
    #[error("{path} holds no {what}: nothing to measure")]
    Empty { path: PathBuf, what: &'static str },
    /// It would not fit into memory, or take hours.
    #[error(
        "{packets} packets and {pairs} query-packet pairs are more than a measurement takes: at most {TALLY_PACKETS_MAX} and {PAIRS_MAX}"
    )]
    TooLarge { packets: u64, pairs: u64 },
    /// The inputs are smaller than what was asked for.
    #[error("{wanted} {what} were asked for; {path} has {held}")]
    TooFew { path: PathBuf, what: &'static str, wanted: usize, held: usize },
}

impl BenchError {
    fn differs(engine: &Engine, row: usize) -> BenchError {
        let ran = engine.ran();
        BenchError::Differs { backend: format!("{} {}", ran.backend, ran.adapter).trim().into(), row }
    }
}

/// Checks, then measures; the median of several repetitions.
///
/// # Errors
/// A result that is not that of the law; inputs that are not there or not what they should be.
pub fn measure(engine: &Engine, limits: &Limits, plan: &Plan) -> Result<Record, BenchError> {
    match plan.task {
        Task::Fingerprint | Task::Merge | Task::Ragged | Task::Query => {
            workload::measure(engine, limits, plan)
        }
        Task::Ingest => ingest::measure(engine, plan),
        Task::Verify => verify::measure(engine, plan),
    }
}

#[cfg(test)]
mod tests;
