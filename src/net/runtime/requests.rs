//! Requests of others: admitted by count, answered beside the loop, sent back by it.

use super::{Finished, Runtime};
use crate::limits::{REQUESTS_MAX, REQUESTS_PER_PEER_MAX};
use crate::net::counters::Counters;
use crate::net::serve::Server;
use crate::net::wire::{Code, Refusal, Request, Response};
use libp2p::PeerId;
use libp2p::request_response::ResponseChannel;
use libp2p::swarm::ConnectionId;
use std::sync::Arc;

/// Malformed requests after which the connection is closed.
const STRIKES_MAX: u32 = 8;

impl Runtime {
    pub(super) fn on_request(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        request: Request,
        channel: ResponseChannel<Response>,
    ) {
        let refusal = match request {
            Request::Hello { storage, addresses } => {
                Counters::add(&self.shared.counters.requests_answered, 1);
                let members = self.members.introductions().cloned().collect();
                let addresses_own = self.own_addresses();
                self.respond(
                    channel,
                    Response::Members { storage: self.storage, addresses: addresses_own, members },
                );
                return self.heard(peer, connection, storage, addresses);
            }
            Request::Malformed(refusal) => {
                tracing::warn!(%peer, reason = %refusal, "a malformed request");
                let strikes = self.strikes.entry(peer).or_default();
                *strikes += 1;
                if *strikes >= STRIKES_MAX {
                    tracing::warn!(%peer, "too many malformed requests: the connection is closed");
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
                refusal
            }
            request => match self.admit(peer) {
                Ok(server) => return self.work(peer, server, request, channel),
                Err(refusal) => {
                    tracing::warn!(%peer, reason = %refusal, "a request was refused");
                    refusal
                }
            },
        };
        Counters::add(&self.shared.counters.requests_refused, 1);
        self.respond(channel, Response::Error(refusal));
    }

    fn admit(&self, peer: PeerId) -> Result<Arc<Server>, Refusal> {
        let server = self.server.clone();
        let server =
            server.ok_or_else(|| Refusal::new(Code::NotResponsible, "this node keeps no mailboxes"))?;
        if self.at_work.get(&peer).copied().unwrap_or(0) >= REQUESTS_PER_PEER_MAX {
            let reason = format!("more than {REQUESTS_PER_PEER_MAX} requests of one peer at a time");
            return Err(Refusal::new(Code::Overloaded, reason));
        }
        if self.at_work_total >= REQUESTS_MAX {
            return Err(Refusal::new(Code::Overloaded, "too many requests at a time; ask again in a second"));
        }
        Ok(server)
    }

    fn work(
        &mut self,
        peer: PeerId,
        server: Arc<Server>,
        request: Request,
        channel: ResponseChannel<Response>,
    ) {
        *self.at_work.entry(peer).or_default() += 1;
        self.at_work_total += 1;
        let (workers, finished, view) = (self.workers.clone(), self.finished_in.clone(), self.shared.view());
        tokio::spawn(async move {
            let _permit = workers.acquire().await;
            let work = tokio::task::spawn_blocking(move || server.answer(request, &view));
            let response = work.await.unwrap_or_else(|error| {
                tracing::error!(%error, "work on a request broke off");
                Response::Error(Refusal::new(Code::Unavailable, "work on the request broke off"))
            });
            // The loop may have ended.
            let _ = finished.send(Finished { peer, channel, response });
        });
    }

    pub(super) fn on_finished(&mut self, finished: Finished) {
        self.at_work_total = self.at_work_total.saturating_sub(1);
        if let Some(count) = self.at_work.get_mut(&finished.peer) {
            *count -= 1;
            if *count == 0 {
                self.at_work.remove(&finished.peer);
            }
        }
        self.respond(finished.channel, finished.response);
    }

    fn respond(&mut self, channel: ResponseChannel<Response>, response: Response) {
        // A closed channel has been reported as a failure by then.
        let _ = self.swarm.behaviour_mut().exchange.send_response(channel, response);
    }
}
