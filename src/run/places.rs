//! Where packets lie under the views of domain files, and which packets a replica admits there.

use crate::address::{Address, Addresser};
use crate::domain::{Domain, Metric};
use crate::embed::cpu::embed_one;
use crate::limits::CLOCK_SKEW_MS_MAX;
use crate::net::Admission;
use crate::packet::{Id, Packet, Verified};
use std::sync::Arc;

/// The views of some domains, each as a way from a packet to its addresses.
#[derive(Clone, Debug, Default)]
pub struct Places(Vec<Place>);

#[derive(Clone, Debug)]
struct Place {
    schema: Id,
    index: Id,
    metric: Metric,
    addresser: Addresser,
    outcomes: usize,
    actions: usize,
}

impl Places {
    /// Views that share an index share their mailboxes, and count once.
    pub fn new<'a>(domains: impl IntoIterator<Item = &'a Domain>) -> Places {
        let mut places: Vec<Place> = Vec::new();
        for domain in domains {
            for view in &domain.views {
                let index = view.index_id();
                if !places.iter().any(|place| place.index == index) {
                    places.push(Place {
                        schema: domain.schema.id(),
                        index,
                        metric: view.metric.clone(),
                        addresser: Addresser::new(view),
                        outcomes: domain.schema.outcomes.len(),
                        actions: domain.schema.actions.len(),
                    });
                }
            }
        }
        Places(places)
    }

    /// The mailboxes of a packet under all views of its schema; none where no domain is its own.
    pub fn addresses(&self, packet: &Packet) -> Vec<Address> {
        let mut addresses = Vec::new();
        for place in self.0.iter().filter(|place| place.schema == *packet.schema()) {
            let embedding = embed_one(&place.metric, packet.signal());
            for address in place.addresser.deposit(packet.scope(), &embedding) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        addresses
    }

    /// Whether a packet fits its schema.
    ///
    /// # Errors
    /// A line that says what does not fit.
    pub fn fits(&self, packet: &Packet) -> Result<(), String> {
        let Some(place) = self.0.iter().find(|place| place.schema == *packet.schema()) else {
            return Err("its schema is of no domain of this node".into());
        };
        if packet.outcomes() != place.outcomes {
            return Err(format!("{} outcomes; the schema has {}", packet.outcomes(), place.outcomes));
        }
        match packet.action() {
            Some(action) if usize::from(action) >= place.actions => {
                Err(format!("action {action}; the schema has {}", place.actions))
            }
            _ => Ok(()),
        }
    }

    /// The rules of a replica: not from the future, of a known schema, at its own address. Without
    /// any domain a replica keeps packets of every schema wherever they were put.
    pub fn admission(self) -> Arc<Admission> {
        Arc::new(move |address: &Address, packet: &Verified, now_ms: u64| {
            if packet.observed_at() > now_ms.saturating_add(CLOCK_SKEW_MS_MAX) {
                return Err("observed more than 24 h in the future; are both clocks right?".into());
            }
            if self.0.is_empty() {
                return Ok(());
            }
            self.fits(packet)?;
            match self.addresses(packet).contains(address) {
                true => Ok(()),
                false => Err("it does not belong at this address under any view of its domain".into()),
            }
        })
    }
}
