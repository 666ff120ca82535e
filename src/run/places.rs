//! Where packets lie under the views of domain files, and which packets a replica admits there.

use crate::address::{Address, Addresser};
use crate::domain::{Domain, Metric};
use crate::embed::cpu::embed_one;
use crate::mailbox::Admission;
use crate::net::Admit;
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
}

/// What a replica that serves these domains admits: the rules of [`Admission`]. Without any domain it
/// carries packets of every schema wherever they were put.
pub fn admit<'a>(domains: impl IntoIterator<Item = &'a Domain>) -> Arc<Admit> {
    let pairs = domains
        .into_iter()
        .flat_map(|domain| domain.views.iter().map(|view| Arc::new((domain.schema.clone(), view.clone()))));
    let mut pairs = pairs.peekable();
    let open = pairs.peek().is_none();
    let admission = Admission::new(pairs);
    let admission = if open { admission.carry_any_schema() } else { admission };
    Arc::new(move |address: &Address, packet: &Verified, now_ms: u64| {
        admission.check(now_ms, address, packet).map_err(|refusal| refusal.to_string())
    })
}
