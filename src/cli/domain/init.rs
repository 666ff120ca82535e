//! `qis domain init`.

use crate::cli::Failure;

#[derive(clap::Args)]
pub struct Arguments {}

pub fn run(_arguments: &Arguments) -> Result<(), Failure> {
    Err(Failure::usage("under construction"))
}
