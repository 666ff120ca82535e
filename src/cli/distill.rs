//! `qis distill`: rows of a table become a file of signed packets.

use super::{Failure, data, output};
use crate::distill::{Case, Distiller, Gatherer};
use crate::domain::{Purpose, Schema};
use crate::packet::{PacketFileWriter, hex};
use crate::run::AuthorFile;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Sequence numbers reserved at once; those of an interrupted run are skipped.
const RESERVED_AT_ONCE: u32 = 1_024;

#[derive(clap::Args)]
#[command(after_help = "Example:
  qis distill --domain heart.toml --input heart.csv --author me.json --output heart.qpk")]
pub struct Arguments {
    /// Domain file
    #[arg(long, value_name = "FILE")]
    domain: PathBuf,
    /// Table to read; `-` for standard input
    #[arg(long, value_name = "FILE|-")]
    input: PathBuf,
    /// Only the rows of this site
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// The author's key and counter; made where there is none
    #[arg(long, value_name = "FILE", default_value = "qis-author.json")]
    author: PathBuf,
    /// Packet file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Why there is nothing to write. An output file of before stays as it is.
#[derive(Debug, thiserror::Error)]
enum NothingKept {
    #[error("{input}: no row of site `{site}`; {seen}")]
    Site { input: String, site: String, seen: String },
    #[error(
        "{input}: {rows} rows gave no packet: {unknown} have no known outcome, {rest} found fewer than {cases_min} similar cases (cases_min)"
    )]
    Rows { input: String, rows: u64, unknown: u64, rest: u64, cases_min: u16 },
}

/// Sites that are named to somebody who asked for one that is not there.
const SITES_SHOWN: usize = 20;

/// Signs groups of cases into the packet file, with sequence numbers taken before they are used.
struct Signer {
    author: AuthorFile,
    schema: Arc<Schema>,
    distiller: Option<Distiller>,
    /// Numbers that are reserved and not used.
    left: u32,
    writer: PacketFileWriter,
    packets: u64,
}

impl Signer {
    fn write(&mut self, group: &[Case]) -> Result<(), Failure> {
        if self.left == 0 {
            let first = self.author.reserve(RESERVED_AT_ONCE)?;
            self.distiller = Some(Distiller::new(self.author.key(), self.schema.clone(), first));
            self.left = RESERVED_AT_ONCE;
        }
        if let Some(distiller) = &mut self.distiller {
            let packet = distiller.observe(&group.iter().collect::<Vec<_>>()).map_err(Failure::failed)?;
            self.writer.write(&packet)?;
            self.packets += 1;
            self.left -= 1;
        }
        Ok(())
    }
}

/// The sites of a table, as many as are shown.
#[derive(Default)]
struct Sites(BTreeSet<String>, bool);

impl Sites {
    fn see(&mut self, site: Option<&str>) {
        let Some(site) = site.filter(|site| !self.0.contains(*site)) else { return };
        if self.0.len() < SITES_SHOWN {
            self.0.insert(site.into());
        } else {
            self.1 = true;
        }
    }

    fn describe(&self) -> String {
        let Sites(names, more) = self;
        if names.is_empty() {
            return "no row names a site: [source] site says which column does".into();
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        format!("its sites are {}{}", names.join(", "), if *more { " and others" } else { "" })
    }
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    if arguments.output == Path::new("-") {
        return Err(Failure::usage("--output -: packets are written to a file; name one"));
    }
    let domain = data::load(&arguments.domain)?;
    let table = data::open(&arguments.input, &domain, Purpose::Evidence)?;
    let author = AuthorFile::open(&arguments.author)?;
    let author_key = hex(author.key().public());
    let schema = Arc::new(domain.schema.clone());
    let writer = PacketFileWriter::create(&arguments.output, schema.id(), [0; 32])?;
    let mut signer = Signer { author, schema: schema.clone(), distiller: None, left: 0, writer, packets: 0 };
    let mut gatherer = Gatherer::new(schema.cases_min);
    let (mut rows, mut unknown) = (0u64, 0u64);
    let mut sites = Sites::default();
    let now_ms = data::now_ms();
    let bar = output::progress(0, "rows");
    for row in table {
        let case = Case::new(&schema, row?, now_ms);
        bar.inc(1);
        sites.see(case.site.as_deref());
        if arguments.site.is_some() && arguments.site != case.site {
            continue;
        }
        rows += 1;
        if !case.has_outcome() {
            unknown += 1;
            continue;
        }
        if let Some(group) = gatherer.add(case) {
            signer.write(&group)?;
        }
    }
    bar.finish_and_clear();
    for group in gatherer.finish() {
        signer.write(&group)?;
    }
    let packets = signer.packets;
    let rest = gatherer.rest();
    let input = || arguments.input.display().to_string();
    match &arguments.site {
        Some(site) if rows == 0 => {
            let (site, seen) = (site.clone(), sites.describe());
            return Err(Failure::rejected(NothingKept::Site { input: input(), site, seen }));
        }
        _ if packets == 0 => {
            let (rest, cases_min) = (rest as u64, schema.cases_min);
            return Err(Failure::rejected(NothingKept::Rows {
                input: input(),
                rows,
                unknown,
                rest,
                cases_min,
            }));
        }
        _ => {}
    }
    signer.writer.finish()?;
    if arguments.json {
        output::json(&json!({
            "rows": rows,
            "packets": packets,
            "without_outcome": unknown,
            "too_few_to_share": rest,
            "author": author_key,
            "schema": hex(&schema.id()),
        }));
        return Ok(());
    }
    output::line(&format!(
        "{rows} rows became {packets} packets of 512 bytes in {}",
        arguments.output.display()
    ));
    if unknown > 0 {
        output::line(&format!("{unknown} rows have no known outcome: nothing to tell yet"));
    }
    if rest > 0 {
        output::line(&format!(
            "{rest} rows found fewer than {} similar cases (cases_min) and were kept back",
            schema.cases_min
        ));
    }
    output::line(&format!("author {author_key}"));
    Ok(())
}
