//! The packet that records a public answer.

use super::answer::Answer;
use crate::domain::{Schema, View};
use crate::limits::{OUTCOMES_MAX, SLOTS};
use crate::packet::{Draft, Id, Kind, SynthesisRecord};

/// A situation as packets carry it.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub signal: &'a [i8; SLOTS],
    pub scope: Id,
}

/// The draft of a synthesis for one action (or for cases without one): the public answer, no
/// evidence, and the lineage of everything that was read. `None` where the answer knows nothing of
/// that action. Estimates, half-widths and effective cases round half up and saturate.
///
/// The answer must have been asked at `observed_at`, so that whoever has the packets can verify it.
pub fn synthesis(
    schema: &Schema,
    view: &View,
    answer: &Answer,
    action: Option<u16>,
    situation: Situation,
    lineage: Id,
    observed_at: u64,
) -> Option<Draft> {
    let (_, estimates) = answer.actions.iter().find(|(of, _)| *of == action)?;
    let finished = || estimates.iter().flatten().map(|estimate| estimate.finished);
    let fraction = |x: f64| (x * 65_535.0 + 0.5).clamp(0.0, 65_535.0) as u16;
    let mut values = [None; OUTCOMES_MAX];
    for (value, estimate) in values.iter_mut().zip(estimates) {
        *value = estimate.map(|e| (fraction(e.finished.estimate), fraction(e.finished.half_width)));
    }
    let effective = finished().map(|f| f.effective_cases).reduce(f64::min)?;
    let most = |count: fn(&super::finish::Finished) -> u64| {
        u32::try_from(finished().map(|f| count(&f)).max().unwrap_or(0)).unwrap_or(u32::MAX)
    };
    Some(Draft {
        action,
        observed_at,
        reference: lineage,
        signal: *situation.signal,
        values,
        scope: situation.scope,
        synthesis: Some(SynthesisRecord {
            view: view.id(),
            evidence_packets: most(|f| f.packets),
            authors: most(|f| f.authors),
            effective_cases_256: (effective * 256.0 + 0.5).min(f64::from(u32::MAX)) as u32,
            verdict: answer.verdict,
            level: view.level,
        }),
        ..Draft::new(Kind::Synthesis, schema.id(), schema.outcomes.len())
    })
}
