//! Checks of a machine: adapters, known answers, clock, disk, ports, store.
//!
//! Each check says what it found, and where it failed, what mends it.

mod compute;
mod machine;

pub use compute::{AdapterLine, adapters};
pub use machine::store_check;

use std::path::Path;

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Passed,
    /// Nothing is wrong, but something could be better.
    Noted,
    Failed,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    /// What was found, with units.
    pub found: String,
    /// The command, or the step, that mends it; empty where nothing needs mending.
    pub remedy: String,
}

impl Check {
    fn passed(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, status: Status::Passed, found: found.into(), remedy: String::new() }
    }
    fn noted(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { name, status: Status::Noted, found: found.into(), remedy: remedy.into() }
    }
    fn failed(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { name, status: Status::Failed, found: found.into(), remedy: remedy.into() }
    }
}

/// Everything that `qis doctor` says.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    pub adapters: Vec<AdapterLine>,
    pub checks: Vec<Check>,
}

impl Report {
    pub fn healthy(&self) -> bool {
        self.checks.iter().all(|check| check.status != Status::Failed)
    }
}

/// Runs every check. `adapter` is a part of the adapter's name that the user wants; `store` is where
/// packets are or will be.
pub fn examine(adapter: Option<&str>, store: &Path) -> Report {
    let lines = adapters(adapter);
    let mut checks = vec![compute::cpu_answer(), compute::gpu_answer(adapter, &lines)];
    checks.extend([
        machine::clock_year(),
        machine::clock_monotonic(),
        machine::free_space(store),
        machine::udp_port(),
        store_check(store),
    ]);
    Report { adapters: lines, checks }
}

#[cfg(test)]
mod tests;
