//! What a measurement says, and the timing behind it.

use super::{Plan, Task};
use crate::engine::Engine;
use cpu_time::ProcessTime;
use std::time::{Duration, Instant};

/// One measurement. Numbers that a task does not have are `None`, in JSON `null`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Record {
    pub task: Task,
    /// What ran: `cpu`, `gpu` or `cpu+gpu`.
    pub backend: &'static str,
    /// Empty on the CPU.
    pub adapter: String,
    pub threads: usize,
    /// `avx2`, `portable`, or `scalar` for the law; empty where only the GPU ran.
    pub instructions: &'static str,
    /// Packets, or query-packet pairs of a merge, ragged merge or query.
    pub items: u64,
    /// Bytes of input and output, each counted once.
    pub bytes: u64,
    /// Wall time of the median repetition.
    pub seconds: f64,
    /// Processor time of the whole process in that repetition.
    pub cpu_seconds: f64,
    /// Repetitions that were timed.
    pub repetitions: usize,
    pub items_per_second: f64,
    pub items_per_cpu_second: f64,
    /// Always true: a result that differs is [`super::BenchError::Differs`].
    pub checked: bool,
    /// What the machine could do at most; `None` on a GPU and where nothing was measured.
    pub limit: Option<Limit>,
    pub fraction_of_limit: Option<f64>,
    /// Time of the kernels alone, where the adapter tells it.
    pub kernel_seconds: Option<f64>,
    /// Time of uploads and downloads alone, where the adapter tells it.
    pub transfer_seconds: Option<f64>,
    /// Packets of all mailboxes together.
    pub packets: u64,
    pub queries: Option<u64>,
    /// Mailboxes of a ragged merge.
    pub addresses: Option<u64>,
    /// Value columns of a merge: two per outcome.
    pub value_columns: Option<u64>,
    /// Whether blocks beyond the kernel's reach could be passed over unread.
    pub skip: Option<bool>,
    /// Pairs of weight 0 among all, counted from the tallies: no more could be skipped.
    pub weightless_share: Option<f64>,
    /// Signatures: those checked one by one, as `items_per_cpu_second` is for the batch.
    pub single_items_per_cpu_second: Option<f64>,
    /// Ingest: packets per second of reading alone and of computing alone.
    pub read_items_per_second: Option<f64>,
    pub compute_items_per_second: Option<f64>,
}

/// What a figure is compared with.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Limit {
    /// What is used up first.
    pub name: String,
    /// Items per second, by the clock of `unit`.
    pub value: f64,
    /// `per CPU second`, or `per second` of wall time.
    pub unit: Clock,
}

/// Which seconds a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Clock {
    /// Of processor time of one thread while all of the engine's are at work.
    #[serde(rename = "per CPU second")]
    Processor,
    #[serde(rename = "per second")]
    Wall,
}

/// Wall and processor time of the median repetition.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub wall: Duration,
    pub processor: Duration,
    pub repetitions: usize,
}

/// Repetitions: enough for a median, no more than a short wait.
const REPETITIONS_MIN: usize = 5;
const REPETITIONS_MAX: usize = 1_001;

/// Does the work several times, for as long as the plan says, after one that is not timed.
///
/// # Errors
/// The first error of the work.
pub fn repeat<E>(plan: &Plan, mut work: impl FnMut() -> Result<(), E>) -> Result<Times, E> {
    work()?;
    let began = Instant::now();
    let mut times: Vec<(Duration, Duration)> = Vec::new();
    while times.len() < REPETITIONS_MIN || (times.len() < REPETITIONS_MAX && began.elapsed() < plan.time) {
        let (wall, processor) = (Instant::now(), ProcessTime::now());
        work()?;
        times.push((wall.elapsed(), processor.elapsed()));
    }
    let middle = times.len() / 2;
    let wall = *times.select_nth_unstable_by_key(middle, |time| time.0).1;
    let processor = *times.select_nth_unstable_by_key(middle, |time| time.1).1;
    Ok(Times { wall: wall.0, processor: processor.1, repetitions: times.len() })
}

impl Times {
    pub fn per_second(&self, items: u64) -> f64 {
        items as f64 / self.wall.as_secs_f64().max(f64::MIN_POSITIVE)
    }
    pub fn per_cpu_second(&self, items: u64) -> f64 {
        items as f64 / self.processor.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl Record {
    /// What every task says; the engine has just run it.
    pub fn new(plan: &Plan, engine: &Engine, items: u64, bytes: u64, times: Times) -> Record {
        let ran = engine.ran();
        Record {
            task: plan.task,
            instructions: if ran.backend == "gpu" { "" } else { engine.instructions().name() },
            backend: ran.backend,
            adapter: ran.adapter,
            threads: ran.threads,
            items,
            bytes,
            seconds: times.wall.as_secs_f64(),
            cpu_seconds: times.processor.as_secs_f64(),
            repetitions: times.repetitions,
            items_per_second: times.per_second(items),
            items_per_cpu_second: times.per_cpu_second(items),
            checked: true,
            limit: None,
            fraction_of_limit: None,
            kernel_seconds: None,
            transfer_seconds: None,
            packets: items,
            queries: None,
            addresses: None,
            value_columns: None,
            skip: None,
            weightless_share: None,
            single_items_per_cpu_second: None,
            read_items_per_second: None,
            compute_items_per_second: None,
        }
    }

    /// Adds the device's own times, the mean of some further repetitions: timing would take a part of
    /// those that were measured.
    pub fn with_device_times(mut self, engine: &Engine, mut work: impl FnMut()) -> Record {
        if self.backend == "cpu" || engine.gpu_times().is_none() {
            return self;
        }
        (0..REPETITIONS_MIN).for_each(|_| work());
        if let Some(times) = engine.gpu_times() {
            let mean = |seconds: f64| Some(seconds / REPETITIONS_MIN as f64);
            self.kernel_seconds = mean(times.kernel_seconds);
            self.transfer_seconds = mean(times.upload_seconds + times.download_seconds);
        }
        engine.stop_gpu_times();
        self
    }

    /// Compares with a limit of the processor, which says nothing where a GPU ran.
    pub fn against(mut self, limit: Limit) -> Record {
        let done = match limit.unit {
            Clock::Processor => self.items_per_cpu_second,
            Clock::Wall => self.items_per_second,
        };
        if self.backend == "cpu" {
            self.fraction_of_limit = Some(done / limit.value);
            self.limit = Some(limit);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_ends_it() {
        let mut count = 0;
        let result = repeat(&Plan::new(Task::Merge), || {
            count += 1;
            if count == 3 { Err("third") } else { Ok(()) }
        });
        assert_eq!((result.unwrap_err(), count), ("third", 3));
    }

    #[test]
    fn work_is_repeated_enough_and_not_forever() {
        let mut count = 0;
        let times = repeat(&Plan::new(Task::Merge), || {
            count += 1;
            Ok::<(), ()>(())
        });
        assert_eq!((times.unwrap().repetitions, count), (REPETITIONS_MAX, REPETITIONS_MAX + 1));
    }
}
