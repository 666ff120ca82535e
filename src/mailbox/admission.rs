//! Which packets a mailbox takes: the rules that need a schema, a view or a clock.
//!
//! Every refusal names the packet's field. A verified packet has obeyed the format's own rules
//! before; expired and superseded ones are the store's affair.

use crate::address::{Address, Addresser};
use crate::domain::{Schema, View};
use crate::embed::cpu::embed_one;
use crate::limits::CLOCK_SKEW_MS_MAX;
use crate::packet::{Field, Id, Kind, PacketError, Verified, hex};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The domains that a mailbox serves.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// By schema id.
    served: BTreeMap<Id, Vec<Served>>,
    open: bool,
}

#[derive(Clone, Debug)]
struct Served {
    domain: Arc<(Schema, View)>,
    view: Id,
    addresser: Addresser,
}

impl Admission {
    /// Serves these pairs of a schema and one of its views; a schema with several views comes several
    /// times.
    pub fn new(domains: impl IntoIterator<Item = Arc<(Schema, View)>>) -> Admission {
        let mut admission = Admission::default();
        domains.into_iter().for_each(|domain| admission.serve(domain));
        admission
    }

    /// Serves one more view.
    pub fn serve(&mut self, domain: Arc<(Schema, View)>) {
        let (view, addresser) = (domain.1.id(), Addresser::new(&domain.1));
        let views = self.served.entry(domain.0.id()).or_default();
        if views.iter().all(|served| served.view != view) {
            views.push(Served { domain, view, addresser });
        }
    }

    /// Also carries packets of schemas that it does not know, for nodes that only store. Their
    /// addresses cannot be recomputed then, so a depositor can put such packets into any mailbox and
    /// readers have to check; known schemas are checked as ever. The default refuses.
    pub fn carry_any_schema(mut self) -> Admission {
        self.open = true;
        self
    }

    /// Whether a packet may lie at an address.
    ///
    /// # Errors
    /// The field that stands against it, and why.
    pub fn check(&self, now_ms: u64, address: &Address, packet: &Verified) -> Result<(), PacketError> {
        let refuse = |field, problem: String| Err(PacketError::new(field, problem));
        if packet.observed_at() > now_ms.saturating_add(CLOCK_SKEW_MS_MAX) {
            let ahead = packet.observed_at() - now_ms;
            return refuse(
                Field::ObservedAt,
                format!(
                    "lies {ahead} ms in the future, at most {CLOCK_SKEW_MS_MAX} ms are taken: check the clocks"
                ),
            );
        }
        let Some(views) = self.served.get(packet.schema()) else {
            if self.open {
                return Ok(());
            }
            let schema = hex(&packet.schema()[..8]);
            return refuse(
                Field::Schema,
                format!(
                    "{schema} is not served here: add its domain file to this node, or deposit elsewhere"
                ),
            );
        };
        let schema = &views[0].domain.0;
        check_schema(schema, packet)?;
        let record = packet.synthesis();
        let named = |served: &&Served| record.is_none_or(|record| record.view == served.view);
        let mut views = views.iter().filter(named).peekable();
        if views.peek().is_none() {
            let view = record.map(|record| hex(&record.view[..8])).unwrap_or_default();
            // The view stands in the synthesis record, at the note's place.
            return refuse(Field::Note, format!("names view {view}, which is not served here"));
        }
        let lies = |served: &Served| {
            let embedding = embed_one(&served.domain.1.metric, packet.signal());
            served.addresser.deposit(packet.scope(), &embedding).contains(address)
        };
        if !views.any(lies) {
            let address = hex(&address[..8]);
            return refuse(
                Field::Signal,
                format!("with its scope it does not lie at address {address} under any view served here"),
            );
        }
        Ok(())
    }
}

/// The rules of the schema.
fn check_schema(schema: &Schema, packet: &Verified) -> Result<(), PacketError> {
    let refuse = |field, problem: String| Err(PacketError::new(field, problem));
    if packet.outcomes() != schema.outcomes.len() {
        let (given, expected) = (packet.outcomes(), schema.outcomes.len());
        return refuse(Field::Outcomes, format!("{given}, the schema `{}` has {expected}", schema.name));
    }
    if let Some(action) = packet.action()
        && usize::from(action) >= schema.actions.len()
    {
        let actions = schema.actions.len();
        return refuse(Field::Action, format!("index {action}, the schema has {actions} actions"));
    }
    if schema.floor_time(packet.observed_at()) != packet.observed_at() {
        let (time, step) = (packet.observed_at(), schema.time_step_ms);
        return refuse(
            Field::ObservedAt,
            format!("{time} is not floored to the schema's time step of {step} ms"),
        );
    }
    if packet.kind() == Kind::Observed && packet.cases() < schema.cases_min {
        let (cases, least) = (packet.cases(), schema.cases_min);
        return refuse(Field::Cases, format!("{cases}, the schema asks for at least {least}"));
    }
    Ok(())
}
