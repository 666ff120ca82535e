//! `qis inspect --verify-synthesis`: each synthesis of a packet file, a store or a mailbox beside what the
//! evidence there gives.

use crate::address::Address;
use crate::cli::places::Origin;
use crate::cli::{Compute, Failure, data, output};
use crate::domain::Domain;
use crate::engine::Engine;
use crate::job::input::Input;
use crate::job::pass::Pass;
use crate::job::verify::verify;
use crate::mailbox::{Mailbox, Position};
use crate::packet::{Id, Kind, Verified, hex};
use crate::proof::synthesis::addresses_read;
use crate::proof::{Finding, judge};
use serde_json::json;
use std::path::Path;

/// Memory for packets while a file or store is judged, in bytes.
const MEMORY_BYTES: u64 = 1 << 30;

/// What is judged, and how it is shown.
pub struct Judging<'a> {
    pub domain: &'a Domain,
    pub view: Option<&'a str>,
    pub compute: &'a Compute,
    /// Syntheses shown at most; forged ones are always shown.
    pub limit: usize,
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{forged} of {all} syntheses are not what their evidence gives; the first is {first}")]
struct Forged {
    forged: usize,
    all: usize,
    first: String,
}

impl Judging<'_> {
    /// A packet file, a folder of packet files, or a store.
    pub fn path(&self, path: &Path) -> Result<(), Failure> {
        let view = data::view(self.domain, self.view)?;
        let input = Input::find(path)?;
        let engine = self.compute.engine()?;
        let folder = tempfile::tempdir().map_err(|source| data::io(&std::env::temp_dir(), source))?;
        let pass = Pass {
            input: &input,
            schema: &self.domain.schema,
            view,
            engine: &engine,
            checks_signatures: true,
            keeps_syntheses: true,
            memory_bytes: MEMORY_BYTES,
            shard: (0, 1),
            rejected: folder.path().join("rejected.ndjson"),
        };
        let report = verify(&pass, folder.path(), |_| ())?;
        if report.rejected > 0 {
            output::note(&format!(
                "{} rejected; `qis inspect --verify` names them",
                output::count(report.rejected, "packet")
            ));
        }
        self.show(&report.findings)
    }

    /// One mailbox, wherever it lies; the others that its syntheses' questions read are pulled too.
    pub fn mailbox(&self, address: &Address, origin: &Origin) -> Result<(), Failure> {
        let engine = self.compute.engine()?;
        let findings = data::runtime()?.block_on(async {
            let from = origin.open(self.domain).await?;
            let findings = self.judge(address, &from, &engine).await;
            from.close().await;
            findings
        })?;
        self.show(&findings)
    }

    async fn judge(
        &self,
        address: &Address,
        from: &impl Mailbox,
        engine: &Engine,
    ) -> Result<Vec<(Id, Finding)>, Failure> {
        let (schema, view) = (&self.domain.schema, data::view(self.domain, self.view)?);
        let pull = async |address: &Address| from.pull(address, &Position::default()).await;
        let here = pull(address).await.map_err(Failure::failed)?.packets;
        let mut findings = vec![];
        for packet in here.iter().filter(|packet| packet.kind() == Kind::Synthesis) {
            let alone: Vec<&Verified> = here.iter().collect();
            let mut finding = judge(packet, &alone, schema, view, engine);
            let read = addresses_read(packet, view);
            if finding != Finding::Equal && read != [*address] {
                let mut all = vec![];
                for address in &read {
                    all.extend(pull(address).await.map_err(Failure::failed)?.packets);
                }
                let all: Vec<&Verified> = all.iter().collect();
                finding = finding.min(judge(packet, &all, schema, view, engine));
            }
            findings.push((packet.id(), finding));
        }
        Ok(findings)
    }

    fn show(&self, findings: &[(Id, Finding)]) -> Result<(), Failure> {
        let forged: Vec<&Id> =
            findings.iter().filter(|(_, finding)| *finding == Finding::Forged).map(|(id, _)| id).collect();
        let shown = findings.iter().filter(|(_, finding)| *finding == Finding::Forged);
        let shown = shown.chain(findings.iter().filter(|(_, f)| *f != Finding::Forged).take(self.limit));
        if self.json {
            for (id, finding) in shown {
                output::json(
                    &json!({"synthesis": hex(id), "finding": finding.name(), "why": finding.to_string()}),
                );
            }
        } else {
            output::table(
                ["synthesis", "finding"],
                shown.map(|(id, finding)| [hex(&id[..16]), finding.to_string()]),
            );
            let count = |name: &str| findings.iter().filter(|(_, finding)| finding.name() == name).count();
            output::line(&format!(
                "{}: {} equal, {} forged, {} not verifiable",
                if findings.len() == 1 {
                    "1 synthesis".into()
                } else {
                    format!("{} syntheses", findings.len())
                },
                count("equal"),
                forged.len(),
                count("not verifiable"),
            ));
        }
        match forged.first() {
            None => Ok(()),
            Some(first) => Err(Failure::rejected(Forged {
                forged: forged.len(),
                all: findings.len(),
                first: hex(*first),
            })),
        }
    }
}
