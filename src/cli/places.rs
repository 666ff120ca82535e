//! Where a command finds packets: nodes of a swarm, a store on this machine, or packet files.

use super::{Failure, output, peer_address};
use crate::address::Address;
use crate::domain::Domain;
use crate::mailbox::{
    Admission, LocalMailbox, Mailbox, MailboxError, Position, Pulled, Receipt, SystemClock,
};
use crate::net::{Config, Identity, Multiaddr, NetHandle, NetMailbox, start};
use crate::packet::{Packet, PacketFile, Verified, hex, verify_batch};
use crate::run::places::Places;
use crate::store::{DiskStore, MemoryStore, PacketStore, Stat};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where `qis node` listens unless told otherwise.
pub const DEFAULT_NODE: &str = "127.0.0.1:4001";
/// How long the swarm may take to introduce itself.
pub const INTRODUCTION: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
#[group(multiple = false)]
pub struct Origin {
    /// A node of the swarm: IP:PORT or a multiaddress; may be repeated [default: 127.0.0.1:4001]
    #[arg(long, value_name = "ADDRESS", value_parser = peer_address)]
    peer: Vec<Multiaddr>,
    /// Folder of a store on this machine, while no node uses it
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Packet file; may be repeated
    #[arg(long, value_name = "FILE")]
    packets: Vec<PathBuf>,
}

/// An opened origin; clones share it.
#[derive(Clone)]
pub enum From {
    Swarm(NetMailbox, Arc<Mutex<Option<NetHandle>>>),
    Disk(LocalMailbox<DiskStore>),
    Memory(LocalMailbox<MemoryStore>),
}

impl Origin {
    /// # Errors
    /// Nobody answers; a store that cannot be opened; a packet file that is damaged.
    pub async fn open(&self, domain: &Domain) -> Result<From, Failure> {
        let schema = Arc::new(domain.schema.clone());
        let views = || domain.views.iter().map(|view| Arc::new(((*schema).clone(), view.clone())));
        if let Some(folder) = &self.store {
            if !folder.is_dir() {
                return Err(Failure::failed(NoFolder(folder.display().to_string())));
            }
            let (store, report) = DiskStore::open(folder)?;
            if let Some(loss) = report.loss {
                output::note(&loss.to_string());
            }
            return Ok(From::Disk(LocalMailbox::new(Arc::new(store), Admission::new(views()), SystemClock)));
        }
        if !self.packets.is_empty() {
            let store = MemoryStore::new([0; 32]);
            for path in &self.packets {
                load(path, domain, &store)?;
            }
            return Ok(From::Memory(LocalMailbox::new(
                Arc::new(store),
                Admission::new(views()),
                SystemClock,
            )));
        }
        let mut peers = self.peer.clone();
        if peers.is_empty() {
            peers.extend(peer_address(DEFAULT_NODE));
        }
        let client = join(peers).await?;
        Ok(From::Swarm(client.mailbox(), Arc::new(Mutex::new(Some(client)))))
    }
}

/// A client of the swarm that some nodes belong to.
///
/// # Errors
/// No node that keeps mailboxes answers in time.
pub async fn join(peers: Vec<Multiaddr>) -> Result<NetHandle, Failure> {
    let named: Vec<String> = peers.iter().map(Multiaddr::to_string).collect();
    let client = start(Config::client(Identity::random(), peers)).await.map_err(Failure::failed)?;
    if client.settled(INTRODUCTION).await {
        return Ok(client);
    }
    Err(Failure::failed(NobodyAnswers(named.join(", "))))
}

#[derive(Debug, thiserror::Error)]
#[error("no node that keeps mailboxes answers at {0}: is it running, and is the address right?")]
struct NobodyAnswers(String);

#[derive(Debug, thiserror::Error)]
#[error("--store {0}: no such folder")]
struct NoFolder(String);

/// Why a packet file cannot be asked.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(
        "{path}: the packets are of schema {found}, domain `{domain}` has {expected}: name their domain file"
    )]
    Schema { path: String, found: String, domain: String, expected: String },
    #[error("{path}: packet {index}: {problem}")]
    Packet { path: String, index: u64, problem: String },
}

/// Packets of a file into the mailboxes of all views. Expired ones stay out by the store's rules.
fn load(path: &std::path::Path, domain: &Domain, store: &MemoryStore) -> Result<(), Failure> {
    let shown = path.display().to_string();
    let mut file = PacketFile::open(path)?;
    let (found, expected) = (file.schema, domain.schema.id());
    if found != expected {
        return Err(Failure::rejected(LoadError::Schema {
            path: shown,
            found: hex(&found[..8]),
            domain: domain.name.clone(),
            expected: hex(&expected[..8]),
        }));
    }
    let places = Places::new([domain]);
    let mut first = 0;
    loop {
        let block: Result<Vec<Packet>, _> = file.by_ref().take(8_192).collect();
        let block = block?;
        if block.is_empty() {
            return Ok(());
        }
        let mut batch: Vec<(Address, Verified)> = Vec::with_capacity(block.len());
        for (index, verified) in verify_batch(&block).into_iter().enumerate() {
            let packet = verified.map_err(|error| {
                let (index, problem) = (first + index as u64, error.to_string());
                Failure::rejected(LoadError::Packet { path: shown.clone(), index, problem })
            })?;
            batch.extend(places.addresses(&packet).into_iter().map(|address| (address, packet)));
        }
        first += block.len() as u64;
        store.deposit(super::data::now_ms(), &batch)?;
    }
}

impl From {
    /// Says goodbye to the swarm.
    pub async fn close(self) {
        if let From::Swarm(_, handle) = self {
            let handle = handle.lock().ok().and_then(|mut handle| handle.take());
            if let Some(handle) = handle {
                handle.shutdown().await;
            }
        }
    }
}

impl Mailbox for From {
    async fn deposit(&self, batch: &[(Address, Verified)]) -> Result<Vec<Receipt>, MailboxError> {
        match self {
            From::Swarm(mailbox, _) => mailbox.deposit(batch).await,
            From::Disk(mailbox) => mailbox.deposit(batch).await,
            From::Memory(mailbox) => mailbox.deposit(batch).await,
        }
    }

    async fn pull(&self, address: &Address, from: &Position) -> Result<Pulled, MailboxError> {
        match self {
            From::Swarm(mailbox, _) => mailbox.pull(address, from).await,
            From::Disk(mailbox) => mailbox.pull(address, from).await,
            From::Memory(mailbox) => mailbox.pull(address, from).await,
        }
    }

    async fn stat(&self, address: &Address) -> Result<Stat, MailboxError> {
        match self {
            From::Swarm(mailbox, _) => mailbox.stat(address).await,
            From::Disk(mailbox) => mailbox.stat(address).await,
            From::Memory(mailbox) => mailbox.stat(address).await,
        }
    }
}
