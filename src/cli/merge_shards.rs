//! `qis merge-shards`: the results of `qis resynth refresh --shard` as one.

use super::{Failure, data, output};
use crate::job::shards::merge;
use crate::packet::hex;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// Results of all shards
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Domain file
    #[arg(long, value_name = "FILE")]
    domain: PathBuf,
    /// View of the domain [default: its first]
    #[arg(long, value_name = "NAME")]
    view: Option<String>,
    /// Packet file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let domain = data::load(&arguments.domain)?;
    let view = data::view(&domain, arguments.view.as_deref())?;
    let written = merge(&arguments.files, &domain.schema, view, &arguments.output)?;
    let digest = hex(&written.digest);
    if arguments.json {
        output::json(&json!({ "packets": written.packets, "digest": digest }));
    } else {
        let files = output::count(arguments.files.len() as u64, "file");
        output::line(&format!("{} syntheses of {files} in {}", written.packets, arguments.output.display()));
        output::line(&format!("digest   {digest}"));
    }
    Ok(())
}
