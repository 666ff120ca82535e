//! `qis bench`.

use super::{Compute, Failure, output};
use crate::bench::{BenchError, Clock, InputError, Limits, Plan, QUERY_PACKETS, Record, Task, measure};
use crate::engine::Instructions;
use crate::limits::TALLY_PACKETS_MAX;
use clap::value_parser;
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Arguments {
    /// What to measure
    #[arg(value_enum)]
    task: TaskName,
    /// Packets; of `ragged` the mean of its addresses [default: fingerprint 1000000, merge 100000,
    /// ragged 100, query 1000, 10000 and 100000 in turn, ingest 200000, verify 8192, generate 100000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    packets: Option<u32>,
    /// Questions of `merge`; each reads every packet [default: 1000]
    #[arg(long, value_name = "M", value_parser = value_parser!(u32).range(1..=1_000_000))]
    queries: Option<u32>,
    /// Addresses of `ragged`; their sizes follow a power law [default: 10000]
    #[arg(long, value_name = "G", value_parser = value_parser!(u32).range(1..=1_000_000))]
    addresses: Option<u32>,
    /// Compute every pair, also where a block of packets lies beyond the kernel's reach
    #[arg(long)]
    no_skip: bool,
    /// `merge`, `query`: packets of kinds that lie far apart, under a kernel that reaches one kind
    #[arg(long, conflicts_with = "inputs")]
    clustered: bool,
    /// Most cases of a packet; 1 is a path of its own [default: 6; with --inputs it is 1]
    #[arg(long, value_name = "N", conflicts_with_all = ["inputs", "input"], value_parser = value_parser!(u16).range(1..=4_095))]
    cases: Option<u16>,
    /// Folder of .npy files that `benches/peers.py --gen` writes, in place of made-up inputs
    #[arg(long, value_name = "DIR")]
    inputs: Option<PathBuf>,
    /// `ingest`: packet file to read, in place of a temporary one
    #[arg(long, value_name = "FILE", conflicts_with = "packets")]
    input: Option<PathBuf>,
    /// `ingest`: check the signatures too
    #[arg(long)]
    signatures: bool,
    /// `generate`: packet file to write
    #[arg(long, value_name = "FILE", required_if_eq("task", "generate"))]
    out: Option<PathBuf>,
    /// How long the work is repeated, at least five times [default: 1]
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<f64>,
    #[command(flatten)]
    compute: Compute,
    /// Measure the plain CPU code that all others must equal, instead of the fastest
    #[arg(long, conflicts_with_all = ["backend", "adapter"])]
    law: bool,
    /// Code of the CPU's part: scalar, portable or avx2 [default: the fastest that this processor has]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["backend", "adapter", "law"])]
    instructions: Option<String>,
    /// One JSON object on one line; of `query` one for each number of packets
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum TaskName {
    /// Embeddings to 256-bit fingerprints
    Fingerprint,
    /// Tallies of many questions over the same packets
    Merge,
    /// Tallies of many addresses of very different sizes, each with its own questions
    Ragged,
    /// Tallies of one question
    Query,
    /// A packet file to columns, embeddings and fingerprints
    Ingest,
    /// Signatures, in batches and one by one
    Verify,
    /// CPU beside GPU by job size, measured and predicted: what --backend auto goes by
    Crossover,
    /// Signed packets to measure with, and their domain file beside them: --out
    Generate,
}

impl TaskName {
    /// What [`measure`] does; `None` for what is a command of its own.
    fn task(self) -> Option<Task> {
        Some(match self {
            TaskName::Fingerprint => Task::Fingerprint,
            TaskName::Merge => Task::Merge,
            TaskName::Ragged => Task::Ragged,
            TaskName::Query => Task::Query,
            TaskName::Ingest => Task::Ingest,
            TaskName::Verify => Task::Verify,
            TaskName::Crossover | TaskName::Generate => return None,
        })
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=600.0).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds from 0 to 600".into())
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    arguments.check()?;
    let Some(task) = arguments.task.task() else {
        return match &arguments.out {
            Some(out) => super::generate::run(out, arguments.packets, &arguments.compute, arguments.json),
            None => super::crossover::run(&arguments.compute, arguments.json),
        };
    };
    let mut engine = arguments.compute.engine()?;
    if arguments.law {
        engine = engine.with_law();
    }
    if let Some(name) = &arguments.instructions {
        engine = engine.with_instructions(instructions(name)?);
    }
    let limits = Limits::measure(&engine);
    for (index, plan) in arguments.plans(task).iter().enumerate() {
        let record = match measure(&engine, &limits, plan) {
            // Sizes that nobody named: those that the files have, or all of their packets.
            Err(BenchError::TooFew { .. }) if arguments.packets.is_none() && task == Task::Query => {
                if index > 0 {
                    break;
                }
                measure(&engine, &limits, &Plan { packets: None, ..plan.clone() })?
            }
            result => result?,
        };
        if arguments.json {
            output::json(&record);
        } else {
            if index == 0 {
                print_limits(&limits);
            }
            print(&record);
        }
    }
    Ok(())
}

fn instructions(name: &str) -> Result<Instructions, Failure> {
    let available = Instructions::available();
    let found = available.iter().find(|instructions| instructions.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = available.iter().map(|instructions| instructions.name()).collect();
        Failure::usage(format!("--instructions {name}: this processor has {}", names.join(", ")))
    })
}

impl Arguments {
    /// A flag that a task does not know is refused: its figure would not be what was asked for.
    fn check(&self) -> Result<(), Failure> {
        use TaskName::*;
        let merges = [Merge, Ragged, Query];
        let all = [Fingerprint, Merge, Ragged, Query, Ingest, Verify];
        let flags: [(&str, bool, &[TaskName]); 13] = [
            (
                "--packets",
                self.packets.is_some(),
                &[Fingerprint, Merge, Ragged, Query, Ingest, Verify, Generate],
            ),
            ("--out", self.out.is_some(), &[Generate]),
            ("--queries", self.queries.is_some(), &[Merge]),
            ("--addresses", self.addresses.is_some(), &[Ragged]),
            ("--no-skip", self.no_skip, &merges),
            ("--clustered", self.clustered, &[Merge, Query]),
            ("--inputs", self.inputs.is_some(), &[Fingerprint, Merge, Ragged, Query]),
            ("--input", self.input.is_some(), &[Ingest]),
            ("--signatures", self.signatures, &[Ingest]),
            ("--cases", self.cases.is_some(), &[Merge, Ragged, Query, Ingest, Verify]),
            ("--seconds", self.seconds.is_some(), &all),
            ("--law", self.law, &all),
            ("--instructions", self.instructions.is_some(), &all),
        ];
        for (flag, given, tasks) in flags {
            if given && !tasks.contains(&self.task) {
                let tasks: Vec<String> =
                    tasks.iter().map(|task| format!("{task:?}").to_lowercase()).collect();
                return Err(Failure::usage(format!("{flag} is for {} only", tasks.join(", "))));
            }
        }
        let most = TALLY_PACKETS_MAX as u32;
        if self.task != Generate && self.packets.is_some_and(|packets| packets > most) {
            return Err(Failure::usage(format!("--packets: at most {most}, what one exact sum holds")));
        }
        if self.inputs.is_some() && self.task == Ragged && self.packets.is_some() {
            return Err(Failure::usage("--packets: the files of --inputs say how many an address has"));
        }
        Ok(())
    }

    /// One plan for each record.
    fn plans(&self, task: Task) -> Vec<Plan> {
        let number = |number: Option<u32>| number.map(|number| number as usize);
        let default = Plan::new(task);
        let plan = Plan {
            packets: number(self.packets),
            queries: number(self.queries),
            addresses: number(self.addresses),
            skip: !self.no_skip,
            clustered: self.clustered,
            cases_max: self.cases.unwrap_or(default.cases_max),
            inputs: self.inputs.clone(),
            file: self.input.clone(),
            signatures: self.signatures,
            time: self.seconds.map_or(default.time, Duration::from_secs_f64),
            ..default
        };
        if task != Task::Query || plan.packets.is_some() {
            return vec![plan];
        }
        QUERY_PACKETS.iter().map(|&packets| Plan { packets: Some(packets), ..plan.clone() }).collect()
    }
}

fn print_limits(limits: &Limits) {
    output::line(&format!(
        "machine  {:.1} G multiply-adds of bytes, {:.1} G additions of 16 bits, {:.2} GB read from memory \
         per CPU second with {} at work",
        limits.multiply_adds / 1e9,
        limits.additions / 1e9,
        limits.bytes_read / 1e9,
        output::count(limits.threads as u64, "thread"),
    ));
}

fn print(record: &Record) {
    let Record { task, items, threads, .. } = record;
    let adapter = if record.adapter.is_empty() { String::new() } else { format!(" on {}", record.adapter) };
    let instructions = match record.instructions {
        "" => String::new(),
        name => format!(" ({name})"),
    };
    let (unit, work) = match task {
        Task::Fingerprint | Task::Ingest | Task::Verify => ("packets", format!("{items} packets")),
        Task::Merge | Task::Ragged | Task::Query => ("pairs", pairs(record)),
    };
    output::line("");
    output::line(&format!("backend  {}{adapter}, {threads} CPU threads{instructions}", record.backend));
    output::line(&format!("work     {work}"));
    output::line(&format!("bytes    {}", record.bytes));
    output::line("checked  equal to the scalar law");
    if let Some(share) = record.weightless_share {
        let all =
            if record.skip == Some(true) { "blocks of them may be skipped" } else { "each is computed" };
        output::line(&format!("skipping {:.1}% of the pairs weigh nothing; {all}", 100.0 * share));
    }
    output::line(&format!(
        "time     {:.3} ms, {:.3} ms CPU (median of {})",
        1e3 * record.seconds,
        1e3 * record.cpu_seconds,
        record.repetitions
    ));
    let million = |rate: f64| format!("{:.3} M {unit}", rate / 1e6);
    output::line(&format!(
        "rate     {} per second, {} per CPU second",
        million(record.items_per_second),
        million(record.items_per_cpu_second)
    ));
    if let (Some(kernel), Some(transfer)) = (record.kernel_seconds, record.transfer_seconds) {
        output::line(&format!("kernels  {:.3} ms, transfers {:.3} ms", 1e3 * kernel, 1e3 * transfer));
    }
    if let (Some(reading), Some(computing)) = (record.read_items_per_second, record.compute_items_per_second)
    {
        output::line(&format!(
            "alone    reading the file {} per second (from the system's cache where it fits), the rest {} \
             per second",
            million(reading),
            million(computing)
        ));
    }
    if let Some(single) = record.single_items_per_cpu_second {
        output::line(&format!(
            "one by one {} per CPU second; in batches {:.2} times as many",
            million(single),
            record.items_per_cpu_second / single
        ));
    }
    if let (Some(limit), Some(fraction)) = (&record.limit, record.fraction_of_limit) {
        let clock = match limit.unit {
            Clock::Processor => "per CPU second",
            Clock::Wall => "per second",
        };
        let (percent, rate) = (100.0 * fraction, million(limit.value));
        output::line(&format!("limit    {percent:.0}% of {rate} {clock}: {}", limit.name));
    }
}

fn pairs(record: &Record) -> String {
    let Record { items, packets, .. } = record;
    let columns = record.value_columns.unwrap_or(0);
    let who = match (record.addresses, record.queries.unwrap_or(0)) {
        (Some(addresses), queries) => {
            format!("{addresses} addresses, {queries} questions and {packets} packets in all")
        }
        (None, queries) => format!("{} x {packets} packets", output::count(queries, "question")),
    };
    format!("{items} query-packet pairs: {who}, {columns} value columns")
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Failure {
        match error {
            BenchError::File(error) => error.into(),
            BenchError::Input(InputError::Content { .. }) | BenchError::Empty { .. } => {
                Failure::rejected(error)
            }
            BenchError::TooFew { .. } | BenchError::TooLarge { .. } => Failure::usage(error.to_string()),
            error => Failure::failed(error),
        }
    }
}
