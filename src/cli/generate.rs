//! `qis bench generate`.

use super::{Compute, Failure, data, output};
use crate::bench::generate::{domain_text, generate};
use crate::domain::Domain;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// Packets where nobody names a number.
const PACKETS: u32 = 100_000;
/// The seed of generated sets.
const SEED: u64 = 1;

/// Writes packets to `out` and their domain file beside it.
///
/// # Errors
/// I/O.
pub fn run(out: &Path, packets: Option<u32>, compute: &Compute, as_json: bool) -> Result<(), Failure> {
    let text = domain_text();
    let domain = Domain::parse("machines.toml", &text)?;
    let packets = u64::from(packets.unwrap_or(PACKETS));
    let engine = compute.engine()?;
    let bar = output::progress(packets, "packets");
    let began = Instant::now();
    let made = engine.install(|| generate(&domain, packets, SEED, out, |done| bar.set_position(done)));
    bar.finish_and_clear();
    made.map_err(Failure::failed)?;
    let beside = out.with_extension("toml");
    std::fs::write(&beside, text).map_err(|source| data::io(&beside, source))?;
    let seconds = began.elapsed().as_secs_f64();
    if as_json {
        output::json(&json!({ "packets": packets, "seconds": seconds }));
        return Ok(());
    }
    output::line(&format!(
        "{packets} signed packets in {seconds:.1} s, {:.0} packets/s",
        packets as f64 / seconds
    ));
    output::line(&format!("packets  {}", out.display()));
    output::line(&format!("domain   {}", beside.display()));
    Ok(())
}
