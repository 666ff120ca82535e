//! Whether a synthesis is what its evidence gives, bit for bit.

use super::recompute;
use crate::address::{Address, Addresser};
use crate::domain::{Schema, View};
use crate::embed::cpu::embed_one;
use crate::engine::Engine;
use crate::limits::{FINISH_VERSION, PACKET_SIGNED_BYTES};
use crate::merge::{Live, Situation, lineage_root, live, synthesis};
use crate::packet::{AuthorKey, Id, Kind, Packet, Verified};
use std::fmt;

/// What is known of one synthesis. The order is that of preference where one packet is judged at
/// several addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finding {
    /// Its evidence is there and gives the same bits.
    Equal,
    /// Its evidence is there and gives other bits.
    Forged,
    NotVerifiable(Why),
}

/// Why nothing can be said of a synthesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// The packets that are there are not those of its lineage.
    Lineage,
    /// It was made under another view than the one at hand.
    View,
    /// Its view is finished by formulas that this program does not know.
    Finish,
    /// The packet is no synthesis.
    Kind,
}

impl Finding {
    /// `equal`, `forged` or `not verifiable`.
    pub fn name(self) -> &'static str {
        match self {
            Finding::Equal => "equal",
            Finding::Forged => "forged",
            Finding::NotVerifiable(_) => "not verifiable",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let Finding::NotVerifiable(why) = self else { return Ok(()) };
        f.write_str(match why {
            Why::Lineage => ": some of its evidence is missing here, or was retracted or has expired",
            Why::View => ": it was made under another view",
            Why::Finish => ": its view asks for formulas that this program does not know",
            Why::Kind => ": it is no synthesis",
        })
    }
}

/// Bytes of a packet that say what was concluded, without who says it and under which number:
/// 0..448 with sequence and author zeroed.
pub fn content(packet: &Packet) -> [u8; PACKET_SIGNED_BYTES] {
    let mut content = [0; PACKET_SIGNED_BYTES];
    content.copy_from_slice(&packet.as_bytes()[..PACKET_SIGNED_BYTES]);
    content[28..32].fill(0);
    content[64..96].fill(0);
    content
}

/// Judges one synthesis by evidence and retractions of the mailboxes that it was made from; packets
/// of other kinds among them do not matter.
pub fn judge(
    packet: &Packet,
    evidence: &[&Verified],
    schema: &Schema,
    view: &View,
    engine: &Engine,
) -> Finding {
    let Some(record) = packet.synthesis() else { return Finding::NotVerifiable(Why::Kind) };
    if record.view != view.id() {
        return Finding::NotVerifiable(Why::View);
    }
    if view.finish > FINISH_VERSION {
        return Finding::NotVerifiable(Why::Finish);
    }
    let asked_at = packet.observed_at();
    // Evidence that came after the synthesis was made is not in its lineage.
    let all = live(evidence.iter().copied(), asked_at);
    let earlier = || live(evidence.iter().copied().filter(|p| p.observed_at() <= asked_at), asked_at);
    let fits = |live: &Vec<Live>| lineage_root(live.iter().map(|live| live.id)) == *packet.reference();
    let Some(live) = Some(all).filter(fits).or_else(|| Some(earlier()).filter(fits)) else {
        return Finding::NotVerifiable(Why::Lineage);
    };
    let answers = recompute::answers(engine, schema, view, live, &[*packet.signal()], asked_at);
    let situation = Situation { signal: packet.signal(), scope: *packet.scope() };
    let draft = answers.first().and_then(|answer| {
        synthesis(schema, view, answer, packet.action(), situation, *packet.reference(), asked_at)
    });
    // What others may add: a note and an expiry. All else follows from the evidence.
    let key = AuthorKey::from_seed([0; 32]);
    let expected = draft.and_then(|mut draft| {
        draft.expires_at = packet.expires_at();
        draft.note = packet.note().to_owned();
        key.build(&draft).ok()
    });
    match expected {
        Some(expected) if content(&expected) == content(packet) => Finding::Equal,
        _ => Finding::Forged,
    }
}

/// Judges every synthesis among the packets of one mailbox by the others.
pub fn judge_mailbox(
    packets: &[Verified],
    schema: &Schema,
    view: &View,
    engine: &Engine,
) -> Vec<(Id, Finding)> {
    let (syntheses, evidence): (Vec<&Verified>, Vec<&Verified>) =
        packets.iter().partition(|packet| packet.kind() == Kind::Synthesis);
    let one = |packet: &Verified| (packet.id(), judge(packet, &evidence, schema, view, engine));
    syntheses.into_iter().map(one).collect()
}

/// The mailboxes that the question behind a synthesis read: several under a view with tables or
/// probes.
pub fn addresses_read(packet: &Packet, view: &View) -> Vec<Address> {
    let embedding = embed_one(&view.metric, packet.signal());
    Addresser::new(view).ask(packet.scope(), &embedding)
}
