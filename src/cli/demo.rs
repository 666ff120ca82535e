//! `qis demo`: the whole loop on this machine.

use super::{Compute, Failure, data, output};
use crate::demo::{Event, Play, QuicFleet, Report, play, report};
use crate::distill::Case;
use crate::domain::{Domain, Purpose, Table};
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
        kill: arguments.kill.map_or(nodes / 4, usize::from).min(nodes - 1),
        now_ms: data::now_ms(),
        cases,
    };
    std::fs::create_dir_all(&arguments.output).map_err(|e| data::io(&arguments.output, e))?;
    let stores = tempfile::tempdir().map_err(|e| data::io(Path::new("temporary folder"), e))?;
    let report = data::runtime()?.block_on(async {
        say(arguments.json, &format!("starting {nodes} nodes on QUIC at 127.0.0.1, each with its own store"));
        let mut fleet = QuicFleet::start(nodes, stores.path(), &domain).await.map_err(Failure::failed)?;
        play(&stage, &mut fleet, |event| tell(arguments.json, &stage, event)).await.map_err(Failure::failed)
    })?;
    write(&arguments.output, &report)?;
    if arguments.json {
        output::json(&report);
    } else {
        print(&report, &arguments.output);
    }
    Ok(())
}

fn read(arguments: &Arguments) -> Result<(Domain, Vec<Case>, String), Failure> {
    let (Some(path), Some(file)) = (&arguments.data, &arguments.domain) else {
        let domain = Domain::parse("digits.toml", DIGITS_TOML).map_err(Failure::diagnosed)?;
        let bytes = Box::new(DIGITS_CSV);
        let table = Table::from_bytes("digits.csv", bytes, &domain, Purpose::Evidence);
        let table = table.map_err(data::table_failure)?;
        let cases = Case::read_all(table, &domain.schema, data::now_ms()).map_err(data::table_failure)?;
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
        eprintln!("{text}");
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
        ["nodes", "pathways N(N-1)/2", "packets pulled", "bytes pulled", &quality, "swarm", "pooled"],
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

fn write(folder: &Path, report: &Report) -> Result<(), Failure> {
    for (name, text) in [
        ("report.html", report::html(report)),
        ("report.json", format!("{}\n", serde_json::to_string_pretty(report).unwrap_or_default())),
    ] {
        let path = folder.join(name);
        data::create(&path)?.write_all(text.as_bytes()).map_err(|e| data::io(&path, e))?;
    }
    Ok(())
}
