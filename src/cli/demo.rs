//! `qis demo`: the whole loop on this machine.

use super::{Compute, Failure, data, output};
use crate::demo::{DemoError, Event, Play, QuicFleet, Report, play, report};
use crate::distill::Case;
use crate::domain::{Domain, Purpose, Table};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The demo's own data travel with the program.
const DIGITS_TOML: &str = include_str!("../../datasets/digits.toml");
const DIGITS_CSV: &[u8] = include_bytes!("../../datasets/digits.csv");

#[derive(clap::Args)]
pub struct Arguments {
    /// Another table than the handwritten digits
    #[arg(long, value_name = "FILE", requires = "domain")]
    data: Option<PathBuf>,
    /// Its domain file
    #[arg(long, value_name = "FILE", requires = "data")]
    domain: Option<PathBuf>,
    /// One node per value of this column
    #[arg(long, value_name = "COLUMN", requires = "data")]
    site: Option<String>,
    /// Nodes to start; with --site, at most one per site
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(2..=64))]
    nodes: u16,
    /// Rows that each node has seen
    #[arg(long, value_name = "R", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Unevenness of the nodes' classes (Dirichlet concentration); smaller is more uneven
    #[arg(long, value_name = "A", default_value_t = 0.3)]
    dirichlet: f64,
    /// Nodes killed at the end [default: a quarter]
    #[arg(long, value_name = "K")]
    kill: Option<u16>,
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Folder for report.html and report.json
    #[arg(long, value_name = "FOLDER", default_value = "qis-demo")]
    output: PathBuf,
    #[command(flatten)]
    compute: Compute,
    /// The report as one JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    if !(arguments.dirichlet.is_finite() && arguments.dirichlet > 0.0) {
        return Err(Failure::usage("--dirichlet: a number above 0 is needed, for example 0.3"));
    }
    let engine = Arc::new(arguments.compute.engine()?);
    let (domain, cases, name) = read(&arguments)?;
    let sites = || {
        let mut sites: Vec<_> = cases.iter().map(|case| case.site.as_deref()).collect();
        sites.sort_unstable();
        sites.dedup();
        sites.len()
    };
    let wanted = usize::from(arguments.nodes);
    let nodes = if arguments.site.is_some() { wanted.min(sites()) } else { wanted };
    let stage = Play {
        schema: Arc::new(domain.schema.clone()),
        view: Arc::new(data::view(&domain, None)?.clone()),
        engine,
        data: name,
        nodes,
        rows: arguments.site.is_none().then_some(arguments.rows as usize),
        dirichlet: Some(arguments.dirichlet),
        by_site: arguments.site.is_some(),
        seed: arguments.seed,
        kill: arguments.kill.map_or((nodes / 4).max(1), usize::from).min(nodes - 1),
        now_ms: data::now_ms(),
        cases,
    };
    let reports = Reports::create(&arguments.output)?;
    let stores = tempfile::tempdir().map_err(|e| data::io(Path::new("temporary folder"), e))?;
    let report = data::runtime()?.block_on(async {
        say(arguments.json, &format!("starting {nodes} nodes on QUIC at 127.0.0.1, each with its own store"));
        let mut fleet = QuicFleet::start(nodes, stores.path(), &domain).await.map_err(DemoError::Fleet)?;
        let played = play(&stage, &mut fleet, |event| tell(arguments.json, &stage, event)).await;
        played.map_err(Failure::from)
    })?;
    reports.write(&report)?;
    if arguments.json {
        output::json(&report);
    } else {
        print(&report, &arguments.output);
    }
    Ok(())
}

fn read(arguments: &Arguments) -> Result<(Domain, Vec<Case>, String), Failure> {
    let (Some(path), Some(file)) = (&arguments.data, &arguments.domain) else {
        let domain = Domain::parse("digits.toml", DIGITS_TOML)?;
        let bytes = Box::new(DIGITS_CSV);
        let table = Table::from_bytes("digits.csv", bytes, &domain, Purpose::Evidence)?;
        let cases = Case::read_all(table, &domain.schema, data::now_ms())?;
        return Ok((domain, cases, "handwritten digits".into()));
    };
    let mut domain = data::load(file)?;
    if let Some(site) = &arguments.site {
        domain.source.site = Some(site.clone());
    }
    let cases = data::cases(path, &domain, Purpose::Evidence)?;
    Ok((domain, cases, path.display().to_string()))
}

/// A line for people: beside the JSON it goes to standard error.
fn say(json: bool, text: &str) {
    if json {
        output::note(text);
    } else {
        output::line(text);
    }
}

fn tell(json: bool, stage: &Play, event: Event) {
    match event {
        Event::Started { nodes, train, test } => say(
            json,
            &format!(
                "{nodes} nodes share nothing but packets; together they have seen {train} rows, {test} others are the test"
            ),
        ),
        Event::Step(step) => say(
            json,
            &format!(
                "{:>3} nodes  mailbox {:>5} packets  pulled {:>6} packets, {:>6.0} KiB  distil {:>4.1} ms  deposit {:>6.1} ms  pull {:>5.1} ms  synthesise {:>5.1} ms (per node)  alone {}  swarm {}",
                step.nodes,
                step.mailbox,
                step.packets,
                step.bytes as f64 / 1024.0,
                step.distil_ms / step.nodes as f64,
                step.deposit_ms / step.nodes as f64,
                step.pull_ms / step.nodes as f64,
                step.synthesise_ms / step.nodes as f64,
                output::number(step.local, 3),
                output::number(step.swarm, 3),
            ),
        ),
        Event::Grew { before, after } => {
            say(json, &format!("a new outcome is deposited: the mailbox grows, {before} -> {after} packets"));
        }
        Event::Killed { nodes } => {
            say(
                json,
                &format!("killed {nodes} of {} nodes without goodbye; the others ask again", stage.nodes),
            );
        }
        Event::AfterKill(after) => say(
            json,
            &format!(
                "{} of {} questions answered, {} equal to the bit",
                after.answered, after.asked, after.equal
            ),
        ),
    }
}

fn print(report: &Report, folder: &Path) {
    let quality = format!("{}, node alone", report.measure);
    output::table(
        [
            "nodes",
            "pathways N(N-1)/2",
            "packets pulled",
            "bytes pulled, all replicas",
            &quality,
            "swarm",
            "pooled",
        ],
        report.steps.iter().map(|step| {
            [
                step.nodes.to_string(),
                step.pathways.to_string(),
                step.packets.to_string(),
                step.bytes.to_string(),
                output::number(step.local, 3),
                output::number(step.swarm, 3),
                output::number(step.pooled, 3),
            ]
        }),
    );
    output::line(&format!(
        "{:.1} s, computed on {}; report: {}",
        report.seconds,
        report.backend,
        folder.join("report.html").display()
    ));
}

/// The report's files, open before anything is played: a folder that cannot be written to is found
/// out first. What an earlier demo wrote stays until there is a new report.
struct Reports([(PathBuf, Option<File>); 2]);

impl Reports {
    fn create(folder: &Path) -> Result<Reports, Failure> {
        std::fs::create_dir_all(folder).map_err(|e| data::io(folder, e))?;
        let open = |name: &str| {
            let path = folder.join(name);
            let file = File::options().write(true).create(true).truncate(false).open(&path);
            file.map(|file| (path.clone(), Some(file))).map_err(|e| data::io(&path, e))
        };
        Ok(Reports([open("report.html")?, open("report.json")?]))
    }

    fn write(mut self, report: &Report) -> Result<(), Failure> {
        let json = format!("{}\n", serde_json::to_string_pretty(report).unwrap_or_default());
        for ((path, file), text) in self.0.iter_mut().zip([report::html(report), json]) {
            if let Some(mut file) = file.take() {
                let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
                written.map_err(|e| data::io(path, e))?;
            }
        }
        Ok(())
    }
}

impl Drop for Reports {
    /// A demo that failed leaves no empty report.
    fn drop(&mut self) {
        for (path, file) in &mut self.0 {
            if file.take().is_some_and(|file| file.metadata().is_ok_and(|of| of.len() == 0)) {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
