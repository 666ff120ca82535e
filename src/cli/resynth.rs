//! `qis resynth`: batch re-synthesis.

use super::{Compute, Failure, data, output};
use crate::job::JobError;
use crate::job::input::Input;
use crate::job::output::{Output, write};
use crate::job::refresh::{Progress, Refresh, Report};
use crate::packet::hex;
use crate::run::AuthorFile;
use indicatif::ProgressBar;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(clap::Subcommand)]
enum Mode {
    /// One public synthesis per mailbox and action, from all its live packets
    #[command(after_help = "Example:
  qis bench generate --packets 1000000 --out machines.qpk
  qis resynth refresh --input machines.qpk --output syntheses.qpk")]
    Refresh(RefreshArguments),
}

#[derive(clap::Args)]
struct RefreshArguments {
    /// Packet file, folder of packet files, or folder of a store that no node uses
    #[arg(long, value_name = "PATH")]
    input: PathBuf,
    /// Packet file to write (NAME.qpk), or folder of a store
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// Domain file [default: the input's name with .toml]
    #[arg(long, value_name = "FILE")]
    domain: Option<PathBuf>,
    /// View of the domain [default: its first]
    #[arg(long, value_name = "NAME")]
    view: Option<String>,
    /// Time of the answers, Unix milliseconds [default: the largest `observed at` of the input]
    #[arg(long, value_name = "MS")]
    as_of: Option<u64>,
    /// The author of the syntheses; made where there is none
    #[arg(long, value_name = "FILE", default_value = "qis-author.json")]
    author: PathBuf,
    /// Memory for packets, like 512MiB or 4GiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = bytes)]
    memory: u64,
    /// Part I of N of the address space, from 0/N
    #[arg(long, value_name = "I/N", default_value = "0/1", value_parser = shard)]
    shard: (u32, u32),
    /// Go on with an interrupted job: --output's folder NAME.work
    #[arg(long)]
    resume: bool,
    /// Trust the signatures of packet files
    #[arg(long)]
    skip_signatures: bool,
    /// Exit with 0 although packets were rejected; they are in rejected.ndjson beside the output
    #[arg(long)]
    allow_rejected: bool,
    #[command(flatten)]
    compute: Compute,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Reads `512MiB`.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1u64 << 40)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .ok_or("a number and KiB, MiB, GiB or TiB expected, like 512MiB")?;
    let number: u64 = number.trim().parse().map_err(|_| format!("`{number}` is not a whole number"))?;
    let bytes = number.checked_mul(unit).ok_or("more memory than can be counted")?;
    if bytes < 1 << 20 { Err("at least 1MiB".into()) } else { Ok(bytes) }
}

/// Reads `I/N`.
fn shard(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((index, count)) if index < count => Ok((index, count)),
        _ => Err("I/N expected, I from 0 and below N, like 0/4".into()),
    }
}

/// Some packets of the input were not what they should be.
#[derive(Debug, thiserror::Error)]
#[error("{rejected} packets were rejected: {list} says where and why; --allow-rejected accepts that")]
struct SomeRejected {
    rejected: u64,
    list: String,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.mode {
        Mode::Refresh(arguments) => refresh(&arguments),
    }
}

fn refresh(arguments: &RefreshArguments) -> Result<(), Failure> {
    let beside = arguments.input.with_extension("toml");
    let domain = data::load(arguments.domain.as_ref().unwrap_or(&beside))?;
    let view = data::view(&domain, arguments.view.as_deref())?;
    let input = Input::find(&arguments.input)?;
    let mut author = AuthorFile::open(&arguments.author)?;
    let key = author.key();
    let engine = arguments.compute.engine()?;
    let began = Instant::now();
    let list = sibling(&arguments.output, "rejected.ndjson");
    let job = Refresh {
        input: &input,
        schema: &domain.schema,
        view,
        engine: &engine,
        key: &key,
        as_of: arguments.as_of,
        checks_signatures: !arguments.skip_signatures,
        memory_bytes: arguments.memory,
        shard: arguments.shard,
        work: sibling(&arguments.output, "work"),
        resume: arguments.resume,
        rejected: list.clone(),
    };
    let bars = [output::progress(0, "read  "), output::progress(0, "merge ")];
    let refreshed = job.run(|progress| show(&bars, progress))?;
    bars.iter().for_each(ProgressBar::finish_and_clear);
    let report = refreshed.report.clone();
    let written = engine.install(|| {
        let output = Output::of(&arguments.output);
        let now_ms = data::now_ms();
        write(refreshed, &domain.schema, view, &key, output, now_ms, |count| {
            author.reserve(count).map_err(|error| error.to_string())
        })
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let digest = hex(&written.digest);
    if arguments.json {
        output::json(&json!({
            "packets": report.packets,
            "syntheses": written.packets,
            "rejected": report.rejected,
            "bytes": report.bytes,
            "as_of": report.as_of_ms,
            "seconds": seconds,
            "read_seconds": report.read_time.as_secs_f64(),
            "check_seconds": report.check_time.as_secs_f64(),
            "merge_seconds": report.merge_time.as_secs_f64(),
            "digest": digest,
        }));
    } else {
        print(&report, written.packets, seconds, &digest, &engine.ran().to_string());
    }
    if report.rejected > 0 && !arguments.allow_rejected {
        let list = list.display().to_string();
        return Err(Failure::rejected(SomeRejected { rejected: report.rejected, list }));
    }
    Ok(())
}

fn show([read, merge]: &[ProgressBar; 2], progress: Progress) {
    let (bar, done, total) = match progress {
        Progress::Read { done, total } => (read, done, total),
        Progress::Merged { done, total } => (merge, done, total),
    };
    bar.set_length(total);
    bar.set_position(done);
}

fn print(report: &Report, syntheses: u64, seconds: f64, digest: &str, ran: &str) {
    let Report { packets, bytes, .. } = report;
    let rate = *packets as f64 / seconds / 1e6;
    output::line(&format!("{packets} packets became {syntheses} syntheses in {seconds:.1} s on {ran}"));
    output::line(&format!("rate     {rate:.3} M packets/s, {bytes} bytes read and spilled"));
    let seconds = [report.read_time, report.check_time, report.merge_time].map(|time| time.as_secs_f64());
    let [read, check, merge] = seconds;
    output::line(&format!("read     {read:.1} s, of which signatures {check:.1} s; merge {merge:.1} s"));
    output::line(&format!("digest   {digest}"));
}

/// `NAME.suffix` beside a path.
fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Failure {
        match error {
            JobError::File(error) => error.into(),
            JobError::Store(error) => error.into(),
            error @ (JobError::Input { .. } | JobError::Checkpoint { .. } | JobError::TooMany { .. }) => {
                Failure::rejected(error)
            }
            error => Failure::failed(error),
        }
    }
}
