//! `qis domain tune`.

use crate::cli::{Compute, Failure, data, output};
use crate::domain::Domain;
use crate::domain::file::VIEW_PURPOSE;
use crate::domain::view::View;
use crate::job::input::Input;
use crate::packet::{Packet, Verified, verify_batch};
use crate::run::AuthorFile;
use crate::tune;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A tuned view is learned from at most so many packets, evenly spaced: more say little more.
const PACKETS_MAX: usize = 200_000;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  qis domain tune heart.toml --packets heart.qpk --output heart-tuned.toml
  qis domain tune heart.toml --packets mine.qpk --packets /var/lib/qis --output tuned.toml --sign curator.json")]
pub struct Arguments {
    /// The domain file
    file: PathBuf,
    /// Packets to learn from: a packet file, a folder of them, or a store; may be given several times
    #[arg(long, value_name = "PATH", required = true)]
    packets: Vec<PathBuf>,
    /// View to start from [default: the domain's first]
    #[arg(long, value_name = "NAME")]
    view: Option<String>,
    /// Name of the tuned view
    #[arg(long, value_name = "NAME", default_value = "tuned")]
    name: String,
    /// File for the domain with the tuned view before its others; it must not exist yet
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Key file of the domain's curator, to sign the view with
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    /// Print what was tried as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let domain = data::load(&arguments.file)?;
    let base = data::view(&domain, arguments.view.as_deref())?;
    if domain.view(Some(&arguments.name)).is_some() {
        return Err(Failure::usage(format!(
            "--name {}: the domain has a view of that name already; choose another one",
            arguments.name
        )));
    }
    let key = match &arguments.sign {
        None => None,
        Some(path) => {
            let key = AuthorFile::open(path)?.key();
            if *key.public() != domain.schema.curator {
                return Err(Failure::rejected(Refused(format!(
                    "{}: not the key of the domain's curator; name it in the schema (curator = \"{}\") or leave --sign out",
                    path.display(),
                    crate::packet::hex(key.public())
                ))));
            }
            Some(key)
        }
    };
    // Before minutes of work are done for a file that cannot be written.
    let mut file =
        std::fs::File::create_new(&arguments.output).map_err(|e| data::io(&arguments.output, e))?;
    let written = tuned(arguments, &domain, base).and_then(|tuned| {
        let view = View { name: arguments.name.clone(), ..tuned.view };
        let signature = key.map(|key| key.sign_id(VIEW_PURPOSE, &view.id()));
        let text = with_view(&domain, &view.to_toml(signature.as_ref()), &tuned.report);
        // What everybody will read must be what was found.
        let read = Domain::parse(&arguments.output.display().to_string(), &text)?;
        assert_eq!(read.view(Some(&arguments.name)), Some(&view), "a view that is written as it is");
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|e| data::io(&arguments.output, e))?;
        Ok((view, tuned.report))
    });
    let (view, report) = match written {
        Ok(found) => found,
        Err(failure) => {
            // Nothing half-written.
            let _ = std::fs::remove_file(&arguments.output);
            return Err(failure);
        }
    };
    if arguments.json {
        let id = crate::packet::hex(&view.id());
        output::json(&serde_json::json!({"view": view.name, "id": id, "report": report}));
    } else {
        report.iter().for_each(|line| output::line(line));
        output::note(&format!("wrote {}; its view `{}` is the first", arguments.output.display(), view.name));
    }
    Ok(())
}

fn tuned(arguments: &Arguments, domain: &Domain, base: &View) -> Result<tune::Tuned, Failure> {
    let mut packets: Vec<Verified> = vec![];
    let mut refused = 0usize;
    for path in &arguments.packets {
        let input = Input::find(path)?;
        input.describe(&domain.schema.id())?;
        input.read(|block| {
            let parsed: Vec<Packet> = block
                .bytes
                .chunks_exact(crate::limits::PACKET_BYTES)
                .filter_map(|bytes| Packet::parse(bytes).ok())
                .collect();
            let count = block.bytes.len() / crate::limits::PACKET_BYTES;
            let before = packets.len();
            let ours = parsed.into_iter().filter(|packet| *packet.schema() == domain.schema.id());
            let ours: Vec<Packet> = ours.collect();
            match block.checked {
                true => packets.extend(ours.into_iter().map(Verified::checked_before)),
                false => packets.extend(verify_batch(&ours).into_iter().flatten()),
            }
            refused += count - (packets.len() - before);
            true
        })?;
    }
    if refused > 0 {
        output::note(&format!(
            "{} left out: damaged, unsigned or of another schema; `qis inspect --verify` names them",
            output::count(refused as u64, "packet")
        ));
    }
    if packets.is_empty() {
        let first: &Path = &arguments.packets[0];
        let problem = format!("{}: no packet of this domain to learn from", first.display());
        return Err(Failure::rejected(Refused(problem)));
    }
    if packets.len() > PACKETS_MAX {
        // Ids are as good as random: the same packets whatever the order of the files.
        packets.sort_by_key(|packet| packet.id());
        let step = packets.len().div_ceil(PACKETS_MAX);
        packets = packets.into_iter().step_by(step).collect();
        output::note(&format!("learning from {} of them", output::count(packets.len() as u64, "packet")));
    }
    let bar = output::progress(tune::STAGES, "stages");
    let found = tune::tune(&domain.schema, base, &packets, &arguments.compute.engine()?, |_| bar.inc(1));
    bar.finish_and_clear();
    Ok(found)
}

/// The domain's text with the view before the others, and what was tried as comments.
fn with_view(domain: &Domain, view: &str, report: &[String]) -> String {
    let lines: Vec<&str> = domain.text.lines().collect();
    let at = lines.iter().position(|line| line.trim_start().starts_with("[[view]]")).unwrap_or(lines.len());
    let comments: String = report.iter().map(|line| format!("# {line}\n")).collect();
    let (before, after) = (lines[..at].join("\n"), lines[at..].join("\n"));
    format!("{before}\n# Found by `qis domain tune`:\n{comments}{view}\n{after}\n")
}
