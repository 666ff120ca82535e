//! Where a command finds packets: nodes of a swarm, a shared folder or bucket, a store on this machine,
//! or packet files.

use super::node::RoutingName;
use super::{Failure, output, peer_address};
use crate::address::Address;
use crate::domain::Domain;
use crate::mailbox::{
    Admission, LocalMailbox, Mailbox, MailboxError, ObjectMailbox, Position, Pulled, Receipt, SystemClock,
};
use crate::net::{Config, Identity, Multiaddr, NetHandle, NetMailbox, start};
use crate::packet::{Packet, PacketFile, Verified, hex, verify_batch};
use crate::run::places::Places;
use crate::run::swarm;
use crate::store::{DiskStore, MemoryStore, PacketStore, Stat};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where `qis node` listens unless told otherwise.
pub const DEFAULT_NODE: &str = "127.0.0.1:4001";
/// How long the swarm may take to introduce itself.
pub const INTRODUCTION: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Origin {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    joining: Joining,
}

/// One of them at most. Apart, because a group leaves out what is flattened into it.
#[derive(clap::Args)]
#[group(multiple = false)]
struct Source {
    /// A node of the swarm: IP:PORT or a multiaddress; may be repeated [default: 127.0.0.1:4001]
    #[arg(long, value_name = "ADDRESS", value_parser = peer_address)]
    peer: Vec<Multiaddr>,
    /// Mailboxes in a shared folder, file:///FOLDER, or a bucket, s3://BUCKET/PREFIX; the bucket's
    /// settings come from the environment (AWS_REGION, AWS_ENDPOINT, AWS_ACCESS_KEY_ID, ..)
    #[arg(long, value_name = "URL", value_parser = mailbox_url)]
    mailbox: Option<String>,
    /// Folder of a store on this machine, while no node uses it
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Packet file; may be repeated
    #[arg(long, value_name = "FILE")]
    packets: Vec<PathBuf>,
}

/// How a client finds the nodes that hold a mailbox.
#[derive(clap::Args, Default)]
pub struct Joining {
    /// The signed lists of the swarm, as `qis swarm` makes them: only listed nodes hold mailboxes
    /// [default: those that say so]
    #[arg(long, value_name = "FILE")]
    swarm: Option<PathBuf>,
    /// How the replicas of a mailbox are found, as the nodes do it [default: membership]
    #[arg(long, value_enum, value_name = "HOW")]
    routing: Option<RoutingName>,
}

impl Joining {
    /// # Errors
    /// It was said how to join a swarm, and none is.
    pub fn refuse(&self) -> Result<(), Failure> {
        match self.swarm.is_some() || self.routing.is_some() {
            true => {
                Err(Failure::usage("--swarm and --routing go with nodes of a swarm: name one with --peer"))
            }
            false => Ok(()),
        }
    }
}

/// Checks the form of a URL of mailboxes.
pub fn mailbox_url(text: &str) -> Result<String, String> {
    ObjectMailbox::check_url(text).map(|()| text.to_string()).map_err(|error| error.to_string())
}

/// An opened origin; clones share it.
#[derive(Clone)]
pub enum From {
    Swarm(NetMailbox, Arc<Mutex<Option<NetHandle>>>),
    Objects(ObjectMailbox),
    Disk(LocalMailbox<DiskStore>),
    Memory(LocalMailbox<MemoryStore>),
}

impl Origin {
    /// Whether any of its flags was given.
    pub fn is_named(&self) -> bool {
        let Source { peer, mailbox, store, packets } = &self.source;
        let joins = self.joining.refuse().is_err();
        joins || !peer.is_empty() || mailbox.is_some() || store.is_some() || !packets.is_empty()
    }

    /// # Errors
    /// Nobody answers; a folder, bucket or store that cannot be opened; a packet file that is damaged.
    pub async fn open(&self, domain: &Domain) -> Result<From, Failure> {
        let Source { peer, mailbox, store, packets } = &self.source;
        if mailbox.is_some() || store.is_some() || !packets.is_empty() {
            self.joining.refuse()?;
        }
        if let Some(url) = mailbox {
            return open_objects(url, domain).map(From::Objects);
        }
        if let Some(folder) = store {
            if !folder.is_dir() {
                return Err(Failure::failed(NoFolder(folder.display().to_string())));
            }
            let (store, report) = DiskStore::open(folder)?;
            if let Some(loss) = report.loss {
                output::note(&loss.to_string());
            }
            return Ok(From::Disk(LocalMailbox::new(Arc::new(store), admission(domain), SystemClock)));
        }
        if !packets.is_empty() {
            let store = MemoryStore::new([0; 32]);
            for path in packets {
                load(path, domain, &store)?;
            }
            return Ok(From::Memory(LocalMailbox::new(Arc::new(store), admission(domain), SystemClock)));
        }
        let mut peers = peer.clone();
        if peers.is_empty() {
            peers.extend(peer_address(DEFAULT_NODE));
        }
        let client = join(peers, &self.joining).await?;
        Ok(From::Swarm(client.mailbox(), Arc::new(Mutex::new(Some(client)))))
    }
}

/// What is read and written under all views of a domain.
fn admission(domain: &Domain) -> Admission {
    Admission::new(domain.views.iter().map(|view| Arc::new((domain.schema.clone(), view.clone()))))
}

/// Mailboxes of a domain in a shared folder or bucket.
///
/// # Errors
/// No such folder; settings of a bucket that are missing.
pub fn open_objects(url: &str, domain: &Domain) -> Result<ObjectMailbox, Failure> {
    ObjectMailbox::open(url, admission(domain), SystemClock).map_err(Failure::failed)
}

/// A client of the swarm that some nodes belong to.
///
/// # Errors
/// Lists that cannot be read. No node that keeps mailboxes answers in time.
pub async fn join(peers: Vec<Multiaddr>, joining: &Joining) -> Result<NetHandle, Failure> {
    let named: Vec<String> = peers.iter().map(Multiaddr::to_string).collect();
    let mut config = Config::client(Identity::random(), peers);
    config.lists = joining.swarm.as_deref().map(swarm::load).transpose()?;
    config.routing = joining.routing.unwrap_or_default().into();
    let client = start(config).await.map_err(Failure::failed)?;
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
            From::Objects(mailbox) => mailbox.deposit(batch).await,
            From::Disk(mailbox) => mailbox.deposit(batch).await,
            From::Memory(mailbox) => mailbox.deposit(batch).await,
        }
    }

    async fn pull(&self, address: &Address, from: &Position) -> Result<Pulled, MailboxError> {
        match self {
            From::Swarm(mailbox, _) => mailbox.pull(address, from).await,
            From::Objects(mailbox) => mailbox.pull(address, from).await,
            From::Disk(mailbox) => mailbox.pull(address, from).await,
            From::Memory(mailbox) => mailbox.pull(address, from).await,
        }
    }

    async fn stat(&self, address: &Address) -> Result<Stat, MailboxError> {
        match self {
            From::Swarm(mailbox, _) => mailbox.stat(address).await,
            From::Objects(mailbox) => mailbox.stat(address).await,
            From::Disk(mailbox) => mailbox.stat(address).await,
            From::Memory(mailbox) => mailbox.stat(address).await,
        }
    }
}
