//! `qis resynth`: batch re-synthesis.

use super::{Compute, Failure, data, output};
use crate::domain::{Domain, View};
use crate::engine::Engine;
use crate::job::copy::{Copied, Copy};
use crate::job::input::Input;
use crate::job::output::{Output, write};
use crate::job::pass::{Pass, Progress};
use crate::job::refresh::{Refresh, Report};
use crate::job::{self, JobError};
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
    /// Check signatures, and recompute every synthesis from the evidence beside it
    Verify(VerifyArguments),
    /// Put the packets at the addresses of a view; nobody signs again
    Migrate {
        #[command(flatten)]
        copy: CopyArguments,
        /// View of the domain whose addresses they get
        #[arg(long, value_name = "VIEW")]
        to: String,
    },
    /// Write every packet of a store to a packet file, with the domain file beside it
    Export(CopyArguments),
    /// Add the packets of packet files to a store, new or not, at the addresses of all views
    Import(CopyArguments),
}

/// Where packets come from, the same for every mode.
#[derive(clap::Args)]
struct Origin {
    /// Packet file, folder of packet files, or folder of a store that no node uses
    #[arg(long, value_name = "PATH")]
    input: PathBuf,
    /// Domain file [default: the input's name with .toml]
    #[arg(long, value_name = "FILE")]
    domain: Option<PathBuf>,
    /// Exit with 0 although packets were rejected; they are listed in OUTPUT.rejected.ndjson
    #[arg(long)]
    allow_rejected: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Origin {
    fn domain_file(&self) -> PathBuf {
        self.domain.clone().unwrap_or_else(|| self.input.with_extension("toml"))
    }

    /// Exit code 3 where packets were rejected and that is not allowed.
    fn judge(&self, rejected: u64, list: &Path) -> Result<(), Failure> {
        if rejected == 0 || self.allow_rejected {
            return Ok(());
        }
        let list = list.display().to_string();
        Err(Failure::rejected(SomeRejected { rejected, list }))
    }
}

/// How much at a time, the same for the modes that compute.
#[derive(clap::Args)]
struct Means {
    /// View of the domain [default: its first]
    #[arg(long, value_name = "NAME")]
    view: Option<String>,
    /// Memory for packets, like 512MiB or 4GiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = bytes)]
    memory: u64,
    /// Part I of N of the address space, from 0/N
    #[arg(long, value_name = "I/N", default_value = "0/1", value_parser = shard)]
    shard: (u32, u32),
    /// Trust the signatures of packet files
    #[arg(long)]
    skip_signatures: bool,
    #[command(flatten)]
    compute: Compute,
}

#[derive(clap::Args)]
struct RefreshArguments {
    #[command(flatten)]
    origin: Origin,
    /// Packet file to write (NAME.qpk), or folder of a store
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// Time of the answers, Unix milliseconds [default: the largest `observed at` of the input]
    #[arg(long, value_name = "MS")]
    as_of: Option<u64>,
    /// The author of the syntheses; made where there is none
    #[arg(long, value_name = "FILE", default_value = "qis-author.json")]
    author: PathBuf,
    /// Go on with an interrupted job of the same output
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    means: Means,
}

#[derive(clap::Args)]
struct VerifyArguments {
    #[command(flatten)]
    origin: Origin,
    #[command(flatten)]
    means: Means,
}

#[derive(clap::Args)]
struct CopyArguments {
    #[command(flatten)]
    origin: Origin,
    /// Packet file to write (NAME.qpk), or folder of a store
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
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

/// A synthesis says what its evidence does not give.
#[derive(Debug, thiserror::Error)]
#[error("{count} syntheses are forged, the first is {first}: their evidence is there and gives other bits")]
struct Forged {
    count: usize,
    first: String,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}: a store and a packet file are needed: name one that ends in .qpk and one that does not")]
struct WrongKind(String);

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.mode {
        Mode::Refresh(arguments) => refresh(&arguments),
        Mode::Verify(arguments) => verify(&arguments),
        Mode::Migrate { copy, to } => copy_packets(&copy, Some(&to)),
        Mode::Export(arguments) => {
            if let Output::Store(path) = Output::of(&arguments.output) {
                return Err(Failure::failed(WrongKind(path.display().to_string())));
            }
            copy_packets(&arguments, None)
        }
        Mode::Import(arguments) => {
            if let Output::File(path) = Output::of(&arguments.output) {
                return Err(Failure::failed(WrongKind(path.display().to_string())));
            }
            copy_packets(&arguments, None)
        }
    }
}

fn refresh(arguments: &RefreshArguments) -> Result<(), Failure> {
    let RefreshArguments { origin, means, output, .. } = arguments;
    let domain = data::load(&origin.domain_file())?;
    let view = data::view(&domain, means.view.as_deref())?;
    let input = Input::find(&origin.input)?;
    let mut author = AuthorFile::open(&arguments.author)?;
    let key = author.key();
    let engine = means.compute.engine()?;
    let began = Instant::now();
    let list = sibling(output, "rejected.ndjson");
    let job = Refresh {
        pass: means.pass(&input, &domain, view, &engine, false, list.clone()),
        key: &key,
        as_of: arguments.as_of,
        work: sibling(output, "work"),
        resume: arguments.resume,
    };
    let bars = [output::progress(0, "read  "), output::progress(0, "merge ")];
    let refreshed = job.run(|progress| show(&bars, progress))?;
    bars.iter().for_each(ProgressBar::finish_and_clear);
    let report = refreshed.report.clone();
    let written = engine.install(|| {
        let (output, now_ms) = (Output::of(output), data::now_ms());
        write(refreshed, &domain.schema, view, &key, output, now_ms, |count| {
            author.reserve(count).map_err(|error| error.to_string())
        })
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let digest = hex(&written.digest);
    if origin.json {
        output::json(&json!({
            "packets": report.packets,
            "syntheses": written.packets,
            "rejected": report.rejected,
            "bytes": report.bytes,
            "as_of": report.as_of_ms,
            "resumed": report.resumed,
            "seconds": seconds,
            "read_seconds": report.read_time.as_secs_f64(),
            "check_seconds": report.check_time.as_secs_f64(),
            "merge_seconds": report.merge_time.as_secs_f64(),
            "digest": digest,
        }));
    } else {
        print(&report, written.packets, seconds, &digest, &engine.ran().to_string());
    }
    origin.judge(report.rejected, &list)
}

impl Means {
    fn pass<'a>(
        &self,
        input: &'a Input,
        domain: &'a Domain,
        view: &'a View,
        engine: &'a Engine,
        keeps_syntheses: bool,
        rejected: PathBuf,
    ) -> Pass<'a> {
        Pass {
            input,
            schema: &domain.schema,
            view,
            engine,
            checks_signatures: !self.skip_signatures,
            keeps_syntheses,
            memory_bytes: self.memory,
            shard: self.shard,
            rejected,
        }
    }
}

fn verify(arguments: &VerifyArguments) -> Result<(), Failure> {
    let VerifyArguments { origin, means } = arguments;
    let domain = data::load(&origin.domain_file())?;
    let view = data::view(&domain, means.view.as_deref())?;
    let input = Input::find(&origin.input)?;
    let engine = means.compute.engine()?;
    let list = sibling(&origin.input, "rejected.ndjson");
    let pass = means.pass(&input, &domain, view, &engine, true, list.clone());
    let buckets = tempfile::tempdir().map_err(|source| data::io(&std::env::temp_dir(), source))?;
    let bars = [output::progress(0, "read  "), output::progress(0, "merge ")];
    let report = job::verify::verify(&pass, buckets.path(), |progress| show(&bars, progress))?;
    bars.iter().for_each(ProgressBar::finish_and_clear);
    let forged: Vec<String> = report.forged.iter().map(|id| hex(id)).collect();
    if origin.json {
        output::json(&json!({
            "packets": report.packets,
            "rejected": report.rejected,
            "equal": report.equal,
            "not_verifiable": report.not_verifiable,
            "forged": forged,
            "check_seconds": report.check_time.as_secs_f64(),
        }));
    } else {
        output::line(&format!("{} packets, {} rejected", report.packets, report.rejected));
        output::line(&format!(
            "syntheses: {} equal, {} forged, {} not verifiable (evidence missing, retracted or expired, or another view)",
            report.equal,
            forged.len(),
            report.not_verifiable
        ));
        forged.iter().for_each(|id| output::line(&format!("forged   {id}")));
    }
    if let Some(first) = forged.first() {
        return Err(Failure::rejected(Forged { count: forged.len(), first: first.clone() }));
    }
    origin.judge(report.rejected, &list)
}

/// To the addresses of one view, or of all.
fn copy_packets(arguments: &CopyArguments, view: Option<&str>) -> Result<(), Failure> {
    let CopyArguments { origin, output } = arguments;
    let domain_file = origin.domain_file();
    let domain = data::load(&domain_file)?;
    let input = Input::find(&origin.input)?;
    let named = view.map(|view| data::view(&domain, Some(view))).transpose()?;
    let views = named.map_or_else(|| domain.views.iter().collect(), |view| vec![view]);
    let list = sibling(output, "rejected.ndjson");
    let copy = Copy { input: &input, schema: &domain.schema, views, rejected: list.clone() };
    let (announced, _) = input.describe(&domain.schema.id())?;
    let bar = output::progress(announced, "packets");
    let copied = match Output::of(output) {
        Output::File(path) => {
            let id = named.map_or([0; 32], View::id);
            let copied = copy.to_file(path, id, |done| bar.set_position(done))?;
            let beside = path.with_extension("toml");
            if beside != domain_file {
                std::fs::copy(&domain_file, &beside).map_err(|source| data::io(&beside, source))?;
            }
            copied
        }
        Output::Store(path) => copy.to_store(path, data::now_ms(), |done| bar.set_position(done))?,
    };
    bar.finish_and_clear();
    let Copied { packets, written, duplicates, obsolete, other_views, rejected } = copied;
    if origin.json {
        output::json(&json!({
            "packets": packets,
            "written": written,
            "duplicates": duplicates,
            "obsolete": obsolete,
            "other_views": other_views,
            "rejected": rejected,
        }));
    } else {
        output::line(&format!("{packets} packets: {written} written to {}", output.display()));
        let mut rest = vec![];
        for (count, what) in [
            (duplicates, "there already"),
            (obsolete, "superseded, retracted or expired"),
            (other_views, "syntheses of other views"),
            (rejected, "rejected"),
        ] {
            if count > 0 {
                rest.push(format!("{count} {what}"));
            }
        }
        if !rest.is_empty() {
            output::line(&rest.join(", "));
        }
    }
    origin.judge(rejected, &list)
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
