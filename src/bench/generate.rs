//! A realistic set of signed packets of any size, to measure batch jobs with.
//!
//! Machines of many models in many regions (their pair is the scope) fail more often under load and
//! with age; one of three things is done about it. A few mailboxes are large and most are small
//! (Pareto, exponent 1.5, at most 64 times the mean), as are the shares of the authors.

use crate::domain::{Domain, Kernel, Value};
use crate::packet::{AuthorKey, Draft, FileError, Id, Kind, PacketError, PacketFileWriter, Verified};
use rand::distr::Distribution;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::weighted::WeightedAliasIndex;
use rayon::prelude::*;
use std::fmt::Write;
use std::path::Path;

/// Authors of a set.
pub const AUTHORS: usize = 1_000;
/// Mean packets of a mailbox.
pub const MAILBOX_PACKETS_MEAN: u64 = 100;
/// Levels of the two exact features.
const MODELS: u64 = 1_000;
const REGIONS: u64 = 1_000;
/// Numeric features.
const FEATURES: usize = 12;
const DAY_MS: u64 = 86_400_000;
/// 2026-01-01, Unix ms.
const BEGIN_MS: u64 = 1_767_225_600_000;
/// Packets that one thread makes at a time, all from one seed, and blocks made at a time.
const BLOCK: u64 = 1_024;
const BLOCKS_AT_ONCE: u64 = 64;

/// The text of the domain file of every set.
pub fn domain_text() -> String {
    let mut text = String::from(
        "format = 1\nname = \"machines\"\nabout = \"Generated: what was done about machines, and whether they failed\"\n\n\
         [schema]\ntime_step = \"1d\"\nlevels = 32\nexact = [\"model\", \"region\"]\nactions = [\"none\", \"service\", \"replace\"]\n",
    );
    for index in 0..FEATURES {
        let _ = write!(
            text,
            "\n[[feature]]\nname = \"sensor_{index}\"\nkind = \"numeric\"\ncentre = 0\nscale = 1\nmissing = \"slot\"\n"
        );
    }
    for (name, prefix, count) in [("model", "m", MODELS), ("region", "r", REGIONS)] {
        let levels: Vec<String> = (0..count).map(|level| format!("\"{prefix}{level}\"")).collect();
        let _ = write!(
            text,
            "\n[[feature]]\nname = \"{name}\"\nkind = \"categorical\"\nlevels = [{}]\n",
            levels.join(", ")
        );
    }
    text.push_str(
        "\n[[outcome]]\nname = \"failed\"\nkind = \"binary\"\nrange = [0, 1]\ndirection = \"lower\"\n\
         \n[[outcome]]\nname = \"cost\"\nkind = \"real\"\nunit = \"euro\"\nrange = [0, 10000]\ndirection = \"lower\"\n\
         \n[[view]]\nname = \"plain\"\nprior = { cases = 4 }\n",
    );
    text.push_str(&Kernel::gaussian(120.0).to_toml());
    text
}

/// Why a set could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("a generated packet breaks a rule of the format, which is a defect of this program: {0}")]
    Packet(#[from] PacketError),
}

/// Writes `packets` signed packets of `domain` (that of [`domain_text`]) to a packet file, on all
/// threads of the current pool. The same seed gives the same bytes.
///
/// # Errors
/// I/O.
pub fn generate(
    domain: &Domain,
    packets: u64,
    seed: u64,
    path: &Path,
    progress: impl Fn(u64),
) -> Result<(), GenerateError> {
    let set = Set::new(domain, packets, seed);
    let mut writer = PacketFileWriter::create(path, domain.schema.id(), [0; 32])?;
    let blocks = packets.div_ceil(BLOCK);
    for first in (0..blocks).step_by(BLOCKS_AT_ONCE as usize) {
        let last = (first + BLOCKS_AT_ONCE).min(blocks);
        let made: Result<Vec<Vec<Verified>>, PacketError> = (first..last)
            .into_par_iter()
            .map(|block| set.block(block, (packets - block * BLOCK).min(BLOCK)))
            .collect();
        for packet in made?.iter().flatten() {
            writer.write(packet)?;
        }
        progress((last * BLOCK).min(packets));
    }
    writer.finish()?;
    Ok(())
}

/// What all blocks share.
struct Set<'a> {
    domain: &'a Domain,
    schema: Id,
    seed: u64,
    authors: Vec<AuthorKey>,
    author_shares: WeightedAliasIndex<f64>,
    mailbox_shares: WeightedAliasIndex<f64>,
}

impl Set<'_> {
    fn new(domain: &Domain, packets: u64, seed: u64) -> Set<'_> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let authors = (0..AUTHORS).map(|_| AuthorKey::from_seed(random.random())).collect();
        let mailboxes = packets.div_ceil(MAILBOX_PACKETS_MEAN).clamp(1, MODELS * REGIONS);
        let mut shares = |count: usize| {
            let share = |_| (1.0 - random.random::<f64>()).powf(-1.0 / 1.5).min(64.0);
            WeightedAliasIndex::new((0..count).map(share).collect()).expect("positive shares")
        };
        Set {
            domain,
            schema: domain.schema.id(),
            seed,
            authors,
            author_shares: shares(AUTHORS),
            mailbox_shares: shares(mailboxes as usize),
        }
    }

    fn block(&self, block: u64, packets: u64) -> Result<Vec<Verified>, PacketError> {
        let mut random =
            ChaCha8Rng::seed_from_u64(self.seed ^ (block + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        (0..packets).map(|index| self.packet(block * BLOCK + index, &mut random)).collect()
    }

    fn packet(&self, number: u64, random: &mut ChaCha8Rng) -> Result<Verified, PacketError> {
        let schema = &self.domain.schema;
        let mailbox = self.mailbox_shares.sample(random) as u64;
        // Spread over both features, so that neighbours have neither in common.
        let spread = mailbox.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (MODELS * REGIONS);
        let mut row: Vec<Value> = (0..FEATURES)
            .map(|_| Value::Number((0..4).map(|_| random.random_range(-1.0..1.0)).sum::<f64>() / 1.2))
            .collect();
        let load = match row[0] {
            Value::Number(load) => load,
            _ => 0.0,
        };
        row.push(Value::Level((spread / REGIONS) as usize));
        row.push(Value::Level((spread % REGIONS) as usize));
        let action: u16 = random.random_range(0..3);
        let cases = random.random_range(1..=6);
        let risk = (0.3 + 0.2 * load - 0.1 * f64::from(action)).clamp(0.02, 0.98);
        let failed = (0..cases).filter(|_| random.random_bool(risk)).count() as f64 / f64::from(cases);
        let mean = (65_535.0 * failed).round() as u16;
        let deviation = (65_535.0 * (failed * (1.0 - failed)).sqrt()).floor() as u16;
        let author = &self.authors[self.author_shares.sample(random)];
        let mut draft = Draft::new(Kind::Observed, self.schema, schema.outcomes.len());
        draft.action = Some(action);
        draft.observed_at = BEGIN_MS + random.random_range(0..300) * DAY_MS;
        draft.cases = cases;
        draft.sequence = number as u32;
        draft.reference = author.evidence_id(&self.schema, &number.to_string());
        draft.signal = schema.signal(&row);
        draft.scope = schema.scope(&row);
        draft.values[0] = Some((mean, if cases == 1 { 0 } else { deviation }));
        draft.values[1] = Some((random.random_range(0..30_000) + mean / 2, 0));
        author.sign(&draft)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Packet, PacketFile, verify_batch};

    #[test]
    fn a_set_is_signed_and_the_same_for_a_seed() {
        let domain = Domain::parse("machines.toml", &domain_text()).expect("a sound domain");
        let folder = tempfile::tempdir().expect("a folder");
        let [first, second] = ["a.qpk", "b.qpk"].map(|name| folder.path().join(name));
        generate(&domain, 2_500, 7, &first, |_| ()).expect("a set");
        generate(&domain, 2_500, 7, &second, |_| ()).expect("a set");
        assert_eq!(std::fs::read(&first).expect("bytes"), std::fs::read(&second).expect("bytes"));
        let packets: Vec<Packet> =
            PacketFile::open(&first).expect("a file").collect::<Result<_, _>>().expect("packets");
        assert!(verify_batch(&packets).iter().all(Result::is_ok));
        let scopes: std::collections::HashSet<Id> = packets.iter().map(|packet| *packet.scope()).collect();
        assert!((15..=25).contains(&scopes.len()), "{} mailboxes", scopes.len());
    }
}
