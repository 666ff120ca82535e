//! Proof files: written whole or not at all, read with every bound checked.

use super::fields::fields;
use crate::domain::{Domain, View};
use crate::limits::{
    FINISH_VERSION, PACKET_BYTES, PROOF_ANSWERS_MAX, PROOF_HEADER_BYTES_MAX, PROOF_PACKETS_MAX,
    SCOPES_PER_QUESTION_MAX, SLOTS,
};
use crate::merge::{Answer, lineage_root, live};
use crate::packet::{Id, Kind, Packet, PacketError, Verified, hex, unhex};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// What a proof file begins with.
const BEGINNING: &[u8] = b"{\"format\":\"qis proof 1\"";
const FORMAT: &str = "qis proof 1";
/// Bytes of the digest at the end.
const DIGEST_BYTES: usize = 32;

/// Why a proof cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("is not a proof: it does not begin with `{{\"format\":\"qis proof 1\"`")]
    NotAProof,
    #[error("{bytes} bytes, at most {bytes_max} are read")]
    TooLarge { bytes: u64, bytes_max: u64 },
    #[error("is damaged or cut off: the digest in its last 32 bytes is not that of what stands before")]
    Damaged,
    #[error("header: {0}")]
    Header(String),
    /// A field of the header is not what it should be.
    #[error("header, {field}: {problem}")]
    Field { field: String, problem: String },
    /// A newer program made it.
    #[error("was made with version {found} of the answers' formulas; this program knows 1 to {known}")]
    Finish { found: u16, known: u16 },
    #[error("the header announces {announced} packets, the file has {bytes} bytes for them")]
    Length { announced: u64, bytes: usize },
    #[error("packet {index}: {source}")]
    Packet { index: usize, source: PacketError },
    /// More than a proof holds.
    #[error("{count} {what}, a proof holds at most {max}: ask about fewer rows at a time")]
    TooMany { what: &'static str, count: usize, max: usize },
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Row of the table, from 1; for people.
    pub row: u64,
    pub signal: [i8; SLOTS],
    /// One, or several for a question across scopes.
    pub scopes: Vec<Id>,
    /// Unix milliseconds.
    pub ask_ms: u64,
}

/// A question, and what is said to be its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub asked: Asked,
    /// Lineage root of all live packets read.
    pub lineage: Id,
    /// As [`fields`] gives them.
    pub answer: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    finish: u16,
    schema: String,
    view: String,
    view_name: String,
    packets: u64,
    domain: String,
    answers: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    row: u64,
    signal: String,
    scopes: Vec<String>,
    ask_ms: u64,
    lineage: String,
    answer: Vec<(String, String)>,
}

/// A proof as it was read: sound in form, its signatures and answers not checked yet.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Text of the domain file.
    pub domain: String,
    pub view_name: String,
    pub schema: Id,
    pub view: Id,
    pub claims: Vec<Claim>,
    /// Ascending by id.
    pub packets: Vec<Packet>,
}

/// Gathers answers and their packets, then writes them.
pub struct ProofWriter<'a> {
    domain: &'a Domain,
    view: &'a View,
    claims: Vec<Claim>,
    packets: BTreeMap<Id, Verified>,
}

impl<'a> ProofWriter<'a> {
    /// `view` is one of the domain's.
    pub fn new(domain: &'a Domain, view: &'a View) -> ProofWriter<'a> {
        ProofWriter { domain, view, claims: vec![], packets: BTreeMap::new() }
    }

    /// Adds public answers to questions that read the same mailboxes at the same time; `packets` is
    /// everything that lies in these.
    ///
    /// # Errors
    /// [`ProofError::TooMany`].
    pub fn add<'b>(
        &mut self,
        answered: impl IntoIterator<Item = (Asked, &'b Answer)>,
        packets: &[Verified],
    ) -> Result<(), ProofError> {
        let mut lineage: HashMap<u64, Id> = HashMap::new();
        for (asked, answer) in answered {
            let root = || lineage_root(live(packets, asked.ask_ms).iter().map(|live| live.id));
            let lineage = *lineage.entry(asked.ask_ms).or_insert_with(root);
            let answer = fields(&self.domain.schema, answer);
            self.claims.push(Claim { asked, lineage, answer });
        }
        self.packets.extend(newest(packets));
        let bounded = |what, count, max| match count > max {
            true => Err(ProofError::TooMany { what, count, max }),
            false => Ok(()),
        };
        bounded("answers", self.claims.len(), PROOF_ANSWERS_MAX)?;
        bounded("packets", self.packets.len(), PROOF_PACKETS_MAX)
    }

    /// Writes the file, whole or not at all. Gives the numbers of answers, packets and bytes.
    ///
    /// # Errors
    /// I/O; more bytes than a header holds.
    pub fn finish(self, path: &Path) -> Result<(usize, usize, usize), ProofError> {
        let (answers, packets) = (self.claims.len(), self.packets.len());
        let bytes = self.bytes()?;
        replace(path, &bytes).map_err(|source| ProofError::Io { path: path.into(), source })?;
        Ok((answers, packets, bytes.len()))
    }

    /// The file.
    ///
    /// # Errors
    /// More bytes than a header holds.
    pub fn bytes(mut self) -> Result<Vec<u8>, ProofError> {
        self.claims.sort_by_key(|claim| claim.asked.row);
        let header = Header {
            format: FORMAT.into(),
            finish: self.view.finish,
            schema: hex(&self.domain.schema.id()),
            view: hex(&self.view.id()),
            view_name: self.view.name.clone(),
            packets: self.packets.len() as u64,
            domain: self.domain.text.clone(),
            answers: self.claims.into_iter().map(Line::of).collect(),
        };
        let mut bytes = serde_json::to_vec(&header).map_err(|e| ProofError::Header(e.to_string()))?;
        if bytes.len() >= PROOF_HEADER_BYTES_MAX {
            let (count, max) = (bytes.len(), PROOF_HEADER_BYTES_MAX);
            return Err(ProofError::TooMany { what: "bytes of domain and answers", count, max });
        }
        bytes.push(b'\n');
        self.packets.values().for_each(|packet| bytes.extend_from_slice(packet.as_bytes()));
        bytes.extend(blake3::derive_key("qis 1 proof", &bytes));
        Ok(bytes)
    }
}

/// Of everything observed the newest version, and every retraction, by id: [`live`] over these is
/// [`live`] over all. A newest version that is dead stays, so that no older one comes to life where
/// proofs are put together with other packets.
fn newest(packets: &[Verified]) -> Vec<(Id, Verified)> {
    let mut newest: HashMap<(Id, Id), (u32, Id, Verified)> = HashMap::new();
    let mut kept = vec![];
    for packet in packets {
        let id = packet.id();
        match packet.kind() {
            Kind::Synthesis => {}
            Kind::Retraction => kept.push((id, *packet)),
            Kind::Observed => {
                let version = (packet.sequence(), id, *packet);
                let of = newest.entry((*packet.author(), *packet.reference())).or_insert(version);
                if (of.0, of.1) < (version.0, version.1) {
                    *of = version;
                }
            }
        }
    }
    kept.extend(newest.into_values().map(|(_, id, packet)| (id, packet)));
    kept
}

impl Line {
    fn of(claim: Claim) -> Line {
        Line {
            row: claim.asked.row,
            signal: hex(bytemuck::cast_slice(&claim.asked.signal)),
            scopes: claim.asked.scopes.iter().map(|scope| hex(scope)).collect(),
            ask_ms: claim.asked.ask_ms,
            lineage: hex(&claim.lineage),
            answer: claim.answer,
        }
    }

    fn read(self, index: usize) -> Result<Claim, ProofError> {
        let field = |name: &str| format!("answer {}, {name}", index + 1);
        let bad = |name: &str, problem: String| ProofError::Field { field: field(name), problem };
        let signal: [u8; SLOTS] = unhex(&self.signal)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| bad("signal", format!("is not {} hexadecimal digits", 2 * SLOTS)))?;
        let signal: [i8; SLOTS] = bytemuck::cast(signal);
        if signal.contains(&i8::MIN) {
            return Err(bad("signal", "a slot is -128; slots are in [-127, 127]".into()));
        }
        if !(1..=SCOPES_PER_QUESTION_MAX).contains(&self.scopes.len()) {
            let problem = format!("{} scopes; 1 to {SCOPES_PER_QUESTION_MAX} are known", self.scopes.len());
            return Err(bad("scopes", problem));
        }
        let scopes: Result<Vec<Id>, ProofError> =
            self.scopes.iter().map(|scope| id(scope, field("scopes"))).collect();
        let asked = Asked { row: self.row, signal, scopes: scopes?, ask_ms: self.ask_ms };
        Ok(Claim { asked, lineage: id(&self.lineage, field("lineage"))?, answer: self.answer })
    }
}

fn id(text: &str, field: String) -> Result<Id, ProofError> {
    let id = unhex(text).and_then(|bytes| Id::try_from(bytes).ok());
    id.ok_or_else(|| ProofError::Field { field, problem: "is not 64 hexadecimal digits".into() })
}

impl Proof {
    /// Reads a proof file.
    ///
    /// # Errors
    /// I/O; whatever [`Proof::parse`] refuses.
    pub fn open(path: &Path) -> Result<Proof, ProofError> {
        let io = |source| ProofError::Io { path: path.into(), source };
        let bytes_max = (PROOF_HEADER_BYTES_MAX + PROOF_PACKETS_MAX * PACKET_BYTES + DIGEST_BYTES) as u64;
        let file = std::fs::File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(io(io::ErrorKind::IsADirectory.into()));
        }
        let mut bytes = vec![];
        file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > bytes_max {
            return Err(ProofError::TooLarge { bytes: metadata.len(), bytes_max });
        }
        Proof::parse(&bytes)
    }

    /// Reads the bytes of a proof; no byte can be other than it was written without being noticed.
    ///
    /// # Errors
    /// What is wrong, and where: damage, a field of the header, a packet that breaks a rule of the format.
    pub fn parse(bytes: &[u8]) -> Result<Proof, ProofError> {
        if !bytes.starts_with(BEGINNING) {
            return Err(ProofError::NotAProof);
        }
        let (content, digest) =
            bytes.split_at_checked(bytes.len() - DIGEST_BYTES.min(bytes.len())).unwrap_or((&[], bytes));
        if blake3::derive_key("qis 1 proof", content) != digest {
            return Err(ProofError::Damaged);
        }
        let end = content.iter().take(PROOF_HEADER_BYTES_MAX).position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| ProofError::Header("has no end".into()))?;
        let (header, body) = (&content[..end], &content[end + 1..]);
        let header: Header =
            serde_json::from_slice(header).map_err(|error| ProofError::Header(error.to_string()))?;
        if header.format != FORMAT {
            return Err(ProofError::NotAProof);
        }
        if !(1..=FINISH_VERSION).contains(&header.finish) {
            return Err(ProofError::Finish { found: header.finish, known: FINISH_VERSION });
        }
        if header.answers.len() > PROOF_ANSWERS_MAX {
            let (count, max) = (header.answers.len(), PROOF_ANSWERS_MAX);
            return Err(ProofError::TooMany { what: "answers", count, max });
        }
        let announced = header.packets;
        if announced.checked_mul(PACKET_BYTES as u64) != Some(body.len() as u64) {
            return Err(ProofError::Length { announced, bytes: body.len() });
        }
        let packets: Result<Vec<Packet>, ProofError> = body
            .chunks_exact(PACKET_BYTES)
            .enumerate()
            .map(|(index, bytes)| Packet::parse(bytes).map_err(|source| ProofError::Packet { index, source }))
            .collect();
        let claims: Result<Vec<Claim>, ProofError> =
            header.answers.into_iter().enumerate().map(|(index, line)| line.read(index)).collect();
        Ok(Proof {
            schema: id(&header.schema, "schema".into())?,
            view: id(&header.view, "view".into())?,
            domain: header.domain,
            view_name: header.view_name,
            claims: claims?,
            packets: packets?,
        })
    }
}

/// Puts the bytes under the name at once: a killed program leaves nothing half-written there.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut builder = tempfile::Builder::new();
    // Temporary files are readable by their owner only; a proof is made to be given away.
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    #[cfg(unix)]
    builder.permissions(mode);
    let mut file = builder.suffix(".part").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
