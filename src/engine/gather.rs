//! Asks that come together share a dispatch.
//!
//! A launch with readback costs a GPU as much as ten thousand packets cost a core, whether it serves one
//! ask or twenty. Whoever has a job for the GPU while others are asking too puts it into a queue; one
//! of them, the leader, takes all that wait and runs them as one ragged dispatch. It waits until
//! everybody who is asking has joined, at most [`WAIT_MAX`], so that who is alone goes at once. While a
//! dispatch runs, the next one gathers.
//!
//! Jobs borrow from their callers and callers are on different threads, so what waits in the queue is
//! an [`OwnedJob`]: the columns are shared, the small rest is copied.

use crate::domain::Kernel;
use crate::merge::{Columns, Job, Span, Tallies};
use ndarray::Array2;
use std::sync::mpsc::{SyncSender, TryRecvError, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a job waits for others that are on their way.
pub const WAIT_MAX: Duration = Duration::from_millis(2);
/// Jobs of one dispatch; more wait for the next.
const JOBS_MAX: usize = 256;
/// Query-packet pairs of a job that is worth a dispatch of its own: it goes past the queue, so that
/// small ones do not wait for it.
pub const PAIRS_MAX: u64 = 1 << 24;

/// A merge that owns what it needs.
#[derive(Clone, Debug)]
struct OwnedJob {
    kernel: Kernel,
    columns: Columns,
    gains: Vec<u16>,
    queries: Array2<i8>,
    spans: Vec<Span>,
    skip: bool,
}

impl OwnedJob {
    fn of(job: &Job) -> OwnedJob {
        OwnedJob {
            kernel: job.kernel.clone(),
            columns: job.columns.clone(),
            gains: job.gains.to_vec(),
            queries: job.queries.to_owned(),
            spans: job.spans.to_vec(),
            skip: job.skip,
        }
    }

    fn job(&self) -> Job<'_> {
        Job {
            kernel: &self.kernel,
            columns: &self.columns,
            gains: &self.gains,
            queries: self.queries.view(),
            spans: &self.spans,
            skip: self.skip,
        }
    }
}

/// A job in the queue and where its tallies go; `None` says that the GPU did not do it.
struct Request {
    job: OwnedJob,
    reply: SyncSender<Option<Tallies>>,
}

#[derive(Default)]
struct State {
    /// Asks on their way, those in the queue included.
    present: usize,
    /// Whether a dispatch runs.
    leading: bool,
    waiting: Vec<Request>,
}

/// The queue of an engine.
pub(super) struct Gather {
    wait_max: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

/// An ask on its way to a job: others wait for it, a little. Dropped as soon as it brings no more.
pub(super) struct Present<'a>(&'a Gather);

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.state().present -= 1;
        self.0.changed.notify_all();
    }
}

/// The right to run a dispatch, given back however it ends.
struct Lead<'a>(&'a Gather);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.state().leading = false;
        self.0.changed.notify_all();
    }
}

impl Gather {
    /// With [`WAIT_MAX`]; tests take another time.
    pub fn new(wait_max: Duration) -> Gather {
        Gather { wait_max, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Announces an ask.
    pub fn enter(&self) -> Present<'_> {
        self.state().present += 1;
        Present(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until something changes, or so long.
    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, limit: Option<Duration>) -> MutexGuard<'a, State> {
        match limit {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// The tallies of one job, through `run`, which does several at once and gives `None` where it
    /// could not. The caller is present ([`Gather::enter`]).
    pub fn merge(&self, job: &Job, run: impl Fn(&[Job]) -> Option<Vec<Tallies>>) -> Option<Tallies> {
        let mut state = self.state();
        if state.present <= 1 && !state.leading && state.waiting.is_empty() {
            state.leading = true;
            drop(state);
            let _lead = Lead(self);
            return run(&[*job])?.pop();
        }
        drop(state);
        let deadline = Instant::now() + self.wait_max;
        let (reply, answer) = sync_channel(1);
        let request = Request { job: OwnedJob::of(job), reply };
        state = self.state();
        state.waiting.push(request);
        self.changed.notify_all();
        loop {
            match answer.try_recv() {
                Ok(tallies) => return tallies,
                // The leader broke off.
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
            let now = Instant::now();
            if state.leading {
                state = self.wait(state, None);
            } else if state.waiting.len() < state.present.min(JOBS_MAX) && now < deadline {
                state = self.wait(state, Some(deadline - now));
            } else {
                state.leading = true;
                let taken = state.waiting.len().min(JOBS_MAX);
                let taken: Vec<Request> = state.waiting.drain(..taken).collect();
                drop(state);
                let lead = Lead(self);
                serve(taken, &run);
                drop(lead);
                state = self.state();
            }
        }
    }
}

fn serve(requests: Vec<Request>, run: impl Fn(&[Job]) -> Option<Vec<Tallies>>) {
    let jobs: Vec<Job> = requests.iter().map(|request| request.job.job()).collect();
    let tallies = run(&jobs).filter(|tallies| tallies.len() == jobs.len());
    drop(jobs);
    // The jobs go before the replies: whoever has its answer has its columns to itself again.
    let replies: Vec<SyncSender<_>> = requests.into_iter().map(|request| request.reply).collect();
    let mut tallies = tallies.map(Vec::into_iter);
    for reply in replies {
        // Nobody leaves before the answer, and the channel holds one.
        let _ = reply.send(tallies.as_mut().and_then(Iterator::next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SLOTS;
    use crate::merge::cpu;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A job whose tallies tell it from others.
    fn owned(number: i8) -> OwnedJob {
        let embeddings = Array2::from_shape_fn((20, SLOTS), |(row, slot)| (row * slot % 11) as i8 - number);
        OwnedJob {
            kernel: Kernel::gaussian(100.0),
            columns: Columns::new(embeddings, vec![1; 20], Array2::from_elem((20, 2), 9)),
            gains: vec![4_096; 20],
            queries: Array2::from_elem((1, SLOTS), number),
            spans: vec![Span { queries: 0..1, packets: 0..20 }],
            skip: true,
        }
    }

    fn law(jobs: &[Job]) -> Option<Vec<Tallies>> {
        Some(jobs.iter().map(cpu::merge).collect())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_is_alone_goes_at_once() {
        let gather = Gather::new(LONG);
        let began = Instant::now();
        for number in 0..3 {
            let job = owned(number);
            let present = gather.enter();
            assert_eq!(gather.merge(&job.job(), law), Some(cpu::merge(&job.job())));
            drop(present);
        }
        assert!(began.elapsed() < LONG / 2);
        assert_eq!(gather.state().present, 0);
    }

    #[test]
    fn asks_on_their_way_share_a_dispatch() {
        let gather = Gather::new(LONG);
        let dispatches = Mutex::new(vec![]);
        let run = |jobs: &[Job]| {
            dispatches.lock().unwrap().push(jobs.len());
            law(jobs)
        };
        // All are announced before the first has its job.
        let present: Vec<Present> = (0..12).map(|_| gather.enter()).collect();
        std::thread::scope(|scope| {
            for (number, present) in present.into_iter().enumerate() {
                let (gather, run) = (&gather, &run);
                scope.spawn(move || {
                    let job = owned(number as i8);
                    assert_eq!(gather.merge(&job.job(), run), Some(cpu::merge(&job.job())));
                    drop(present);
                });
            }
        });
        assert_eq!(*dispatches.lock().unwrap(), [12]);
    }

    #[test]
    fn nobody_waits_long_for_who_does_not_come() {
        let gather = Gather::new(Duration::from_millis(5));
        let _late = gather.enter();
        let _present = gather.enter();
        let job = owned(1);
        let began = Instant::now();
        assert_eq!(gather.merge(&job.job(), law), Some(cpu::merge(&job.job())));
        assert!(began.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn many_threads_get_each_its_own() {
        let gather = Gather::new(WAIT_MAX);
        let most = AtomicUsize::new(0);
        let run = |jobs: &[Job]| {
            most.fetch_max(jobs.len(), Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(200));
            law(jobs)
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (gather, run) = (&gather, &run);
                scope.spawn(move || {
                    for round in 0..20 {
                        let job = owned((thread * 7 + round) % 60);
                        let present = gather.enter();
                        assert_eq!(gather.merge(&job.job(), run), Some(cpu::merge(&job.job())));
                        drop(present);
                    }
                });
            }
        });
        assert!(most.load(Ordering::Relaxed) > 1, "never two at once in 160 asks of 8 threads");
    }

    #[test]
    fn a_failure_or_a_panic_of_the_leader_reaches_all_and_ends_nothing() {
        let gather = Gather::new(LONG);
        for panics in [false, true] {
            let present: Vec<Present> = (0..4).map(|_| gather.enter()).collect();
            let lost = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for present in present {
                    let (gather, lost) = (&gather, &lost);
                    scope.spawn(move || {
                        let job = owned(1);
                        let run = |_: &[Job]| if panics { panic!("a defect") } else { None };
                        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                            gather.merge(&job.job(), run)
                        }));
                        assert!(matches!(outcome, Ok(None) | Err(_)));
                        lost.fetch_add(usize::from(outcome.is_ok()), Ordering::Relaxed);
                        drop(present);
                    });
                }
            });
            assert_eq!(lost.into_inner(), if panics { 3 } else { 4 }, "only the leader panics");
            let job = owned(2);
            let _present = gather.enter();
            assert_eq!(gather.merge(&job.job(), law), Some(cpu::merge(&job.job())));
        }
    }
}
