//! What a store says of itself: what opening found, what was lost, how it is doing.

use crate::packet::{Id, hex};
use std::fmt;
use std::path::PathBuf;

/// What opening found.
#[derive(Clone, Debug)]
pub struct OpenReport {
    pub path: PathBuf,
    pub replica: Id,
    pub epoch: u64,
    /// Whether the store was made by this call.
    pub created: bool,
    /// Packets in all mailboxes.
    pub packets: u64,
    /// `None` when nothing is missing.
    pub loss: Option<Loss>,
}

/// What a store has lost since it was last open.
#[derive(Clone, Debug)]
pub struct Loss {
    pub path: PathBuf,
    pub problem: String,
    /// Packets at the last acknowledgement; `None` where the high-water mark is gone.
    pub packets_marked: Option<u64>,
    /// Packets that are left.
    pub packets_kept: u64,
    pub epoch_before: u64,
    pub epoch: u64,
    /// Where the damaged database lies now.
    pub moved_to: Option<PathBuf>,
}

impl fmt::Display for OpenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.loss {
            Some(loss) => loss.fmt(f),
            None => write!(
                f,
                "store {}: {} packets, epoch {}, replica {}",
                self.path.display(),
                self.packets,
                self.epoch,
                hex(&self.replica[..8])
            ),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store {}: {}. ", self.path.display(), self.problem)?;
        match self.packets_marked {
            Some(marked) => write!(f, "Of {marked} packets it holds {}. ", self.packets_kept)?,
            None => write!(f, "It holds {} packets, and goes on as a new replica. ", self.packets_kept)?,
        }
        write!(
            f,
            "Epoch {} -> {}: old cursors expire, and readers pull from the beginning. Refill it from the replicas.",
            self.epoch_before, self.epoch
        )?;
        if let Some(moved_to) = &self.moved_to {
            write!(f, " The damaged database lies in {}; delete it at will.", moved_to.display())?;
        }
        Ok(())
    }
}

/// How a store is doing.
#[derive(Clone, Debug)]
pub struct Health {
    pub replica: Id,
    pub epoch: u64,
    /// Synced batches so far, over all epochs.
    pub commits: u64,
    /// Packets in all mailboxes.
    pub packets: u64,
    /// Damaged records met since opening and not replaced by a new deposit; they are never returned.
    pub damaged_records: u64,
    /// Bytes of the database's files; journals count with the room they have reserved.
    pub disk_bytes: u64,
    /// Why writes stopped, if they did.
    pub halted: Option<String>,
}
