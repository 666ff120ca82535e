//! A packet file on its way into the mailboxes of a swarm.

use super::places::Places;
use crate::address::Address;
use crate::domain::Domain;
use crate::limits::PACKET_BYTES;
use crate::mailbox::{Mailbox, MailboxError, Receipt};
use crate::packet::{FILE_HEADER_BYTES, FileError, Packet, PacketFile, Verified, hex, verify_batch};
use std::path::{Path, PathBuf};

/// Packets that are read, checked and sent together: memory stays bounded for any file.
const BLOCK_PACKETS: usize = 8_192;
/// Rejected packets that are named; the others are counted.
const NAMED_MAX: usize = 20;

/// Why a deposit breaks off. What was acknowledged before stays, and depositing again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum DepositError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{path}: the packets are of schema {found}, domain `{domain}` has {expected}: name their domain file"
    )]
    Schema { path: PathBuf, found: String, domain: String, expected: String },
    #[error("{path}: packet {index} (byte {offset}): {problem}")]
    Packet { path: PathBuf, index: u64, offset: u64, problem: String },
    #[error("{path}: after {done} of {total} packets: {source}")]
    Mailbox { path: PathBuf, done: u64, total: u64, source: MailboxError },
    #[error("work on the packets broke off: {0}")]
    Broken(String),
}

impl DepositError {
    /// Whether the input is at fault, and not the world.
    pub fn is_input(&self) -> bool {
        matches!(self, DepositError::File(_) | DepositError::Schema { .. } | DepositError::Packet { .. })
    }
}

/// What became of the packets. A packet lies in one mailbox per table and index; it counts as
/// rejected if one of them rejected it, else as stored if one of them stored it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    pub stored: u64,
    pub duplicate: u64,
    pub rejected: u64,
    /// Index in the file and reason of the first rejected packets.
    pub reasons: Vec<(u64, String)>,
}

/// Deposits all packets of a file; `progress` is told how many are done.
///
/// # Errors
/// The first packet that is none, or a mailbox that too few replicas acknowledge.
pub async fn file(
    path: &Path,
    domain: &Domain,
    mailbox: &impl Mailbox,
    mut progress: impl FnMut(u64),
) -> Result<Summary, DepositError> {
    let mut file = PacketFile::open(path)?;
    let (total, expected) = (file.count, domain.schema.id());
    if file.schema != expected {
        return Err(DepositError::Schema {
            path: path.into(),
            found: hex(&file.schema[..8]),
            domain: domain.name.clone(),
            expected: hex(&expected[..8]),
        });
    }
    let mut places = Places::new([domain]);
    let mut summary = Summary::default();
    let mut done = 0;
    while done < total {
        let path_owned = path.to_path_buf();
        let work = tokio::task::spawn_blocking(move || {
            let block = file.by_ref().take(BLOCK_PACKETS).collect::<Result<Vec<Packet>, FileError>>();
            let placed =
                block.map_err(DepositError::File).and_then(|block| place(&path_owned, done, &block, &places));
            (file, places, placed)
        });
        let placed;
        (file, places, placed) = work.await.map_err(|error| DepositError::Broken(error.to_string()))?;
        let (batch, owners, packets) = placed?;
        if packets == 0 {
            break;
        }
        let receipts = mailbox.deposit(&batch).await.map_err(|source| DepositError::Mailbox {
            path: path.into(),
            done,
            total,
            source,
        })?;
        summary.count(done, packets, &owners, receipts);
        done += packets as u64;
        progress(done);
    }
    Ok(summary)
}

/// Entries of the batch, the packet each belongs to, and the number of packets.
type Placed = (Vec<(Address, Verified)>, Vec<usize>, usize);

fn place(path: &Path, first: u64, block: &[Packet], places: &Places) -> Result<Placed, DepositError> {
    let (mut batch, mut owners) = (Vec::with_capacity(block.len()), Vec::with_capacity(block.len()));
    for (index, verified) in verify_batch(block).into_iter().enumerate() {
        let refuse = |problem: String| {
            let index = first + index as u64;
            let offset = FILE_HEADER_BYTES as u64 + index * PACKET_BYTES as u64;
            DepositError::Packet { path: path.into(), index, offset, problem }
        };
        let packet = verified.map_err(|error| refuse(error.to_string()))?;
        let addresses = places.addresses(&packet);
        if addresses.is_empty() {
            return Err(refuse("its schema is not the domain's".into()));
        }
        for address in addresses {
            batch.push((address, packet));
            owners.push(index);
        }
    }
    Ok((batch, owners, block.len()))
}

impl Summary {
    fn count(&mut self, first: u64, packets: usize, owners: &[usize], receipts: Vec<Receipt>) {
        let mut worst: Vec<Option<Receipt>> = vec![None; packets];
        let rank = |receipt: &Receipt| match receipt {
            Receipt::Duplicate => 0,
            Receipt::Stored => 1,
            Receipt::Rejected(_) => 2,
        };
        for (&owner, receipt) in owners.iter().zip(receipts) {
            let known = &mut worst[owner];
            if known.as_ref().is_none_or(|known| rank(known) < rank(&receipt)) {
                *known = Some(receipt);
            }
        }
        for (index, receipt) in worst.into_iter().enumerate() {
            match receipt {
                Some(Receipt::Stored) => self.stored += 1,
                Some(Receipt::Duplicate) => self.duplicate += 1,
                Some(Receipt::Rejected(reason)) => {
                    self.rejected += 1;
                    if self.reasons.len() < NAMED_MAX {
                        self.reasons.push((first + index as u64, reason));
                    }
                }
                None => {}
            }
        }
    }
}
