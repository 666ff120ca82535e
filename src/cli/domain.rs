//! `qis domain`: check a domain file, draft one from a table, tune its view, print tables for its views.

mod check;
mod init;
mod tune;

use super::{Failure, output};
use crate::domain::{Decay, Kernel};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Check a domain file, and a table that it describes
    Check(check::Arguments),
    /// Draft a domain file from a table
    Init(init::Arguments),
    /// Learn from packets what to compare by and what to expect; writes a domain file with the view
    Tune(tune::Arguments),
    /// Print a Gaussian kernel, ready to be pasted into a view
    Kernel {
        /// Standard deviation in units of embedding distance; two signals that differ by one
        /// feature's scale are about 32 apart
        #[arg(long, value_name = "DISTANCE", value_parser = bandwidth)]
        bandwidth: f64,
    },
    /// Print an exponential decay, ready to be pasted into a view
    Decay {
        /// After this time an observation counts half, for example 30d
        #[arg(long, value_name = "DURATION", value_parser = crate::domain::file::parse_duration)]
        half_life: u64,
    },
}

fn bandwidth(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // Beyond 2,000 every pair of embeddings is alike, below 1 only equal ones.
        Ok(x) if (1.0..=2_000.0).contains(&x) => Ok(x),
        _ => Err("a number from 1 to 2000 expected".into()),
    }
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::Kernel { bandwidth } => {
            output::text(&Kernel::gaussian(bandwidth).to_toml());
            Ok(())
        }
        Command::Decay { half_life } => {
            output::text(&Decay::exponential(half_life).to_toml());
            Ok(())
        }
    }
}
