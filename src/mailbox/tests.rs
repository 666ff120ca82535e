use super::*;
use crate::address::Addresser;
use crate::domain::{Addressing, Direction, Metric, Outcome, OutcomeKind, Outside, Schema, View};
use crate::embed::cpu::embed_one;
use crate::limits::{CLOCK_SKEW_MS_MAX, FRAME_PACKETS_MAX, SLOTS};
use crate::packet::{AuthorKey, Draft, Kind, SynthesisRecord, Verdict};
use crate::store::{DiskStore, MemoryStore, PacketStore};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const DAY_MS: u64 = 86_400_000;
const NOW: u64 = 20_000 * DAY_MS + 5;

fn schema() -> Schema {
    let outcome = Outcome {
        name: "failed".into(),
        kind: OutcomeKind::Binary,
        unit: String::new(),
        low: 0.0,
        high: 1.0,
        direction: Direction::Lower,
        outside: Outside::Refuse,
    };
    Schema {
        name: "pumps".into(),
        features: vec![],
        exact: vec![],
        actions: vec!["wait".into(), "repair".into()],
        outcomes: vec![outcome],
        time_step_ms: DAY_MS,
        levels: 32,
        cases_min: 3,
        curator: [0; 32],
    }
}

/// One view with a single mailbox per scope, and one with four tables under another metric.
fn domains() -> [Arc<(Schema, View)>; 2] {
    let plain = View::plain("plain", &schema(), 100.0, 4.0);
    let mut split = View::plain("split", &schema(), 100.0, 4.0);
    split.metric = Metric::Diagonal { shift: 1, weights: (0..SLOTS).map(|i| i as i8).collect() };
    split.addressing = Addressing { tables: 4, bits: 8, probes: 1 };
    [plain, split].map(|view| Arc::new((schema(), view)))
}

fn key() -> AuthorKey {
    AuthorKey::from_seed([3; 32])
}

fn observed(record: &str) -> Draft {
    let mut draft = Draft::new(Kind::Observed, schema().id(), 1);
    draft.values[0] = Some((65_535, 0));
    draft.cases = 3;
    draft.action = Some(1);
    draft.observed_at = NOW - NOW % DAY_MS;
    draft.reference = key().evidence_id(&schema().id(), record);
    draft.signal = std::array::from_fn(|i| (i % 50) as i8 - 20);
    draft
}

fn synthesis(view: Id) -> Draft {
    let mut draft = Draft { kind: Kind::Synthesis, cases: 0, ..observed("") };
    draft.synthesis = Some(SynthesisRecord {
        view,
        evidence_packets: 1,
        authors: 1,
        effective_cases_256: 256,
        verdict: Verdict::Thin,
        level: 90,
    });
    draft
}

fn addresses(view: &View, draft: &Draft) -> Vec<Address> {
    Addresser::new(view).deposit(&draft.scope, &embed_one(&view.metric, &draft.signal))
}

fn mailbox(admission: Admission) -> LocalMailbox<MemoryStore> {
    LocalMailbox::new(Arc::new(MemoryStore::new([1; 32])), admission, || NOW)
}

fn deposit(mailbox: &LocalMailbox<MemoryStore>, address: Address, draft: &Draft) -> Receipt {
    let packet = key().sign(draft).expect("a sound draft");
    let mut receipts = mailbox.deposit_blocking(&[(address, packet)]).expect("a deposit");
    assert_eq!(receipts.len(), 1);
    receipts.remove(0)
}

#[test]
fn packets_are_taken_at_the_addresses_of_each_view_and_nowhere_else() {
    let domains = domains();
    let mailbox = mailbox(Admission::new(domains.clone()));
    let draft = observed("a");
    for domain in &domains {
        for address in addresses(&domain.1, &draft) {
            assert_eq!(deposit(&mailbox, address, &draft), Receipt::Stored);
            assert_eq!(deposit(&mailbox, address, &draft), Receipt::Duplicate);
        }
    }
    assert_eq!(mailbox.store().addresses().expect("addresses").len(), 5);
    let Receipt::Rejected(reason) = deposit(&mailbox, [9; 32], &draft) else { panic!("taken") };
    assert!(reason.contains("`signal`") && reason.contains("0909"), "{reason}");

    // A synthesis lies at the addresses of the view it names only.
    let synthesis = synthesis(domains[1].1.id());
    assert_eq!(deposit(&mailbox, addresses(&domains[1].1, &synthesis)[2], &synthesis), Receipt::Stored);
    let elsewhere = deposit(&mailbox, addresses(&domains[0].1, &synthesis)[0], &synthesis);
    assert!(matches!(elsewhere, Receipt::Rejected(_)));
}

#[test]
fn a_refusal_names_the_field() {
    let domains = domains();
    let mailbox = mailbox(Admission::new(domains.clone()));
    let refused = |field: &str, change: &dyn Fn(&mut Draft)| {
        let mut draft = observed("a");
        change(&mut draft);
        let receipt = deposit(&mailbox, addresses(&domains[0].1, &draft)[0], &draft);
        let Receipt::Rejected(reason) = receipt else { panic!("{field} was taken") };
        assert!(reason.contains(&format!("`{field}`")), "{reason}");
    };
    refused("schema", &|draft| draft.schema = [8; 32]);
    refused("outcomes", &|draft| draft.outcomes = 2);
    refused("action", &|draft| draft.action = Some(2));
    refused("cases", &|draft| draft.cases = 2);
    refused("observed at", &|draft| draft.observed_at += 1);
    refused("observed at", &|draft| draft.observed_at += 2 * DAY_MS);
    refused("note", &|draft| *draft = synthesis([1; 32]));
    let store = mailbox.store();
    assert!(store.addresses().expect("addresses").is_empty());

    // The borders are inside.
    let mut draft = observed("b");
    draft.action = None;
    draft.observed_at = (NOW + CLOCK_SKEW_MS_MAX) / DAY_MS * DAY_MS;
    assert_eq!(deposit(&mailbox, addresses(&domains[0].1, &draft)[0], &draft), Receipt::Stored);
}

#[test]
fn only_an_open_mailbox_carries_unknown_schemas_and_it_still_checks_known_ones() {
    let [plain, _] = domains();
    let open = mailbox(Admission::new([plain]).carry_any_schema());
    let mut draft = observed("a");
    assert!(matches!(deposit(&open, [9; 32], &draft), Receipt::Rejected(_)));
    draft.schema = [8; 32];
    assert_eq!(deposit(&open, [9; 32], &draft), Receipt::Stored);
    draft.observed_at = NOW + CLOCK_SKEW_MS_MAX + 1;
    assert!(matches!(deposit(&open, [9; 32], &draft), Receipt::Rejected(_)));
}

#[test]
fn receipts_keep_their_order_and_obsolete_packets_are_rejected() {
    let [plain, _] = domains();
    let mailbox = mailbox(Admission::new([plain.clone()]));
    let mut newer = observed("a");
    newer.sequence = 2;
    let mut expired = observed("b");
    expired.expires_at = NOW;
    let address = addresses(&plain.1, &newer)[0];
    let sign = |draft: &Draft| key().sign(draft).expect("a sound draft");
    let batch = [
        ([9; 32], sign(&newer)),
        (address, sign(&newer)),
        (address, sign(&observed("a"))),
        (address, sign(&newer)),
        (address, sign(&expired)),
    ];
    let receipts = mailbox.deposit_blocking(&batch).expect("a deposit");
    assert!(matches!(&receipts[0], Receipt::Rejected(reason) if reason.contains("address")));
    assert_eq!(receipts[1], Receipt::Stored);
    assert!(matches!(&receipts[2], Receipt::Rejected(reason) if reason.contains("obsolete")));
    assert_eq!(receipts[3], Receipt::Duplicate);
    assert!(matches!(&receipts[4], Receipt::Rejected(reason) if reason.contains("obsolete")));
}

#[test]
fn pulls_go_on_from_a_position_and_forget_what_expires_by_the_clock() {
    let [plain, _] = domains();
    let clock = Arc::new(AtomicU64::new(NOW));
    let told = clock.clone();
    let store = Arc::new(MemoryStore::new([1; 32]));
    let mailbox =
        LocalMailbox::new(store, Admission::new([plain.clone()]), move || told.load(Ordering::Relaxed));
    let count = FRAME_PACKETS_MAX + 5;
    let sign = |number: usize| {
        let mut draft = observed(&number.to_string());
        draft.expires_at = if number == 0 { NOW + 10 } else { 0 };
        key().sign(&draft).expect("a sound draft")
    };
    let address = addresses(&plain.1, &observed(""))[0];
    let batch: Vec<_> = (0..count).map(|number| (address, sign(number))).collect();
    mailbox.deposit_blocking(&batch).expect("a deposit");

    let foreign = Cursor { replica: [2; 32], epoch: 7, sequence: 70 };
    let all = mailbox.pull_blocking(&address, &Position(vec![foreign])).expect("packets");
    assert_eq!((all.packets.len(), all.bytes), (count, 0));
    assert!(all.position.0.contains(&foreign) && all.position.0.len() == 2);
    let none = mailbox.pull_blocking(&address, &all.position).expect("packets");
    assert!(none.packets.is_empty());
    assert_eq!(none.position, all.position);

    // A cursor of a lost epoch begins anew instead of skipping.
    let lost = Position(vec![Cursor { replica: [1; 32], epoch: 9, sequence: 1 }]);
    clock.store(NOW + 10, Ordering::Relaxed);
    let again = mailbox.pull_blocking(&address, &lost).expect("packets");
    assert_eq!(again.packets.len(), count - 1);
}

#[test]
fn the_trait_works_on_disk_inside_and_outside_a_runtime() {
    let [plain, _] = domains();
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = DiskStore::open(folder.path()).expect("a store");
    let mailbox = LocalMailbox::new(Arc::new(store), Admission::new([plain.clone()]), || NOW);
    let address = addresses(&plain.1, &observed(""))[0];
    let round = async |record: &str, expected: u64| {
        let packet = key().sign(&observed(record)).expect("a sound draft");
        let receipts = mailbox.deposit(&[(address, packet)]).await.expect("a deposit");
        assert_eq!(receipts, [Receipt::Stored]);
        assert_eq!(mailbox.stat(&address).await.expect("stat").observed, expected);
        let pulled = mailbox.pull(&address, &Position::default()).await.expect("packets");
        assert_eq!(pulled.packets.len() as u64, expected);
    };
    pollster::block_on(round("a", 1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(round("b", 2));
}
