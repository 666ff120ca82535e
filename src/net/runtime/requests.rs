//! Requests of others: admitted by share and count, answered beside the loop, sent back by it.

use super::{Finished, Runtime};
use crate::limits::{
    REQUESTS_MAX, REQUESTS_PER_PEER_MAX, SUBSCRIPTION_WAIT_MS_MAX, SUBSCRIPTIONS_MAX,
    SUBSCRIPTIONS_PER_PEER_MAX,
};
use crate::net::counters::Counters;
use crate::net::node_key;
use crate::net::serve::Server;
use crate::net::shared::{Command, Shared};
use crate::net::wire::{Code, Refusal, Request, Response};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::ResponseChannel;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

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
        if let Request::Malformed(refusal) = request {
            self.strike(peer, &refusal);
            return self.refuse(channel, refusal);
        }
        let ip = self.remote.get(&connection).and_then(ip_of);
        if let Err(refusal) = self.shared.gate.charge(node_key(&peer), ip, &request) {
            // Not a line for each: whoever floods requests must not flood the log.
            tracing::debug!(%peer, reason = %refusal, "a request was refused");
            return self.refuse(channel, refusal);
        }
        if let Request::Hello(introduction) = request {
            Counters::add(&self.shared.counters.requests_answered, 1);
            let members = self.members.introductions().cloned().collect();
            let own = self.introduction();
            self.respond(channel, Response::Members { introduction: own, members });
            return self.heard(peer, connection, introduction);
        }
        let waits = matches!(request, Request::Pull { wait_ms: 1.., .. });
        match self.admit(peer, waits) {
            Ok(server) => self.work(peer, server, request, channel, waits),
            Err(refusal) => {
                tracing::debug!(%peer, reason = %refusal, "a request was refused");
                self.refuse(channel, refusal);
            }
        }
    }

    fn strike(&mut self, peer: PeerId, refusal: &Refusal) {
        tracing::warn!(%peer, reason = %refusal, "a malformed request");
        let strikes = self.strikes.entry(peer).or_default();
        *strikes += 1;
        if *strikes >= STRIKES_MAX {
            tracing::warn!(%peer, "too many malformed requests: the connection is closed");
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn refuse(&mut self, channel: ResponseChannel<Response>, refusal: Refusal) {
        Counters::add(&self.shared.counters.requests_refused, 1);
        self.respond(channel, Response::Error(refusal));
    }

    fn admit(&self, peer: PeerId, waits: bool) -> Result<Arc<Server>, Refusal> {
        let server = self.server.clone();
        let server =
            server.ok_or_else(|| Refusal::new(Code::NotResponsible, "this node keeps no mailboxes"))?;
        let (counts, total, per_peer_max, max) = match waits {
            true => (&self.waiting, self.waiting_total, SUBSCRIPTIONS_PER_PEER_MAX, SUBSCRIPTIONS_MAX),
            false => (&self.at_work, self.at_work_total, REQUESTS_PER_PEER_MAX, REQUESTS_MAX),
        };
        let overloaded =
            |reason: String| Err(Refusal { retry_after_ms: 1_000, ..Refusal::new(Code::Overloaded, reason) });
        if counts.get(&peer).copied().unwrap_or(0) >= per_peer_max {
            return overloaded(format!("more than {per_peer_max} requests of one peer at a time"));
        }
        if total >= max {
            return overloaded("too many requests at a time; ask again in a second".into());
        }
        Ok(server)
    }

    fn work(
        &mut self,
        peer: PeerId,
        server: Arc<Server>,
        request: Request,
        channel: ResponseChannel<Response>,
        waited: bool,
    ) {
        let (counts, total) = match waited {
            true => (&mut self.waiting, &mut self.waiting_total),
            false => (&mut self.at_work, &mut self.at_work_total),
        };
        *counts.entry(peer).or_default() += 1;
        *total += 1;
        let worker = Worker { server, shared: self.shared.clone(), workers: self.workers.clone(), peer };
        let finished = self.finished_in.clone();
        tokio::spawn(async move {
            let response = if waited { worker.wait(request).await } else { worker.answer(request).await };
            // The loop may have ended.
            let _ = finished.send(Finished { peer, channel, response, waited });
        });
    }

    pub(super) fn on_finished(&mut self, finished: Finished) {
        let (counts, total) = match finished.waited {
            true => (&mut self.waiting, &mut self.waiting_total),
            false => (&mut self.at_work, &mut self.at_work_total),
        };
        *total = total.saturating_sub(1);
        release(counts, &finished.peer);
        self.respond(finished.channel, finished.response);
    }

    fn respond(&mut self, channel: ResponseChannel<Response>, response: Response) {
        // A closed channel has been reported as a failure by then.
        let _ = self.swarm.behaviour_mut().exchange.send_response(channel, response);
    }
}

fn release(counts: &mut HashMap<PeerId, usize>, peer: &PeerId) {
    if let Some(count) = counts.get_mut(peer) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(peer);
        }
    }
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}

/// Works on one request, beside the event loop.
struct Worker {
    server: Arc<Server>,
    shared: Arc<Shared>,
    workers: Arc<Semaphore>,
    peer: PeerId,
}

impl Worker {
    async fn answer(&self, request: Request) -> Response {
        let _permit = self.workers.acquire().await;
        let (server, view, from) = (self.server.clone(), self.shared.view(), node_key(&self.peer));
        let offered = matches!(request, Request::Offer(_));
        let work = tokio::task::spawn_blocking(move || server.answer(from, request, &view));
        let response = work.await.unwrap_or_else(|error| {
            tracing::error!(%error, "work on a request broke off");
            Response::Error(Refusal::new(Code::Unavailable, "work on the request broke off"))
        });
        if offered && response == Response::Noted(true) {
            self.shared.tell(Command::ListsChanged).await;
        }
        response
    }

    /// Answers a pull when there is something, or when its wait is over.
    async fn wait(&self, request: Request) -> Response {
        let Request::Pull { address, cursor, max, wait_ms } = request else {
            return self.answer(request).await;
        };
        let wait = Duration::from_millis(u64::from(wait_ms).min(SUBSCRIPTION_WAIT_MS_MAX));
        let end = Instant::now() + wait;
        let subscription = self.shared.news.subscribe(address);
        loop {
            // Before looking, so that nothing falls between looking and waiting.
            let mut arrived = std::pin::pin!(subscription.notify.notified());
            arrived.as_mut().enable();
            let response = self.answer(Request::Pull { address, cursor, max, wait_ms: 0 }).await;
            let nothing = matches!(&response, Response::Page { packets, .. } if packets.is_empty());
            if !nothing || tokio::time::timeout_at(end, arrived).await.is_err() {
                return response;
            }
        }
    }
}
