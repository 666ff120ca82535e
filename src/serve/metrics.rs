//! A [`Status`] as OpenMetrics text.
//!
//! Names begin with `qis_` and end with their unit; what only rises is a counter, `_total`. Peers and
//! participants are counted here and named in `/status` alone: a label for each of them would grow
//! without bound in whoever collects.

use super::status::Status;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of one moment.
pub fn text(status: Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("qis");
    registry.register_collector(Box::new(Snapshot(Arc::new(status))));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Snapshot(Arc<Status>);

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut to = Encoder(encoder);
        node(&mut to, &self.0)?;
        disk(&mut to, &self.0)?;
        replicas(&mut to, &self.0)?;
        limits(&mut to, &self.0)?;
        for (name, count) in &self.0.traffic {
            to.counter(&format!("net_{name}"), &format!("Network: {}", name.replace('_', " ")), *count)?;
        }
        Ok(())
    }
}

fn node(to: &mut Encoder, status: &Status) -> fmt::Result {
    let identity = &status.identity;
    let labels = vec![
        ("peer", identity.peer.clone()),
        ("version", identity.version.clone()),
        ("mode", identity.mode.name().to_string()),
        ("swarm", identity.swarm.clone().unwrap_or_else(|| "open".into())),
    ];
    to.metric("node", "Who the node is", &Info::new(labels))?;
    to.gauge("healthy", "1 while /healthz answers 200", u64::from(status.health().is_ok()))?;
    to.gauge("uptime_seconds", "Time since the process started", identity.uptime_s)?;
    let silent = status.peers.iter().filter(|peer| peer.silent).count() as u64;
    let answering = status.peers.len() as u64 - silent;
    let states = [("answering", answering), ("silent", silent)];
    to.gauges("peers", "Storage nodes known, but this one", "state", states)
}

fn disk(to: &mut Encoder, status: &Status) -> fmt::Result {
    let Some(store) = &status.store else { return Ok(()) };
    to.gauge("store_packets", "Packets in all mailboxes", store.packets)?;
    to.gauge("store_mailboxes", "Mailboxes that somebody has deposited to", store.mailboxes)?;
    to.gauge("store_disk_bytes", "Bytes of the database's files", store.disk_bytes)?;
    to.gauge("store_disk_free_bytes", "Bytes that the file system still gives", store.disk_free_bytes)?;
    to.gauge("store_damaged_records", "Damaged records met and not replaced", store.damaged_records)?;
    to.gauge("store_epoch", "Rises when the store has lost packets", store.epoch)?;
    to.gauge("store_halted", "1 while the store takes no packets", u64::from(store.halted.is_some()))
}

fn replicas(to: &mut Encoder, status: &Status) -> fmt::Result {
    let (ranges, replication, repair) = (&status.ranges, &status.replication, &status.repair);
    to.gauge("mailboxes_held", "Mailboxes on this node's disk", ranges.held)?;
    to.gauge("mailboxes_responsible", "Of these, the ones it is a replica of", ranges.responsible)?;
    let acknowledged = replication.deposits_acknowledged;
    to.counter("deposits_acknowledged_packets", "Packets that enough disks have synced", acknowledged)?;
    let waiting = replication.hand_off_packets;
    to.gauge("hand_off_packets", "Copies of packets that wait for a silent replica", waiting)?;
    let lag = seconds(replication.oldest_hand_off_ms.unwrap_or(0));
    to.gauge("replication_lag_seconds", "Age of the oldest copy that waits", lag)?;
    to.gauge("repair_queue_mailboxes", "Mailboxes that wait for packets", repair.queue_mailboxes)?;
    to.gauge("repair_peers_due", "Peers to compare mailboxes with", repair.peers_due)?;
    to.counter("repair_failures", "Comparisons and reconciliations that failed", repair.failures)?;
    let compared = repair.compared_mailboxes;
    to.counter("repair_compared_mailboxes", "Mailboxes compared with another replica", compared)?;
    let differing = repair.differing_mailboxes;
    to.counter("repair_differing_mailboxes", "Of these, the ones that differed", differing)?;
    to.counter(
        "repair_fetched_packets",
        "Packets fetched because they were missing",
        repair.fetched_packets,
    )?;
    to.counter("repair_fetched_bytes", "Bytes of packets fetched by repair", repair.fetched_bytes)?;
    // A round that never ended has no age: left out rather than given as zero.
    match repair.last_comparison_ms {
        Some(age) => to.gauge(
            "repair_last_comparison_age_seconds",
            "Time since a comparison with a peer was completed",
            seconds(age),
        ),
        None => Ok(()),
    }
}

fn limits(to: &mut Encoder, status: &Status) -> fmt::Result {
    let (admission, participation) = (&status.admission, &status.participation);
    let epochs = [("nodes", admission.nodes_epoch), ("authors", admission.authors_epoch)];
    let epochs = epochs.into_iter().filter_map(|(list, epoch)| Some((list, epoch?)));
    to.gauges("admission_list_epoch", "Epoch of a signed list of the swarm", "list", epochs)?;
    to.counters("admission_refused", "Packets and peers refused", "reason", &admission.refused)?;
    to.counters("quota_refused_requests", "Requests beyond a limit", "limit", &status.quotas.refused)?;
    to.counter("participation_deposits_packets", "Packets deposited here", participation.deposits)?;
    to.counter("participation_asks", "Reads of mailboxes begun here", participation.asks)
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1_000.0
}

struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn metric(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, &ConstCounter::new(value))
    }

    fn gauge<N>(&mut self, name: &str, help: &str, value: N) -> fmt::Result
    where
        ConstGauge<N>: EncodeMetric,
    {
        self.metric(name, help, &ConstGauge::new(value))
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let rows = values.into_iter().map(|(key, value)| (key, ConstGauge::new(value)));
        self.family(name, help, label, rows)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &BTreeMap<String, u64>,
    ) -> fmt::Result {
        let rows = values.iter().map(|(key, value)| (key.as_str(), ConstCounter::new(*value)));
        self.family(name, help, label, rows)
    }

    /// Nothing at all where there is no row: a descriptor without a value says nothing.
    fn family<'l, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        rows: impl Iterator<Item = (&'l str, M)>,
    ) -> fmt::Result {
        let mut rows = rows.peekable();
        let Some((_, first)) = rows.peek() else { return Ok(()) };
        let mut family = self.0.encode_descriptor(name, help, None, first.metric_type())?;
        for (key, metric) in rows {
            metric.encode(family.encode_family(&[(label, key)])?)?;
        }
        Ok(())
    }
}
