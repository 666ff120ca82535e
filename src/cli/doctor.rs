//! `qis doctor`.

use super::{Failure, output};
use crate::doctor::{Report, Status, examine};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// Part of the name of the GPU adapter to check
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Where packets are or will be kept
    #[arg(long, value_name = "PATH", default_value = ".")]
    store: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// How the command ends when a check has failed: the report has said what.
#[derive(Debug, thiserror::Error)]
#[error("{0} of {1} checks failed; each names what mends it")]
struct Unhealthy(usize, usize);

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let report = examine(arguments.adapter.as_deref(), &arguments.store);
    if arguments.json {
        output::json(&report);
    } else {
        print(&report);
    }
    if report.healthy() {
        return Ok(());
    }
    let failed = report.checks.iter().filter(|check| check.status == Status::Failed).count();
    Err(Failure::failed(Unhealthy(failed, report.checks.len())))
}

fn print(report: &Report) {
    if report.adapters.is_empty() {
        output::line("adapter  none found");
    }
    for line in &report.adapters {
        let adapter = &line.description;
        let verdict = if line.taken { "taken".into() } else { format!("not taken: {}", line.reason) };
        output::line(&format!(
            "adapter  {} ({}, {}): {verdict}",
            adapter.name, adapter.backend, adapter.driver
        ));
    }
    for check in &report.checks {
        let status = match check.status {
            Status::Passed => "ok      ",
            Status::Noted => "note    ",
            Status::Failed => "FAILED  ",
        };
        output::line(&format!("{status} {}: {}", check.name, check.found));
        if !check.remedy.is_empty() {
            output::line(&format!("         mend it: {}", check.remedy));
        }
    }
}
