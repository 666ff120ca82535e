//! Measures fingerprints and merges on one engine.
//!
//! Inputs are made from a fixed seed. The result is compared with the scalar law before the first
//! timed repetition; a wrong one is an error, not a time.

pub mod crossover;
mod workload;

pub use workload::{COLUMNS, Workload};

use crate::engine::Engine;
use cpu_time::ProcessTime;
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    Fingerprint,
    Merge,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub task: Task,
    /// Packets, at least 1.
    pub packets: usize,
    /// Questions of a merge, at least 1; each reads every packet.
    pub queries: usize,
}

/// One measurement.
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
    /// Packets of a fingerprint run, query-packet pairs of a merge.
    pub items: u64,
    /// Bytes of input and output.
    pub bytes: u64,
    /// Wall time of the median repetition.
    pub seconds: f64,
    /// Processor time of the whole process in that repetition.
    pub cpu_seconds: f64,
    pub items_per_second: f64,
    /// Always true: a result that differs is [`BenchError::Differs`].
    pub checked: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(
        "{backend} differs from the scalar law at row {row}: do not use it; `qis doctor` names the \
         driver, and --backend cpu is right"
    )]
    Differs { backend: String, row: usize },
}

/// Repetitions: enough for a median, no more than a short wait.
const REPETITIONS_MIN: usize = 5;
const REPETITIONS_MAX: usize = 201;
const TIME_ENOUGH: Duration = Duration::from_millis(1_000);

/// Checks, then measures; the median of several repetitions by wall time.
///
/// # Errors
/// [`BenchError::Differs`].
pub fn measure(engine: &Engine, plan: Plan) -> Result<Record, BenchError> {
    let workload = Workload::new(plan);
    engine.forget_ran();
    if let Some(row) = workload.wrong_row(engine) {
        let ran = engine.ran();
        return Err(BenchError::Differs { backend: format!("{} {}", ran.backend, ran.adapter), row });
    }
    engine.forget_ran();
    let began = Instant::now();
    let mut times: Vec<(Duration, Duration)> = Vec::new();
    while times.len() < REPETITIONS_MIN || (times.len() < REPETITIONS_MAX && began.elapsed() < TIME_ENOUGH) {
        let (wall, processor) = (Instant::now(), ProcessTime::now());
        workload.run(engine);
        times.push((wall.elapsed(), processor.elapsed()));
    }
    times.sort();
    let (wall, processor) = times[times.len() / 2];
    let ran = engine.ran();
    Ok(Record {
        task: plan.task,
        backend: ran.backend,
        adapter: ran.adapter,
        threads: ran.threads,
        instructions: if ran.backend == "gpu" { "" } else { engine.instructions().name() },
        items: workload.items(),
        bytes: workload.bytes(),
        seconds: wall.as_secs_f64(),
        cpu_seconds: processor.as_secs_f64(),
        items_per_second: workload.items() as f64 / wall.as_secs_f64(),
        checked: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Backend, Choice};

    #[test]
    fn a_record_states_its_work() {
        let choice = Choice { backend: Backend::Cpu, adapter: None, threads: Some(1) };
        let engine = Engine::new(&choice).unwrap();
        let merge = measure(&engine, Plan { task: Task::Merge, packets: 100, queries: 3 }).unwrap();
        assert_eq!((merge.items, merge.backend, merge.threads, merge.checked), (300, "cpu", 1, true));
        assert!(merge.seconds > 0.0 && merge.items_per_second > 0.0);
        assert_eq!(merge.instructions, engine.instructions().name());
        let engine = engine.with_law();
        let fingerprint = Plan { task: Task::Fingerprint, packets: 100, queries: 3 };
        let fingerprint = measure(&engine, fingerprint).unwrap();
        assert_eq!((fingerprint.items, fingerprint.bytes), (100, 16_000));
        let json = serde_json::to_value(&fingerprint).unwrap();
        assert_eq!(json["task"], "fingerprint");
        assert_eq!(json["instructions"], "scalar");
        assert_eq!(json["checked"], true);
    }
}
