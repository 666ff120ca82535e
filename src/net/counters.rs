//! What a node has moved and checked since its start.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counted while running; [`Counters::read`] gives the numbers.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) requests_answered: AtomicU64,
    pub(super) requests_refused: AtomicU64,
    pub(super) requests_sent: AtomicU64,
    pub(super) requests_failed: AtomicU64,
    pub(super) packets_in: AtomicU64,
    pub(super) packets_out: AtomicU64,
    pub(super) signatures_checked: AtomicU64,
    pub(super) signatures_remembered: AtomicU64,
    pub(super) deposits_acknowledged: AtomicU64,
    pub(super) refused_authors: AtomicU64,
    pub(super) refused_quota: AtomicU64,
}

/// The numbers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// Bytes of frames received, without QUIC's own.
    pub bytes_in: u64,
    /// Bytes of frames sent, without QUIC's own.
    pub bytes_out: u64,
    /// Requests of others that were carried out.
    pub requests_answered: u64,
    /// Requests of others that were malformed, too many or not ours.
    pub requests_refused: u64,
    pub requests_sent: u64,
    /// Own requests without an answer.
    pub requests_failed: u64,
    /// Packets received, deposited by others or pulled.
    pub packets_in: u64,
    /// Packets sent, pulled by others or deposited.
    pub packets_out: u64,
    pub signatures_checked: u64,
    /// Packets that needed no second check.
    pub signatures_remembered: u64,
    /// Own packets, per mailbox, that enough disks have acknowledged.
    pub deposits_acknowledged: u64,
    /// Packets of authors that the swarm does not list.
    pub refused_authors: u64,
    /// Requests of others beyond the share of their peer, subnet or author.
    pub refused_quota: u64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn read(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            requests_answered: read(&self.requests_answered),
            requests_refused: read(&self.requests_refused),
            requests_sent: read(&self.requests_sent),
            requests_failed: read(&self.requests_failed),
            packets_in: read(&self.packets_in),
            packets_out: read(&self.packets_out),
            signatures_checked: read(&self.signatures_checked),
            signatures_remembered: read(&self.signatures_remembered),
            deposits_acknowledged: read(&self.deposits_acknowledged),
            refused_authors: read(&self.refused_authors),
            refused_quota: read(&self.refused_quota),
        }
    }
}
