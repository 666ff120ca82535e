//! Flags, output and exit codes.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; also where the reader of standard output went away early |
//! | 1 | failed: a path that is not there or cannot be read or written, a peer that does not answer |
//! | 2 | wrong use: flags that contradict each other, or name what neither domain nor table has |
//! | 3 | rejected: a file, a row or a store was read and is not what it should be |
//!
//! `failure.rs` holds the conversions that decide between them for every command.

mod ask;
mod bench;
mod crossover;
mod data;
mod demo;
mod deposit;
mod distill;
mod doctor;
mod domain;
mod eval;
mod failure;
mod generate;
mod inspect;
mod merge_shards;
mod node;
mod output;
mod places;
mod resynth;
mod sim;
mod status;
mod swarm;
mod verify;

pub use failure::Failure;

use crate::engine::{Backend, Choice, Engine};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "qis", version, about = "Edge machines learn from each other's outcomes")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ask what the swarm knows of situations
    Ask(ask::Arguments),
    /// Measure fingerprints and merges on CPU and GPU
    Bench(bench::Arguments),
    /// Play the whole loop on this machine: nodes that get smarter from each other
    Demo(demo::Arguments),
    /// Turn the rows of a table into a file of signed packets
    Distill(distill::Arguments),
    /// Put the packets of a file into the mailboxes of a swarm
    Deposit(deposit::Arguments),
    /// Check this machine: adapters, known answers, clock, disk, ports, store
    Doctor(doctor::Arguments),
    /// Check a domain file, or draft one from a table
    Domain(domain::Arguments),
    /// Measure what a swarm of nodes predicts for rows that no node has seen
    Eval(eval::Arguments),
    /// Show what is in a packet file or a store
    Inspect(inspect::Arguments),
    /// Compute all public answers of many packets anew
    Resynth(resynth::Arguments),
    /// Put the results of `resynth refresh --shard` together
    MergeShards(merge_shards::Arguments),
    /// Run a node: keep mailboxes and serve them over QUIC
    Node(node::Arguments),
    /// Simulate a swarm under faults on this machine, or what routing costs as it grows
    Sim(sim::Arguments),
    /// Found a swarm, and admit or revoke its storage nodes and authors
    Swarm(swarm::Arguments),
    /// Show how a running node is doing
    Status(status::Arguments),
    /// Recompute the answers of a proof, on any machine and without a network
    Verify(verify::Arguments),
}

/// `--backend`, `--adapter` and `--threads`, the same for every command that computes.
#[derive(Args, Clone, Debug, Default)]
pub struct Compute {
    /// Where embeddings, fingerprints and merges run; the answers are the same bits
    #[arg(long, value_enum, default_value_t)]
    backend: BackendName,
    /// Part of the GPU adapter's name; a software adapter is used only when named
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// CPU threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    threads: Option<u16>,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default)]
enum BackendName {
    Cpu,
    Gpu,
    #[default]
    Auto,
}

impl Compute {
    /// # Errors
    /// The backend or adapter is not to be had.
    pub fn engine(&self) -> Result<Engine, Failure> {
        let backend = match self.backend {
            BackendName::Cpu => Backend::Cpu,
            BackendName::Gpu => Backend::Gpu,
            BackendName::Auto => Backend::Auto,
        };
        let threads = self.threads.map(usize::from);
        Engine::new(&Choice { backend, adapter: self.adapter.clone(), threads }).map_err(Failure::failed)
    }
}

/// Reads `--peer`.
fn peer_address(text: &str) -> Result<crate::net::Multiaddr, String> {
    crate::net::parse_address(text).map_err(|error| error.to_string())
}

/// Log lines go to standard error; `RUST_LOG` chooses which, like `qis=debug`.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,qis=info"));
    // A second call in one process keeps the first log.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would print that it cannot print, and panic where standard error is closed.
        .log_internal_errors(false)
        .try_init();
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Ask(arguments) => ask::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Distill(arguments) => distill::run(arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Deposit(arguments) => deposit::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Domain(arguments) => domain::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::MergeShards(arguments) => merge_shards::run(arguments),
        Command::Node(arguments) => node::run(arguments),
        Command::Resynth(arguments) => resynth::run(arguments),
        Command::Sim(arguments) => sim::run(arguments),
        Command::Swarm(arguments) => swarm::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
    };
    match result {
        Ok(()) if output::failed() => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
