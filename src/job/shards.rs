//! Puts the results of shards together.

use super::JobError;
use super::output::{Pairs, Places, Written};
use crate::address::Address;
use crate::domain::{Schema, View};
use crate::packet::{Kind, Packet, PacketFile, PacketFileWriter, Verified, verify_batch};
use std::path::{Path, PathBuf};

/// Writes the syntheses of some results, which do not overlap, to one packet file in the order of a
/// whole job, and gives the digest that this job would have had. All of them are in memory at a time.
///
/// # Errors
/// I/O; a file of another schema or view, or with anything but good syntheses; two files that speak
/// of the same mailbox and action.
pub fn merge(files: &[PathBuf], schema: &Schema, view: &View, output: &Path) -> Result<Written, JobError> {
    let places = Places::new(view);
    let mut packets: Vec<(Address, Option<u16>, Verified, usize)> = Vec::new();
    for (number, path) in files.iter().enumerate() {
        let problem = |problem: String| JobError::Input { path: path.clone(), problem };
        let file = PacketFile::open(path)?;
        if file.schema != schema.id() || file.view != view.id() {
            let problem_text = "is not a result of this domain and view: name those that made it";
            return Err(problem(problem_text.into()));
        }
        let read: Vec<Packet> = file.collect::<Result<_, _>>()?;
        for (index, packet) in verify_batch(&read).into_iter().enumerate() {
            let packet = packet.map_err(|error| problem(format!("packet {index}: {error}")))?;
            if packet.kind() != Kind::Synthesis {
                return Err(problem(format!(
                    "packet {index} is not a synthesis: results of `resynth refresh` are merged"
                )));
            }
            let address = places.addresses(&packet).first().copied().unwrap_or_default();
            packets.push((address, packet.action(), packet, number));
        }
    }
    packets.sort_by_key(|(address, action, packet, _)| (*address, *action, packet.id()));
    // With one mailbox per scope an address and an action stand for one synthesis.
    let overlap = packets.windows(2).find(|pair| {
        let [a, b] = pair else { return false };
        !places.needs_fingerprints() && a.3 != b.3 && (a.0, a.1) == (b.0, b.1)
    });
    if let Some([a, b]) = overlap {
        let problem = format!(
            "speaks of the same mailbox and action as {}: are they shards of one job?",
            files[a.3].display()
        );
        return Err(JobError::Input { path: files[b.3].clone(), problem });
    }
    let mut writer = PacketFileWriter::create(output, schema.id(), view.id())?;
    let mut pairs = Pairs::new(&places);
    for (_, _, packet, _) in &packets {
        writer.write(packet)?;
        pairs.add(std::slice::from_ref(packet));
    }
    writer.finish()?;
    Ok(Written { packets: packets.len() as u64, digest: pairs.finish() })
}
