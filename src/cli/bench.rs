//! `qis bench`.

use super::{Compute, Failure, output};
use crate::bench::{COLUMNS, Plan, Record, Task, measure};
use crate::engine::Instructions;

#[derive(clap::Args)]
pub struct Arguments {
    /// What to measure
    #[arg(value_enum)]
    task: TaskName,
    /// Packets [default: 100000 for fingerprint, 10000 for merge]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8_388_608))]
    packets: Option<u32>,
    /// Questions of a merge; each reads every packet
    #[arg(long, value_name = "M", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    queries: u32,
    #[command(flatten)]
    compute: Compute,
    /// Measure the plain CPU code that all others must equal, instead of the fastest
    #[arg(long, conflicts_with_all = ["backend", "adapter"])]
    law: bool,
    /// Code of the CPU's part: scalar, portable or avx2 [default: the fastest that this processor has]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["backend", "adapter", "law"])]
    instructions: Option<String>,
    /// One JSON object on one line
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum TaskName {
    /// Embeddings to 256-bit fingerprints
    Fingerprint,
    /// Tallies of questions over packets
    Merge,
    /// CPU beside GPU by job size, measured and predicted: what --backend auto goes by
    Crossover,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let (task, packets) = match arguments.task {
        TaskName::Fingerprint => (Task::Fingerprint, 100_000),
        TaskName::Merge => (Task::Merge, 10_000),
        TaskName::Crossover => return super::crossover::run(&arguments.compute, arguments.json),
    };
    let plan = Plan {
        task,
        packets: arguments.packets.unwrap_or(packets) as usize,
        queries: arguments.queries as usize,
    };
    let mut engine = arguments.compute.engine()?;
    if arguments.law {
        engine = engine.with_law();
    }
    if let Some(name) = &arguments.instructions {
        engine = engine.with_instructions(instructions(name)?);
    }
    let record = measure(&engine, plan).map_err(Failure::failed)?;
    if arguments.json {
        output::json(&record);
    } else {
        print(&plan, &record);
    }
    Ok(())
}

/// # Errors
/// This processor has none of that name.
fn instructions(name: &str) -> Result<Instructions, Failure> {
    let available = Instructions::available();
    let found = available.iter().find(|instructions| instructions.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = available.iter().map(|instructions| instructions.name()).collect();
        Failure::usage(format!("--instructions {name}: this processor has {}", names.join(", ")))
    })
}

fn print(plan: &Plan, record: &Record) {
    let Record { items, bytes, threads, .. } = record;
    let adapter = if record.adapter.is_empty() { String::new() } else { format!(" on {}", record.adapter) };
    let instructions = match record.instructions {
        "" => String::new(),
        name => format!(" ({name})"),
    };
    output::line(&format!("backend  {}{adapter}, {threads} CPU threads{instructions}", record.backend));
    match plan.task {
        Task::Fingerprint => output::line(&format!("work     {items} packets")),
        Task::Merge => output::line(&format!(
            "work     {items} query-packet pairs: {} questions x {} packets, {COLUMNS} value columns",
            plan.queries, plan.packets
        )),
    }
    output::line(&format!("bytes    {bytes}"));
    output::line("checked  equal to the scalar law");
    output::line(&format!("time     {:.3} ms, {:.3} ms CPU", 1e3 * record.seconds, 1e3 * record.cpu_seconds));
    let unit = if plan.task == Task::Merge { "pairs/s" } else { "packets/s" };
    output::line(&format!("rate     {:.3} M {unit}", record.items_per_second / 1e6));
}
