//! Mailboxes of this machine: admission, then a store.

use super::admission::Admission;
use super::{Mailbox, MailboxError, Position, Pulled, Receipt};
use crate::address::Address;
use crate::limits::FRAME_PACKETS_MAX;
use crate::packet::Verified;
use crate::store::{Deposited, PacketStore, Stat, StoreError};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the time comes from; tests pass a closure.
pub trait Clock: Send + Sync {
    /// Unix milliseconds.
    fn now_ms(&self) -> u64;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl<F: Fn() -> u64 + Send + Sync> Clock for F {
    fn now_ms(&self) -> u64 {
        self()
    }
}

/// Mailboxes in a store of this process. Cheap to clone; clones share the store.
///
/// Disk work runs on tokio's threads for blocking work where a tokio runtime is running, and on the
/// calling thread elsewhere.
pub struct LocalMailbox<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    store: Arc<S>,
    admission: Admission,
    clock: Box<dyn Clock>,
}

impl<S> Clone for LocalMailbox<S> {
    fn clone(&self) -> Self {
        LocalMailbox { inner: self.inner.clone() }
    }
}

impl<S: PacketStore + 'static> LocalMailbox<S> {
    pub fn new(store: Arc<S>, admission: Admission, clock: impl Clock + 'static) -> LocalMailbox<S> {
        LocalMailbox { inner: Arc::new(Inner { store, admission, clock: Box::new(clock) }) }
    }

    /// The store behind the mailboxes.
    pub fn store(&self) -> &Arc<S> {
        &self.inner.store
    }

    /// [`Mailbox::deposit`] on the calling thread.
    ///
    /// # Errors
    /// The store's; nothing is acknowledged then.
    pub fn deposit_blocking(&self, batch: &[(Address, Verified)]) -> Result<Vec<Receipt>, StoreError> {
        self.inner.deposit(batch)
    }

    /// [`Mailbox::pull`] on the calling thread.
    ///
    /// # Errors
    /// The store's.
    pub fn pull_blocking(&self, address: &Address, from: &Position) -> Result<Pulled, StoreError> {
        self.inner.pull(address, from)
    }

    /// Runs disk work where it blocks no asynchronous task.
    async fn off_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner<S>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, MailboxError> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Ok(work(&self.inner)?);
        };
        let inner = self.inner.clone();
        match runtime.spawn_blocking(move || work(&inner)).await {
            Ok(result) => Ok(result?),
            Err(e) if e.is_cancelled() => Err(MailboxError::Stopping),
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }
}

impl<S: PacketStore> Inner<S> {
    fn deposit(&self, batch: &[(Address, Verified)]) -> Result<Vec<Receipt>, StoreError> {
        let now_ms = self.clock.now_ms();
        let mut receipts = Vec::with_capacity(batch.len());
        let mut admitted = Vec::with_capacity(batch.len());
        for (address, packet) in batch {
            receipts.push(match self.admission.check(now_ms, address, packet) {
                Ok(()) => {
                    admitted.push((*address, *packet));
                    None
                }
                Err(refusal) => Some(Receipt::Rejected(refusal.to_string())),
            });
        }
        let mut deposited = self.store.deposit(now_ms, &admitted)?.into_iter();
        let one = |receipt: Option<Receipt>| match receipt {
            Some(rejected) => rejected,
            None => deposited.next().map_or_else(|| Receipt::Rejected("was not stored".into()), receipt_of),
        };
        Ok(receipts.into_iter().map(one).collect())
    }

    fn pull(&self, address: &Address, from: &Position) -> Result<Pulled, StoreError> {
        self.store.set_now(self.clock.now_ms());
        let replica = self.store.start().replica;
        let mut cursor = from.0.iter().copied().find(|cursor| cursor.replica == replica);
        let mut pulled = Pulled::default();
        loop {
            let page = match self.store.pull(address, cursor, FRAME_PACKETS_MAX) {
                Err(StoreError::CursorExpired { .. }) if cursor.is_some() => {
                    pulled.packets.clear();
                    cursor = None;
                    continue;
                }
                other => other?,
            };
            pulled.packets.extend(page.packets);
            cursor = Some(page.cursor);
            if !page.more {
                let others = from.0.iter().copied().filter(|cursor| cursor.replica != replica);
                pulled.position = Position(others.chain([page.cursor]).collect());
                return Ok(pulled);
            }
        }
    }
}

fn receipt_of(deposited: Deposited) -> Receipt {
    match deposited.refusal() {
        Some(reason) => Receipt::Rejected(reason.into()),
        None if deposited == Deposited::Duplicate => Receipt::Duplicate,
        None => Receipt::Stored,
    }
}

impl<S: PacketStore + 'static> Mailbox for LocalMailbox<S> {
    async fn deposit(&self, batch: &[(Address, Verified)]) -> Result<Vec<Receipt>, MailboxError> {
        let batch = batch.to_vec();
        self.off_runtime(move |inner| inner.deposit(&batch)).await
    }

    /// A cursor that has expired begins anew: then packets seen before come again.
    async fn pull(&self, address: &Address, from: &Position) -> Result<Pulled, MailboxError> {
        let (address, from) = (*address, from.clone());
        self.off_runtime(move |inner| inner.pull(&address, &from)).await
    }

    async fn stat(&self, address: &Address) -> Result<Stat, MailboxError> {
        let address = *address;
        self.off_runtime(move |inner| inner.store.stat(&address)).await
    }
}
