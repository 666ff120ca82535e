//! `qis node`.

use super::{Failure, output, peer_address, start_log};
use crate::domain::Domain;
use crate::net::{Multiaddr, quic_address};
use crate::run::node::{NodeError, open, serve};
use crate::run::runtime;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of the mailboxes and of the node's key; made where it is missing
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// UDP address to listen on; port 0 takes a free one. Other than loopback, every machine that
    /// reaches the address may deposit and pull
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:4001")]
    listen: Vec<SocketAddr>,
    /// A node of the swarm to join: IP:PORT or a multiaddress; one is enough, more make it sure
    #[arg(long, value_name = "ADDRESS", value_parser = peer_address)]
    peer: Vec<Multiaddr>,
    /// A domain whose packets are kept, each at its own addresses only [default: packets of every
    /// schema, addresses unchecked]
    #[arg(long, value_name = "FILE")]
    domain: Vec<PathBuf>,
    /// Print one JSON line when ready
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    start_log();
    let domains = arguments.domain.iter().map(Domain::load).collect::<Result<Vec<Domain>, _>>()?;
    let listen = arguments.listen.into_iter().map(quic_address).collect();
    let runtime = runtime().map_err(NodeError::Runtime)?;
    runtime.block_on(async {
        let opened = open(&arguments.store, listen, arguments.peer, &domains).await;
        let (handle, store) = opened?;
        let (peer, addresses) = (handle.peer_id().to_string(), handle.dial_addresses());
        let addresses: Vec<String> = addresses.iter().map(Multiaddr::to_string).collect();
        if arguments.json {
            output::json(&json!({ "peer": peer, "listen": addresses }));
        } else {
            output::line(&format!("peer   {peer}"));
            addresses.iter().for_each(|address| output::line(&format!("listen {address}")));
        }
        serve(handle, store).await.map_err(Failure::from)
    })
}
