//! One block of a deposit on its way to its replicas, beyond the acknowledgement until every replica
//! has its copies: performs what [`Deposit`] decides.

use super::NetMailbox;
use crate::address::Address;
use crate::limits::HANDOFF_PACKETS_MAX;
use crate::net::counters::Counters;
use crate::net::receipt::SignedReceipt;
use crate::net::serve::receipt_packets;
use crate::net::shared::AskError;
use crate::net::wire::{Code, DEPOSIT_BYTES, Request, Response};
use crate::node::deposit::{self, Answer, Verdict};
use crate::node::{Deposit, NodeKey};
use crate::packet::Verified;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub(super) struct Spread {
    mailbox: NetMailbox,
    batch: Arc<[(Address, Verified)]>,
    settle: Option<oneshot::Sender<Vec<Verdict>>>,
}

impl Spread {
    pub fn new(
        mailbox: NetMailbox,
        batch: Arc<[(Address, Verified)]>,
        settle: oneshot::Sender<Vec<Verdict>>,
    ) -> Spread {
        Spread { mailbox, batch, settle: Some(settle) }
    }

    pub async fn run(mut self, placement: Vec<Vec<NodeKey>>) {
        let started = Instant::now();
        let now = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut deposit = Deposit::new(&placement, 0);
        drop(placement);
        let mut sending: FuturesUnordered<BoxFuture<'static, deposit::Input>> = FuturesUnordered::new();
        let mut input = deposit::Input::Tick;
        let mut share = None;
        loop {
            for deposit::Action::Send { replica, packets } in deposit.step(input, now()) {
                sending.push(send(self.mailbox.clone(), self.batch.clone(), replica, packets).boxed());
            }
            if let Some(verdicts) = deposit.verdicts()
                && let Some(settle) = self.settle.take()
            {
                // Before the verdicts: who waits for hand-offs after them must see this one.
                share = HandOff::take(&self.mailbox.handed_off, self.batch.len());
                // Whoever deposited may have gone; the hand-off goes on.
                let _ = settle.send(verdicts);
            }
            if deposit.finished() {
                return;
            }
            if self.settle.is_none() && share.is_none() {
                let copies = deposit.copies_waiting();
                tracing::warn!(copies, "too many hand-offs wait in memory: repair will bring the copies");
                return;
            }
            // Rounded up: waking a fraction early would find nothing to do, and spin.
            let wake = deposit.wake_ms().map(|wake| started + Duration::from_millis(wake + 1));
            input = tokio::select! {
                Some(input) = sending.next(), if !sending.is_empty() => input,
                () = tokio::time::sleep_until(wake.unwrap_or(started)), if wake.is_some() => deposit::Input::Tick,
                else => return,
            };
        }
    }
}

/// Deposits that some replica has not got yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct HandOffs {
    /// Packets of these deposits.
    pub packets: usize,
    /// Milliseconds since the oldest of them was acknowledged.
    pub oldest_ms: u64,
}

/// The last number given, and by number when each hand-off began, and its packets.
type Waiting = (u64, BTreeMap<u64, (Instant, usize)>);

/// The hand-offs of one mailbox.
#[derive(Default)]
pub(super) struct HandedOff {
    waiting: Mutex<Waiting>,
    less: Notify,
}

impl HandedOff {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn read(&self) -> HandOffs {
        let waiting = self.waiting();
        let oldest = waiting.1.values().next().map(|(began, _)| began.elapsed().as_millis());
        HandOffs {
            packets: waiting.1.values().map(|(_, packets)| packets).sum(),
            oldest_ms: u64::try_from(oldest.unwrap_or_default()).unwrap_or(u64::MAX),
        }
    }

    /// Waits until there are none, at most `patience`; says whether that is so.
    pub async fn wait(&self, patience: Duration) -> bool {
        let none = async {
            loop {
                let less = self.less.notified();
                if self.waiting().1.is_empty() {
                    return;
                }
                less.await;
            }
        };
        tokio::time::timeout(patience, none).await.is_ok()
    }
}

/// A share of the packets that may wait in memory; given back when dropped.
struct HandOff {
    all: Arc<HandedOff>,
    number: u64,
}

impl HandOff {
    fn take(all: &Arc<HandedOff>, packets: usize) -> Option<HandOff> {
        let mut waiting = all.waiting();
        let before: usize = waiting.1.values().map(|(_, packets)| packets).sum();
        if before + packets > HANDOFF_PACKETS_MAX {
            return None;
        }
        waiting.0 += 1;
        let number = waiting.0;
        waiting.1.insert(number, (Instant::now(), packets));
        Some(HandOff { all: all.clone(), number })
    }
}

impl Drop for HandOff {
    fn drop(&mut self) {
        self.all.waiting().1.remove(&self.number);
        self.all.less.notify_waiters();
    }
}

/// One frame to one replica.
async fn send(
    mailbox: NetMailbox,
    batch: Arc<[(Address, Verified)]>,
    replica: NodeKey,
    packets: Vec<usize>,
) -> deposit::Input {
    let sent = match mailbox.own(replica) {
        Some(storage) => {
            let own: Vec<(Address, Verified)> = packets.iter().map(|&index| batch[index]).collect();
            let addresses: Vec<Address> = own.iter().map(|(address, _)| *address).collect();
            match tokio::task::spawn_blocking(move || storage.deposit(own)).await {
                Ok(Ok(answers)) => {
                    mailbox.shared.news.arrived(&addresses);
                    Ok(answers)
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "the own store does not take a deposit");
                    Err(0)
                }
                Err(_) => Err(0),
            }
        }
        // The members' list greets silent nodes again; until then nothing is dialled.
        None if mailbox.shared.view().silent.contains(&replica) => Err(0),
        None => send_away(&mailbox, &batch, replica, &packets).await,
    };
    match sent {
        Ok(answers) => deposit::Input::Answered { replica, packets, answers },
        Err(retry_after_ms) => deposit::Input::Failed { replica, packets, retry_after_ms },
    }
}

/// The answers of another node, or after how many milliseconds it wants to be asked again.
async fn send_away(
    mailbox: &NetMailbox,
    batch: &[(Address, Verified)],
    replica: NodeKey,
    packets: &[usize],
) -> Result<Vec<Answer>, u64> {
    let mut bytes = Vec::with_capacity(packets.len() * DEPOSIT_BYTES);
    for &index in packets {
        let (address, packet) = &batch[index];
        bytes.extend(address);
        bytes.extend(packet.as_bytes());
    }
    Counters::add(&mailbox.shared.counters.packets_out, packets.len() as u64);
    let kept = mailbox.receipts.as_ref().map(|_| bytes.clone());
    match mailbox.shared.ask(replica, Request::Deposit(bytes)).await {
        Ok(Response::Deposited { at_ms, signature, answers }) => {
            if let (Some(keep), Some(bytes)) = (&mailbox.receipts, kept)
                && let Some(peer) = mailbox.shared.peer_id(&replica)
            {
                let packets = receipt_packets(&bytes, &answers);
                let receipt = SignedReceipt { replica: peer, at_ms, packets, signature };
                if !receipt.verify() {
                    tracing::warn!(%peer, "a replica acknowledged with a wrong signature: it does not count");
                    return Err(0);
                }
                keep(receipt);
            }
            Ok(answers)
        }
        Ok(_) => Err(0),
        // Its view of the swarm differs from ours: asking again would not change it soon.
        Err(error) if error.code() == Some(Code::NotResponsible) => {
            Ok(vec![Answer::Rejected("not responsible: others are closer".into()); packets.len()])
        }
        Err(AskError::Refused(refusal)) => {
            tracing::warn!(?replica, reason = %refusal, "a replica takes no deposit for now");
            Err(refusal.retry_after_ms.into())
        }
        Err(AskError::NoAnswer(_)) => Err(0),
    }
}
