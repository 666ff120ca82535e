//! Who waits for what arrives at an address.

use crate::address::Address;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Tells waiting readers of new packets. Addresses that nobody waits at take no memory.
#[derive(Debug, Default)]
pub(super) struct News(Mutex<HashMap<Address, (usize, Arc<Notify>)>>);

impl News {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Address, (usize, Arc<Notify>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was stored at these addresses.
    pub fn arrived<'a>(&self, addresses: impl IntoIterator<Item = &'a Address>) {
        let waiting = self.waiting();
        if waiting.is_empty() {
            return;
        }
        for address in addresses {
            if let Some((_, notify)) = waiting.get(address) {
                notify.notify_waiters();
            }
        }
    }

    /// Begins to wait at an address.
    pub fn subscribe(self: &Arc<Self>, address: Address) -> Subscription {
        let mut waiting = self.waiting();
        let entry = waiting.entry(address).or_default();
        entry.0 += 1;
        Subscription { news: self.clone(), address, notify: entry.1.clone() }
    }
}

/// Waits at an address until dropped.
pub(super) struct Subscription {
    news: Arc<News>,
    address: Address,
    /// Ask for [`Notify::notified`] before looking, then look, then wait: nothing falls between.
    pub notify: Arc<Notify>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut waiting = self.news.waiting();
        if let Some(entry) = waiting.get_mut(&self.address) {
            entry.0 -= 1;
            if entry.0 == 0 {
                waiting.remove(&self.address);
            }
        }
    }
}
