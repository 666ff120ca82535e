//! A node on a disk, from start to shutdown.

use super::key::{self, KeyError};
use super::places::admit;
use crate::domain::Domain;
use crate::mailbox::{Clock, SystemClock};
use crate::net::{Config, Multiaddr, NetError, NetHandle, Storage, start};
use crate::store::{DiskStore, PacketStore, StoreError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Time between two removals of expired packets.
const SWEEP: Duration = Duration::from_secs(3_600);
/// Time between two looks at the store's health.
const HEALTH: Duration = Duration::from_secs(5);

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(
        "the store stopped taking packets, and opening it anew may mend that: start the node again (what was acknowledged is there)"
    )]
    Reopen,
    #[error("the asynchronous runtime does not work: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Opens the store and listens.
///
/// # Errors
/// The store, the key or an address, by name.
pub async fn open(
    folder: &Path,
    listen: Vec<Multiaddr>,
    peers: Vec<Multiaddr>,
    domains: &[Domain],
) -> Result<(NetHandle, Arc<DiskStore>), NodeError> {
    let (store, report) = DiskStore::open(folder)?;
    match report.loss {
        Some(_) => tracing::warn!("{report}"),
        None => tracing::info!("{report}"),
    }
    // After the store: it refuses a folder with files that are not its own.
    let identity = key::load_or_create(folder)?;
    if domains.is_empty() {
        tracing::info!("no --domain: packets of every schema are kept, and their addresses not checked");
    }
    let store = Arc::new(store);
    let storage = Storage { store: store.clone(), admission: admit(domains) };
    let handle = start(Config { listen, ..Config::node(identity, storage, peers) }).await?;
    Ok((handle, store))
}

/// Serves until the process is asked to stop, then says goodbye.
///
/// # Errors
/// The system does not let us listen for signals; the store has stopped, and whoever supervises the
/// process should start it again.
pub async fn serve(handle: NetHandle, store: Arc<DiskStore>) -> Result<(), NodeError> {
    let stop = super::asked_to_stop();
    tokio::pin!(stop);
    let mut sweep = tokio::time::interval(SWEEP);
    let mut health = tokio::time::interval(HEALTH);
    let result = loop {
        tokio::select! {
            result = &mut stop => break result.map_err(NodeError::from),
            _ = health.tick() => {
                let looked = store.clone();
                let mended = tokio::task::spawn_blocking(move || looked.wants_reopening()).await;
                if mended.unwrap_or(true) {
                    break Err(NodeError::Reopen);
                }
            }
            _ = sweep.tick() => {
                let store = store.clone();
                let swept = tokio::task::spawn_blocking(move || {
                    store.sweep(SystemClock.now_ms())
                });
                match swept.await {
                    Ok(Ok(0)) => {}
                    Ok(Ok(packets)) => tracing::info!(packets, "expired packets removed"),
                    Ok(Err(error)) => tracing::error!(%error, "expired packets could not be removed"),
                    Err(error) => tracing::error!(%error, "the removal of expired packets broke off"),
                }
            }
        }
    };
    let traffic = handle.traffic();
    handle.shutdown().await;
    tracing::info!(
        requests = traffic.requests_answered,
        refused = traffic.requests_refused,
        packets_in = traffic.packets_in,
        packets_out = traffic.packets_out,
        "stopped"
    );
    result
}
