//! A node on a disk, from start to shutdown: a storage node keeps mailboxes and serves them, a gateway
//! deposits what is put into its outbox, from behind a NAT if need be.

use super::key::{self, KeyError};
use super::outbox::{Outbox, OutboxError};
use super::places::admit;
use super::status::Source;
use super::swarm::{SwarmError, save_newest, with_kept};
use crate::domain::Domain;
use crate::mailbox::{Clock, SystemClock};
use crate::net::{Config, ListsKeeper, Multiaddr, NetError, NetHandle, Routing, Storage, start};
use crate::node::lists::Lists;
use crate::node::quota::Rates;
use crate::serve::{self, Mode, ServeError};
use crate::store::{Caps, DiskStore, PacketStore, StoreError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Time between two removals of expired packets: replicas compare what is left.
const SWEEP: Duration = Duration::from_secs(60);
/// Every second so many records are read and checked: a million in an hour and a half.
const SCRUB: Duration = Duration::from_secs(1);
const SCRUB_RECORDS: usize = 200;
/// Time between two looks at the store's health and at the room on the disk.
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
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(
        "the store stopped taking packets, and opening it anew may mend that: start the node again (what was acknowledged is there)"
    )]
    Reopen,
    #[error("the asynchronous runtime does not work: {0}")]
    Runtime(#[from] std::io::Error),
}

/// What a node is to be.
pub struct Plan {
    /// The store of a storage node; the key, the kept lists and the outbox of a gateway.
    pub folder: PathBuf,
    pub mode: Mode,
    pub listen: Vec<Multiaddr>,
    pub bootstrap: Vec<Multiaddr>,
    pub domains: Vec<Domain>,
    /// `None` in an open swarm.
    pub lists: Option<Lists>,
    pub routing: Routing,
    /// Where status and metrics are served beside the socket file.
    pub http: Option<SocketAddr>,
    pub caps: Caps,
    /// Bytes that the store may take on disk; 0 for as many as there are.
    pub disk_bytes_max: u64,
    pub rates: Rates,
    pub repair_packets_per_second: u64,
    /// As [`Config::hand_over_after`].
    pub hand_over_after: Option<Duration>,
}

/// A node that runs.
pub struct Node {
    pub handle: Arc<NetHandle>,
    store: Option<Arc<DiskStore>>,
    outbox: Option<Outbox>,
    serve: serve::Handle,
    disk_bytes_max: u64,
}

/// Opens the store and listens.
///
/// # Errors
/// The store, the key, the lists or an address, by name.
pub async fn open(plan: Plan) -> Result<Node, NodeError> {
    let folder = plan.folder.clone();
    let store = match plan.mode {
        Mode::Gateway => {
            std::fs::create_dir_all(&folder)
                .map_err(|source| KeyError::Io { path: folder.clone(), source })?;
            None
        }
        Mode::Storage => Some(open_store(&folder, plan.caps)?),
    };
    // After the store: it refuses a folder with files that are not its own.
    let identity = key::load_or_create(&folder)?;
    let lists = plan.lists.map(|lists| with_kept(&folder, lists)).transpose()?;
    if plan.domains.is_empty() && plan.mode == Mode::Storage {
        tracing::info!("no --domain: packets of every schema are kept, and their addresses not checked");
    }
    let storage = store.clone().map(|store| Storage { store, admission: admit(&plan.domains) });
    let listen = if plan.mode == Mode::Gateway { Vec::new() } else { plan.listen };
    let keep = folder.clone();
    let keeper: Arc<ListsKeeper> = Arc::new(move |lists: &Lists| keep_lists(&keep, lists));
    let config = Config {
        listen,
        storage,
        routing: plan.routing,
        lists,
        keep_lists: Some(keeper),
        rates: plan.rates,
        repair_packets_per_second: plan.repair_packets_per_second,
        hand_over_after: plan.hand_over_after,
        // A gateway stays connected: news and acknowledgements come over its own connections.
        ..Config::client(identity, plan.bootstrap)
    };
    let handle = Arc::new(start(config).await?);
    let outbox = match plan.mode {
        Mode::Gateway => Some(Outbox::open(&folder, plan.domains, handle.mailbox())?),
        Mode::Storage => None,
    };
    let source = Source::new(handle.clone(), store.clone(), folder.clone(), plan.mode);
    let read: serve::Read = Arc::new(move || source.status());
    let serve = start_serving(plan.http, &folder, read).await?;
    Ok(Node { handle, store, outbox, serve, disk_bytes_max: plan.disk_bytes_max })
}

fn open_store(folder: &Path, caps: Caps) -> Result<Arc<DiskStore>, StoreError> {
    let (store, report) = DiskStore::open_with_caps(folder, caps)?;
    match report.loss {
        Some(_) => tracing::warn!("{report}"),
        None => tracing::info!("{report}"),
    }
    Ok(Arc::new(store))
}

/// Newer lists must not be lost with the process: what is revoked stays revoked.
fn keep_lists(folder: &Path, lists: &Lists) {
    if let Err(error) = save_newest(folder, lists) {
        tracing::error!(%error, "newer lists of the swarm cannot be kept; after a restart they are asked for again");
    }
}

async fn start_serving(
    address: Option<SocketAddr>,
    folder: &Path,
    read: serve::Read,
) -> Result<serve::Handle, ServeError> {
    let config = serve::Config { address, folder: Some(folder.into()) };
    match serve::start(config, read.clone()).await {
        // A deep folder is no reason not to run.
        Err(error @ ServeError::TooLong { .. }) => {
            tracing::warn!(%error, "`qis status --store` will not find this node; --http serves it all the same");
            serve::start(serve::Config { address, folder: None }, read).await
        }
        started => started,
    }
}

impl Node {
    /// Where status and metrics are served over TCP.
    pub fn http(&self) -> Option<SocketAddr> {
        self.serve.address()
    }

    /// Serves until the process is asked to stop, then says goodbye.
    ///
    /// # Errors
    /// The system does not let us listen for signals; the store has stopped, and whoever supervises the
    /// process should start it again.
    pub async fn serve(self) -> Result<(), NodeError> {
        let stop = super::asked_to_stop();
        tokio::pin!(stop);
        let (handle, store, disk_bytes_max) = (self.handle, self.store, self.disk_bytes_max);
        let keeping = async {
            match &store {
                Some(store) => keep_store(store, &handle, disk_bytes_max).await,
                None => std::future::pending().await,
            }
        };
        let sending = async {
            match self.outbox {
                Some(outbox) => outbox.run().await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            result = &mut stop => result.map_err(NodeError::from),
            error = keeping => Err(error),
            () = sending => Ok(()),
        };
        let traffic = handle.traffic();
        // Copies for slower replicas go out now or are left to repair.
        handle.mailbox().handed_off(Duration::from_secs(1)).await;
        self.serve.shutdown().await;
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
}

/// Looks after a store for as long as it works; gives back why it does not.
async fn keep_store(store: &Arc<DiskStore>, handle: &NetHandle, disk_bytes_max: u64) -> NodeError {
    let mut sweep = tokio::time::interval(SWEEP);
    let mut health = tokio::time::interval(HEALTH);
    let mut scrub = tokio::time::interval(SCRUB);
    let mut scrubbed = None;
    loop {
        tokio::select! {
            _ = health.tick() => {
                let looked = store.clone();
                let look = move || (looked.wants_reopening(), looked.health().disk_bytes);
                let (reopen, disk_bytes) = tokio::task::spawn_blocking(look).await.unwrap_or((true, 0));
                if reopen {
                    return NodeError::Reopen;
                }
                handle.set_room(disk_bytes_max == 0 || disk_bytes < disk_bytes_max);
            }
            _ = scrub.tick() => {
                let scrubbing = store.clone();
                let slice = move || scrubbing.scrub(scrubbed, SCRUB_RECORDS);
                match tokio::task::spawn_blocking(slice).await {
                    Ok(Ok(slice)) => {
                        scrubbed = slice.next;
                        if slice.damaged > 0 {
                            store.damaged_addresses().iter().for_each(|(address, _)| handle.refill(*address));
                        }
                    }
                    Ok(Err(error)) => tracing::error!(%error, "records could not be checked"),
                    Err(error) => tracing::error!(%error, "the check of records broke off"),
                }
            }
            _ = sweep.tick() => {
                // What the other replicas could not give last time.
                store.damaged_addresses().iter().for_each(|(address, _)| handle.refill(*address));
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
    }
}
