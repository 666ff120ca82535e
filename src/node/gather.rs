//! One pull: one replica is read page by page, the others are asked for their digest, and where a
//! digest differs from what the reader has by then, the difference is fetched.
//!
//! One replica alone would miss fresh packets whose copies are still on their way; reading all of them
//! would move the mailbox eight times. With digests a pull moves each packet once, finds what a single
//! replica lacks or conceals, and a replica that stops in the middle of its pages is replaced: the next
//! one is read from the reader's cursor there, or compared range by range with what has arrived.

use super::placement::NodeKey;
use super::reconcile::{Ask, Prefix, Reconcile};
use super::seen::Seen;
use crate::packet::Id;
use crate::store::{Cursor, Digest, Range};
use std::collections::BTreeMap;

/// How long the replica that is read may be silent before another one is read beside it.
pub const STALL_MS: u64 = 400;
/// How long the slower replicas may keep a reader waiting once a first one has delivered all.
pub const PATIENCE_MS: u64 = 700;
/// How long a reader waits for a replica while none has delivered all.
pub const PATIENCE_FIRST_MS: u64 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A page came; `cursor` is where it ends.
    Page {
        replica: NodeKey,
        cursor: Cursor,
        more: bool,
        packets: usize,
    },
    /// A replica's digest of the mailbox, and where a pull that begins now would end.
    Stat {
        replica: NodeKey,
        digest: Digest,
        cursor: Cursor,
    },
    /// Answers to [`Action::Ranges`].
    Ranges {
        replica: NodeKey,
        ranges: Vec<Range>,
    },
    /// The packets of an [`Action::Fetch`] came.
    Fetched {
        replica: NodeKey,
    },
    /// The replica does not know the cursor any more.
    Expired {
        replica: NodeKey,
    },
    Failed {
        replica: NodeKey,
        reason: String,
    },
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Asks for the packets after a cursor, or from the beginning.
    Page {
        replica: NodeKey,
        cursor: Option<Cursor>,
    },
    Stat {
        replica: NodeKey,
    },
    Ranges {
        replica: NodeKey,
        prefixes: Vec<Prefix>,
    },
    Fetch {
        replica: NodeKey,
        ids: Vec<Id>,
    },
}

impl Action {
    /// Whom it asks.
    pub fn replica(&self) -> NodeKey {
        match self {
            Action::Page { replica, .. }
            | Action::Stat { replica }
            | Action::Ranges { replica, .. }
            | Action::Fetch { replica, .. } => *replica,
        }
    }
}

/// The state of one pull.
#[derive(Debug)]
pub struct Gather {
    replicas: BTreeMap<NodeKey, Reading>,
    /// In the caller's order of preference.
    order: Vec<NodeKey>,
    /// Cursors of replicas that are not asked this time: kept for the next.
    others: Vec<Cursor>,
    /// Nothing was known of the mailbox, and nothing has come yet.
    blank: bool,
    first_done_ms: Option<u64>,
    /// When pages or ranges last came, or another replica was turned to.
    progress_ms: u64,
    last_reason: String,
}

#[derive(Debug)]
struct Reading {
    cursor: Option<Cursor>,
    state: State,
    restarts: u32,
    heard_ms: u64,
}

#[derive(Debug)]
enum State {
    /// Asked for its digest.
    Asked,
    /// Has told its digest, and waits for something to compare it with.
    Told(Digest, Cursor),
    Paging,
    Comparing {
        reconcile: Reconcile,
        end: Cursor,
        answer: Option<Vec<Range>>,
        waiting: bool,
    },
    Done,
    Failed,
}

impl Gather {
    /// `replicas` are the reachable ones, in the order in which they should be read; `from` is the
    /// reader's position. Of those with a cursor there the first is read.
    pub fn new(replicas: &[NodeKey], from: &[Cursor], now_ms: u64) -> Gather {
        let cursor = |key: &NodeKey| from.iter().find(|c| c.replica == key.0).copied();
        let mut order = replicas.to_vec();
        order.sort_by_key(|key| cursor(key).is_none());
        let state = |key: &NodeKey| if order.first() == Some(key) { State::Paging } else { State::Asked };
        let reading = |key| Reading { cursor: cursor(key), state: state(key), restarts: 0, heard_ms: now_ms };
        Gather {
            replicas: replicas.iter().map(|key| (*key, reading(key))).collect(),
            others: from.iter().filter(|c| !replicas.contains(&NodeKey(c.replica))).copied().collect(),
            blank: from.is_empty(),
            order,
            first_done_ms: None,
            progress_ms: now_ms,
            last_reason: String::new(),
        }
    }

    /// The first questions, one per replica.
    pub fn start(&self) -> Vec<Action> {
        let first = |&replica: &NodeKey| match &self.replicas[&replica] {
            Reading { state: State::Paging, cursor, .. } => Action::Page { replica, cursor: *cursor },
            _ => Action::Stat { replica },
        };
        self.order.iter().map(first).collect()
    }

    /// One step. Packets that came with the input may still be on their way to the reader.
    pub fn step(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        match input {
            Input::Page { replica, cursor, more, packets } => {
                self.page(replica, cursor, more, packets, now_ms)
            }
            Input::Stat { replica, digest, cursor } => {
                if let Some(reading) = self.open(&replica, now_ms)
                    && matches!(reading.state, State::Asked)
                {
                    reading.state = State::Told(digest, cursor);
                    if cursor.replica != replica.0 {
                        self.fail(&replica, "it gave a cursor that is not its own".into());
                    }
                }
                vec![]
            }
            Input::Ranges { replica, ranges } => {
                if let Some(reading) = self.open(&replica, now_ms)
                    && let State::Comparing { answer, waiting, .. } = &mut reading.state
                {
                    (*answer, *waiting) = (Some(ranges), false);
                    self.progress_ms = now_ms;
                }
                vec![]
            }
            Input::Fetched { replica } => {
                if let Some(reading) = self.open(&replica, now_ms)
                    && let State::Comparing { waiting, .. } = &mut reading.state
                {
                    *waiting = false;
                    self.progress_ms = now_ms;
                }
                vec![]
            }
            Input::Expired { replica } => self.expired(replica, now_ms),
            Input::Failed { replica, reason } => {
                self.fail(&replica, reason);
                self.turn_to_another(now_ms)
            }
            Input::Tick => {
                for replica in self.late(now_ms) {
                    self.fail(&replica, "it did not answer in time".into());
                }
                self.turn_to_another(now_ms)
            }
        }
    }

    fn page(
        &mut self,
        replica: NodeKey,
        cursor: Cursor,
        more: bool,
        packets: usize,
        now_ms: u64,
    ) -> Vec<Action> {
        let Some(reading) = self.open(&replica, now_ms) else { return vec![] };
        // A cursor in another's name would make the reader skip that other's packets; one that stands
        // still, or pages without packets, would be asked for ever.
        let stands_still = more && (reading.cursor == Some(cursor) || packets == 0);
        if cursor.replica != replica.0 || stands_still {
            self.fail(&replica, "it gave a cursor that is not its own or stands still".into());
            return self.turn_to_another(now_ms);
        }
        reading.cursor = Some(cursor);
        self.progress_ms = now_ms;
        self.blank &= packets == 0;
        if more {
            return vec![Action::Page { replica, cursor: Some(cursor) }];
        }
        self.done(&replica, cursor, now_ms);
        vec![]
    }

    fn expired(&mut self, replica: NodeKey, now_ms: u64) -> Vec<Action> {
        let blank = self.blank;
        let Some(reading) = self.open(&replica, now_ms) else { return vec![] };
        reading.cursor = None;
        reading.restarts += 1;
        // Once is a store that lost packets, twice is a replica that plays with us.
        if reading.restarts > 1 {
            self.fail(&replica, "its cursors expire at once".into());
            return self.turn_to_another(now_ms);
        }
        // Not from the beginning: what the reader has need not come again.
        reading.state = if blank { State::Paging } else { State::Asked };
        vec![if blank { Action::Page { replica, cursor: None } } else { Action::Stat { replica } }]
    }

    /// Compares digests, and goes on with ranges. To be called when every packet that has come is in
    /// `own`: what is missing there is asked for.
    pub fn settle(&mut self, own: &Seen, now_ms: u64) -> Vec<Action> {
        let mut actions = self.turn_to_another(now_ms);
        let have = own.digest();
        for replica in self.order.clone() {
            let baseline = self.first_done_ms.is_some();
            let Some(reading) = self.replicas.get_mut(&replica) else { continue };
            if let State::Told(digest, end) = reading.state
                && baseline
            {
                if digest == have || digest.count == 0 {
                    self.done(&replica, end, now_ms);
                    continue;
                }
                let reconcile = Reconcile::default();
                reading.state = State::Comparing { reconcile, end, answer: None, waiting: false };
            }
            let State::Comparing { reconcile, end, answer, waiting: waiting @ false } = &mut reading.state
            else {
                continue;
            };
            let end = *end;
            if let Some(ranges) = answer.take()
                && let Err(nonsense) = reconcile.ranges(ranges, own)
            {
                self.fail(&replica, nonsense.0.into());
                continue;
            }
            match reconcile.next_ask() {
                None => self.done(&replica, end, now_ms),
                Some(ask) => {
                    *waiting = true;
                    actions.push(match ask {
                        Ask::Ranges(prefixes) => Action::Ranges { replica, prefixes },
                        Ask::Fetch(ids) => Action::Fetch { replica, ids },
                    });
                }
            }
        }
        actions
    }

    /// Reads another replica where none has delivered all and those that are read are silent.
    fn turn_to_another(&mut self, now_ms: u64) -> Vec<Action> {
        let active =
            self.replicas.values().any(|r| matches!(r.state, State::Paging | State::Comparing { .. }));
        if self.first_done_ms.is_some() || (active && now_ms < self.progress_ms + STALL_MS) {
            return vec![];
        }
        let told = |r: &Reading| matches!(r.state, State::Told(..));
        let asked = |r: &Reading| matches!(r.state, State::Asked);
        let first = |wanted: &dyn Fn(&Reading) -> bool| {
            self.order.iter().find(|key| wanted(&self.replicas[*key])).copied()
        };
        // One that has answered is alive. One that has not is tried only when nobody is left.
        let choice = first(&|r| told(r) && r.cursor.is_some())
            .or_else(|| first(&told))
            .or_else(|| first(&|r| asked(r) && (r.cursor.is_some() || self.blank)));
        let blank = self.blank;
        let Some((replica, reading)) = choice.and_then(|key| Some((key, self.replicas.get_mut(&key)?)))
        else {
            return vec![];
        };
        self.progress_ms = now_ms;
        if reading.cursor.is_some() || blank {
            reading.state = State::Paging;
            return vec![Action::Page { replica, cursor: reading.cursor }];
        }
        if let State::Told(_, end) = reading.state {
            // The next settling asks for the ranges.
            let reconcile = Reconcile::default();
            reading.state = State::Comparing { reconcile, end, answer: None, waiting: false };
        }
        vec![]
    }

    fn open(&mut self, replica: &NodeKey, now_ms: u64) -> Option<&mut Reading> {
        let reading = self.replicas.get_mut(replica)?;
        if matches!(reading.state, State::Done | State::Failed) {
            return None;
        }
        reading.heard_ms = now_ms;
        Some(reading)
    }

    fn done(&mut self, replica: &NodeKey, end: Cursor, now_ms: u64) {
        if let Some(reading) = self.replicas.get_mut(replica) {
            (reading.state, reading.cursor) = (State::Done, Some(end));
            self.first_done_ms.get_or_insert(now_ms);
        }
    }

    fn fail(&mut self, replica: &NodeKey, reason: String) {
        if let Some(reading) = self.replicas.get_mut(replica)
            && !matches!(reading.state, State::Done | State::Failed)
        {
            reading.state = State::Failed;
            self.last_reason = reason;
        }
    }

    fn deadline_ms(&self, reading: &Reading) -> Option<u64> {
        match (&reading.state, self.first_done_ms) {
            (State::Done | State::Failed, _) => None,
            (_, Some(done)) => Some(done.max(reading.heard_ms) + PATIENCE_MS),
            (_, None) => Some(reading.heard_ms + PATIENCE_FIRST_MS),
        }
    }

    /// Replicas that have kept the reader waiting for too long.
    pub fn late(&self, now_ms: u64) -> Vec<NodeKey> {
        let late = |reading| self.deadline_ms(reading).is_some_and(|deadline| deadline <= now_ms);
        self.replicas.iter().filter(|(_, reading)| late(reading)).map(|(key, _)| *key).collect()
    }

    pub fn finished(&self) -> bool {
        self.replicas.values().all(|reading| matches!(reading.state, State::Done | State::Failed))
    }

    /// Replicas of which the reader has all.
    pub fn answered(&self) -> usize {
        self.replicas.values().filter(|reading| matches!(reading.state, State::Done)).count()
    }

    /// Why the last replica that failed did so; empty when none did.
    pub fn last_reason(&self) -> &str {
        &self.last_reason
    }

    /// When an [`Input::Tick`] will do something, if nothing else comes before.
    pub fn wake_ms(&self) -> Option<u64> {
        let deadlines = self.replicas.values().filter_map(|reading| self.deadline_ms(reading));
        // Nobody to turn to: then only the deadlines count.
        let idle = |r: &Reading| {
            matches!(r.state, State::Told(..))
                || (matches!(r.state, State::Asked) && (r.cursor.is_some() || self.blank))
        };
        let stall = self.first_done_ms.is_none() && self.replicas.values().any(idle);
        deadlines.chain(stall.then_some(self.progress_ms + STALL_MS)).min()
    }

    /// Where the reader stands now; a replica that failed midway keeps what was read of it.
    pub fn position(self) -> Vec<Cursor> {
        let read = self.replicas.into_values().filter_map(|reading| reading.cursor);
        read.chain(self.others).collect()
    }
}

#[cfg(test)]
mod tests;
