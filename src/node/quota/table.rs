//! Buckets of one kind by key, at most so many.

use super::{Rate, RetryAfter};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;

/// Thousandths of a token; a rate of n tokens a second brings n of them each millisecond.
const MILLI: u64 = 1_000;

/// `N` buckets that are taken from together.
#[derive(Clone, Copy, Debug)]
struct Buckets<const N: usize> {
    /// Thousandths of tokens at `at_ms`; those of unlimited rates are not used.
    levels: [u64; N],
    at_ms: u64,
}

impl<const N: usize> Buckets<N> {
    fn full(rates: &[Rate; N]) -> Buckets<N> {
        Buckets { levels: rates.map(|rate| rate.burst.saturating_mul(MILLI)), at_ms: 0 }
    }

    /// As they are at `now_ms`.
    fn refilled(self, rates: &[Rate; N], now_ms: u64) -> Buckets<N> {
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        let levels = std::array::from_fn(|i| {
            let more = rates[i].per_second.saturating_mul(passed_ms);
            self.levels[i].saturating_add(more).min(rates[i].burst.saturating_mul(MILLI))
        });
        Buckets { levels, at_ms: self.at_ms.max(now_ms) }
    }

    /// Milliseconds after `now_ms` until all tokens of `cost` are there, if nothing is taken meanwhile.
    fn wait_ms(self, rates: &[Rate; N], now_ms: u64, cost: [u64; N]) -> u64 {
        let buckets = self.refilled(rates, now_ms);
        let wait = |i: usize| {
            let (rate, needed) = (rates[i], cost[i].saturating_mul(MILLI));
            if rate.per_second == 0 || needed <= buckets.levels[i] {
                return 0;
            }
            if cost[i] > rate.burst {
                return RetryAfter::NEVER;
            }
            // After a clock that ran backwards, tokens come from `at_ms` on.
            let fill_ms = (needed - buckets.levels[i]).div_ceil(rate.per_second);
            fill_ms.saturating_add(buckets.at_ms - now_ms)
        };
        (0..N).map(wait).max().unwrap_or(0)
    }

    /// Takes what [`Buckets::wait_ms`] found to be there.
    fn take(&mut self, rates: &[Rate; N], now_ms: u64, cost: [u64; N]) {
        *self = self.refilled(rates, now_ms);
        for (level, cost) in self.levels.iter_mut().zip(cost) {
            *level = level.saturating_sub(cost.saturating_mul(MILLI));
        }
    }

    /// From when on a new set is as good as this one.
    fn full_at_ms(&self, rates: &[Rate; N]) -> u64 {
        let fill_ms = |i: usize| match rates[i].per_second {
            0 => 0,
            rate => (rates[i].burst.saturating_mul(MILLI) - self.levels[i]).div_ceil(rate),
        };
        self.at_ms.saturating_add((0..N).map(fill_ms).max().unwrap_or(0))
    }
}

/// The buckets of at most `max` keys, and one set that all others share.
#[derive(Clone, Debug)]
pub struct Table<K, const N: usize> {
    rates: [Rate; N],
    max: usize,
    /// Only ever looked up: its order is chance.
    own: HashMap<K, Buckets<N>>,
    /// One entry per key of `own`, by a time before which its buckets are not full. Takes move the
    /// true time on without a word; it is looked up when an entry comes first.
    full_at: BinaryHeap<Reverse<(u64, K)>>,
    shared: Buckets<N>,
}

impl<K: Copy + Ord + Hash, const N: usize> Table<K, N> {
    pub fn new(rates: [Rate; N], max: usize) -> Table<K, N> {
        let shared = Buckets::full(&rates);
        Table { rates, max, own: HashMap::new(), full_at: BinaryHeap::new(), shared }
    }

    /// Milliseconds until a take of `cost` is covered; 0 where it is now.
    pub fn wait_ms(&self, now_ms: u64, key: &K, cost: [u64; N]) -> u64 {
        // A newcomer's own buckets begin as full as the shared ones are: see `take`.
        self.own.get(key).unwrap_or(&self.shared).wait_ms(&self.rates, now_ms, cost)
    }

    /// Takes `cost`, for which [`Table::wait_ms`] gave 0.
    pub fn take(&mut self, now_ms: u64, key: K, cost: [u64; N]) {
        if self.rates.iter().all(|rate| rate.per_second == 0) {
            return;
        }
        if let Some(buckets) = self.own.get_mut(&key) {
            buckets.take(&self.rates, now_ms, cost);
        } else if self.has_place(now_ms) {
            // Not full, if the shared ones are not: the key may have taken from them before, and
            // would else have two bursts.
            let mut buckets = self.shared;
            buckets.take(&self.rates, now_ms, cost);
            self.full_at.push(Reverse((buckets.full_at_ms(&self.rates), key)));
            self.own.insert(key, buckets);
        } else {
            self.shared.take(&self.rates, now_ms, cost);
        }
    }

    /// Whether one more key can have buckets; where needed, one whose buckets are full gives up its
    /// place. Each take puts off at most one entry, so the work is that of the takes.
    fn has_place(&mut self, now_ms: u64) -> bool {
        while self.own.len() >= self.max {
            match self.full_at.peek() {
                Some(&Reverse((at_ms, key))) if at_ms <= now_ms => {
                    self.full_at.pop();
                    match self.own.get(&key).map_or(0, |buckets| buckets.full_at_ms(&self.rates)) {
                        full if full <= now_ms => _ = self.own.remove(&key),
                        later => self.full_at.push(Reverse((later, key))),
                    }
                }
                _ => return false,
            }
        }
        true
    }

    /// Keys with buckets of their own.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        assert_eq!(self.own.len(), self.full_at.len());
        self.own.len()
    }
}
