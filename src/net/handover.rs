//! Mailboxes that belong to others now, handed over: performs what [`Handover`] decides, beside the event
//! loop.

use super::shared::{AskError, Shared, View};
use super::storage::Storage;
use super::wire::{Request, Response};
use crate::address::Address;
use crate::limits::REPLICAS;
use crate::node::Handover;
use crate::packet::hex;
use crate::store::StoreError;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

/// Time between two looks at the store; shorter where the grace period is.
const LOOK: Duration = Duration::from_secs(10 * 60);

/// Stops when dropped.
pub(super) struct HandoverTask(JoinHandle<()>);

impl Drop for HandoverTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a mailbox could not be handed over.
#[derive(Debug, thiserror::Error)]
enum HandoverError {
    #[error("the own store: {0}")]
    Store(#[from] StoreError),
    #[error("work broke off: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// Hands over what lies in `storage` and has belonged to others for `grace`. Mailboxes that differ from what their
/// replicas hold go to `wanted`, for repair to fetch what is lacking here.
pub(super) fn start(
    shared: Arc<Shared>,
    storage: Storage,
    wanted: mpsc::UnboundedSender<Address>,
    grace: Duration,
) -> HandoverTask {
    HandoverTask(tokio::spawn(run(shared, storage, wanted, grace)))
}

async fn run(shared: Arc<Shared>, storage: Storage, wanted: mpsc::UnboundedSender<Address>, grace: Duration) {
    let started = Instant::now();
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut handover = Handover::new(ms(grace));
    let mut looks = tokio::time::interval((grace / 4).clamp(Duration::from_millis(250), LOOK));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let (view, local, looked) = (shared.view(), shared.local, storage.clone());
        let look = tokio::task::spawn_blocking(move || {
            foreign(&looked, |address| view.ranks(address, local, REPLICAS))
        });
        let found = match look.await.map_err(HandoverError::from).and_then(|found| Ok(found?)) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "the store could not be looked through for mailboxes of others");
                continue;
            }
        };
        for address in handover.looked(&found, ms(started.elapsed())) {
            let mailbox = hex(&address[..8]);
            match hand_over(&shared, &storage, &address).await {
                Ok(Some(packets)) => {
                    tracing::info!(mailbox, packets, "handed over: its eight replicas hold all of it");
                }
                // A repair that has ended wants nothing.
                Ok(None) => drop(wanted.send(address)),
                Err(error) => tracing::error!(mailbox, %error, "a mailbox could not be handed over"),
            }
        }
    }
}

/// Mailboxes in the store of which this node is no replica.
fn foreign(storage: &Storage, ours: impl Fn(&Address) -> bool) -> Result<BTreeSet<Address>, StoreError> {
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let (page, next) = storage.digests(after, |address| !ours(address))?;
        found.extend(page.into_iter().map(|(address, _)| address));
        match next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

/// Removes a mailbox that each of its replicas holds as it is here; says how many packets went, or that the
/// replicas do not all agree.
async fn hand_over(
    shared: &Arc<Shared>,
    storage: &Storage,
    address: &Address,
) -> Result<Option<u64>, HandoverError> {
    let replicas = shared.placement.replicas(shared, address).await;
    let silent = |view: &View| replicas.iter().any(|replica| view.silent.contains(replica));
    if replicas.len() < REPLICAS || replicas.contains(&shared.local) || silent(&shared.view()) {
        return Ok(None);
    }
    let (local, address, own) = (shared.local, *address, storage.clone());
    let (_, digest, _) = tokio::task::spawn_blocking(move || own.stat(local, &address)).await??;
    let asked = replicas.iter().map(|&replica| shared.ask(replica, Request::Stat { address }));
    let agrees = |answer: &Result<Response, AskError>| matches!(answer, Ok(Response::Stat { digest: theirs, .. }) if *theirs == digest);
    if !join_all(asked).await.iter().all(agrees) {
        return Ok(None);
    }
    let own = storage.clone();
    let removed = tokio::task::spawn_blocking(move || own.leave(&address, &digest)).await??;
    Ok(Some(removed).filter(|removed| *removed > 0))
}
