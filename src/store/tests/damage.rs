//! A store damaged at random places: what is left is right, what is missing is seen, and a healthy
//! replica brings it back to full through the public trait alone.

use super::{many, observed, retraction, sign, synthesis};
use crate::address::Address;
use crate::packet::{Id, Kind, Verified};
use crate::store::{Deposited, Digest, DiskStore, MemoryStore, PacketStore, Range, StoreError};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Damages at a time: they wait for the disk, not for a core.
const THREADS: usize = 8;
/// How often a node would open a store again before it gives up.
const OPENINGS_MAX: usize = 4;

/// What every damage starts from: closed stores in different states, and a healthy replica.
struct World {
    /// With replica id and epoch.
    templates: Vec<(tempfile::TempDir, (Id, u64))>,
    healthy: MemoryStore,
    /// Everything that was ever deposited.
    deposited: Vec<(Address, Verified)>,
    /// What no replica takes back that holds what `healthy` holds: retracted packets, and older versions
    /// of packets that are there. (That a version is older than a retracted one, nobody knows who has
    /// not seen that one.)
    obsolete: Vec<(Address, Verified)>,
}

fn address(number: u8) -> Address {
    [number; 32]
}

/// Versions, retractions and a mailbox that is compared in parts.
fn deposits() -> Vec<(Address, Verified)> {
    let mut deposits: Vec<_> = many(400).into_iter().map(|packet| (address(0), packet)).collect();
    for author in 0..4 {
        for evidence in 0..12 {
            for sequence in 1..=3 {
                let packet = sign(author, &observed(author, evidence, sequence, ""));
                deposits.push((address(1 + evidence % 3), packet));
            }
        }
        let mut expiring = synthesis(90);
        expiring.expires_at = 1_000;
        deposits.push((address(1), sign(author, &expiring)));
        for evidence in [0, 4, 8] {
            let newest = sign(author, &observed(author, evidence, 3, ""));
            deposits.push((address(1 + evidence % 3), sign(author, &retraction(newest.id(), 99))));
        }
    }
    deposits
}

/// Writes all memtables to tables and value log files.
fn flush(folder: &Path) {
    let database = fjall::Database::builder(folder.join("data")).open().expect("the database");
    for name in database.list_keyspace_names() {
        let space = database.keyspace(&name, Default::default).expect("the table");
        space.rotate_memtable_and_wait().expect("flushed");
    }
}

impl World {
    fn new() -> World {
        let deposited = deposits();
        let healthy = MemoryStore::new([1; 32]);
        healthy.deposit(1, &deposited).expect("in memory");
        // All in a journal; tables and a journal; several tables; tables alone.
        let templates = [&[][..], &[4], &[2, 4, 6], &[3, 10]].map(|flushes| {
            let folder = tempfile::tempdir().expect("a folder");
            for (number, part) in deposited.chunks(deposited.len().div_ceil(10)).enumerate() {
                let (store, _) = DiskStore::open(folder.path()).expect("a store");
                for batch in part.chunks(16) {
                    store.deposit(1, batch).expect("a deposit");
                }
                drop(store);
                if flushes.contains(&(number + 1)) {
                    flush(folder.path());
                }
            }
            let start = DiskStore::open(folder.path()).expect("the template").0.start();
            (folder, (start.replica, start.epoch))
        });
        let live = pull_all(&healthy).expect("in memory");
        let mut obsolete = deposited.clone();
        obsolete.retain(|(address, packet)| {
            live[address].iter().any(|other| {
                let newer = other.author() == packet.author() && other.sequence() > packet.sequence();
                newer
                    && match other.kind() {
                        Kind::Observed => other.reference() == packet.reference(),
                        Kind::Synthesis => false,
                        Kind::Retraction => *other.reference() == packet.id(),
                    }
            })
        });
        assert_eq!(obsolete.len(), 4 * (9 * 2 + 3));
        World { templates: templates.into(), healthy, deposited, obsolete }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).expect("inside"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        fs::copy(&file, &target).expect("copied");
    }
}

fn below(random: &mut ChaCha20Rng, limit: u64) -> u64 {
    random.next_u64() % limit.max(1)
}

/// Damages one file and says how. Every kind of file comes up as often as every other.
fn damage(folder: &Path, random: &mut ChaCha20Rng) -> String {
    let mut kinds: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
    for path in files(folder) {
        let shown = path.strip_prefix(folder).expect("inside").to_str().expect("plain").to_owned();
        let kind = match shown.as_str() {
            "LOCK" | "data/lock" => continue,
            "FORMAT" => "format",
            "high-water" => "mark",
            name if name.ends_with(".jnl") => "journal",
            name if name.contains("/tables/") => "table",
            name if name.contains("/blobs/") => "value log",
            _ => "other",
        };
        if fs::metadata(&path).expect("a file").len() > 0 {
            kinds.entry(kind).or_default().push(path);
        }
    }
    let order = ["journal", "table", "value log", "journal", "table", "value log", "other", "mark", "format"];
    let possible: Vec<_> = order.iter().filter_map(|kind| kinds.get(kind)).collect();
    let of_kind = possible[below(random, possible.len() as u64) as usize];
    let path = &of_kind[below(random, of_kind.len() as u64) as usize];
    let bytes = fs::read(path).expect("the file");
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(1, |last| last as u64 + 1);
    let file = OpenOptions::new().write(true).open(path).expect("the file");
    let at = below(random, used);
    let how = match below(random, 5) {
        0 | 1 => {
            let bit = below(random, 8);
            file.write_all_at(&[bytes[at as usize] ^ 1 << bit], at).expect("written");
            format!("bit {bit} of byte {at} flipped")
        }
        2 => {
            for _ in 0..8 {
                let at = below(random, used);
                file.write_all_at(&[random.next_u64() as u8], at).expect("written");
            }
            "eight bytes overwritten".into()
        }
        3 => {
            let page = at / 4_096 * 4_096;
            let length = 4_096.min(bytes.len() as u64 - page);
            file.write_all_at(&vec![0; length as usize], page).expect("written");
            format!("page at {page} zeroed")
        }
        _ => {
            file.set_len(at).expect("cut");
            format!("cut to {at} bytes")
        }
    };
    format!("{} ({used} bytes used): {how}", path.strip_prefix(folder).expect("inside").display())
}

/// All packets of all mailboxes.
fn pull_all(store: &dyn PacketStore) -> Result<BTreeMap<Address, Vec<Verified>>, StoreError> {
    let mut all = BTreeMap::new();
    for (address, _) in store.addresses()? {
        let mut packets = Vec::new();
        let mut cursor = None;
        loop {
            let page = store.pull(&address, cursor, 100)?;
            packets.extend(page.packets);
            cursor = Some(page.cursor);
            if !page.more {
                break;
            }
        }
        if !packets.is_empty() {
            all.insert(address, packets);
        }
    }
    Ok(all)
}

/// Ids under a prefix that `healthy` has and `store` has not, found as a repair does.
fn missing(
    store: &dyn PacketStore,
    healthy: &dyn PacketStore,
    address: &Address,
    prefix: &[u8],
) -> Result<Vec<Id>, StoreError> {
    Ok(match (healthy.range(address, prefix)?, store.range(address, prefix)?) {
        (Range::Ids(there), Range::Ids(here)) => {
            there.into_iter().filter(|id| here.binary_search(id).is_err()).collect()
        }
        (Range::Ids(there), Range::Parts(_)) => there,
        (Range::Parts(there), here) => {
            let here = match here {
                Range::Parts(parts) => parts,
                Range::Ids(_) => Box::new([Digest::default(); 256]),
            };
            let mut ids = Vec::new();
            for (next, (there, here)) in (0..=255).zip(there.iter().zip(here.iter())) {
                if there != here {
                    ids.extend(missing(store, healthy, address, &[prefix, &[next]].concat())?);
                }
            }
            ids
        }
    })
}

/// Refills from the replica; returns the number of packets deposited.
fn refill(store: &dyn PacketStore, healthy: &dyn PacketStore) -> Result<usize, StoreError> {
    let mut deposited = 0;
    for (address, digest) in healthy.digests(None, usize::MAX)? {
        if store.digest(&address)? != digest {
            let ids = missing(store, healthy, &address, &[])?;
            let packets = healthy.fetch(&address, &ids)?;
            let batch: Vec<_> = packets.into_iter().map(|packet| (address, packet)).collect();
            deposited += batch.len();
            store.deposit(1, &batch)?;
        }
    }
    Ok(deposited)
}

fn scrub(store: &DiskStore) -> Result<u64, StoreError> {
    let mut damaged = 0;
    let mut from = None;
    loop {
        let slice = store.scrub(from, 50)?;
        damaged += slice.damaged;
        match slice.next {
            Some(next) => from = Some(next),
            None => return Ok(damaged),
        }
    }
}

/// What became of one damaged store.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    refused: bool,
    new_epoch: bool,
    damaged_records: bool,
    reopened: bool,
    refilled: bool,
}

/// Opens, checks, refills and checks again. `Err` is an error after which a node opens the store anew.
fn recover(world: &World, folder: &Path, before: (Id, u64), outcome: &mut Outcome) -> Result<(), StoreError> {
    let (store, report) = match DiskStore::open(folder) {
        Err(e @ (StoreError::Format { .. } | StoreError::Version { .. })) => {
            // What the error tells people to do.
            assert!(e.to_string().contains("move the folder away"), "{e}");
            outcome.refused = true;
            fs::remove_dir_all(folder).expect("moved away");
            DiskStore::open(folder).expect("a new store")
        }
        other => other?,
    };
    store.set_now(1);
    outcome.new_epoch |= (report.replica, report.epoch) != before;
    let damaged = scrub(&store)?;
    assert_eq!(damaged, store.health().damaged_records);
    outcome.damaged_records |= damaged > 0;

    let healthy = pull_all(&world.healthy)?;
    let left = pull_all(&store)?;
    let mut gaps = 0;
    for (address, packets) in &left {
        for packet in packets {
            assert!(world.deposited.contains(&(*address, *packet)), "a packet that nobody deposited");
        }
        let ids: Vec<Id> = packets.iter().map(|packet| packet.id()).collect();
        assert_eq!(store.digest(address)?, ids.iter().collect(), "the digest tells what is there");
    }
    for (address, packets) in &healthy {
        let here: BTreeSet<Id> = left.get(address).into_iter().flatten().map(|p| p.id()).collect();
        gaps += packets.iter().filter(|packet| !here.contains(&packet.id())).count() as u64;
    }
    if !outcome.new_epoch {
        assert!(gaps <= damaged, "{gaps} packets are gone, {damaged} records are known to be damaged");
    }

    outcome.refilled |= refill(&store, &world.healthy)? > 0;
    assert_eq!(store.digests(None, usize::MAX)?, world.healthy.digests(None, usize::MAX)?);
    let sorted = |mut all: BTreeMap<Address, Vec<Verified>>| {
        all.values_mut().for_each(|packets| packets.sort_by_key(|packet| packet.id()));
        all
    };
    assert_eq!(sorted(pull_all(&store)?), sorted(healthy), "back to full");
    assert_eq!((store.health().damaged_records, store.damaged_addresses()), (0, vec![]));
    let again = store.deposit(1, &world.obsolete)?;
    assert_eq!(again, vec![Deposited::Obsolete; again.len()], "what was superseded or retracted stays away");

    let epoch = store.start().epoch;
    drop(store);
    let (store, report) = DiskStore::open(folder)?;
    assert!(report.loss.is_none() && report.epoch == epoch, "{report}");
    assert_eq!(scrub(&store)?, 0);
    Ok(())
}

/// One damage from beginning to end. Panics say what was wrong.
fn run(world: &World, number: u64) -> Outcome {
    let mut random = ChaCha20Rng::seed_from_u64(number);
    let (template, before) = &world.templates[below(&mut random, world.templates.len() as u64) as usize];
    let folder = tempfile::tempdir().expect("a folder");
    copy(template.path(), folder.path());
    let how = damage(folder.path(), &mut random);
    let mut outcome = Outcome::default();
    let result = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..OPENINGS_MAX {
            match recover(world, folder.path(), *before, &mut outcome) {
                Ok(()) => return,
                // Both say: open the store again.
                Err(StoreError::Damaged { .. } | StoreError::Halted { .. }) => outcome.reopened = true,
                Err(e) => panic!("{e}"),
            }
        }
        panic!("still damaged after {OPENINGS_MAX} openings");
    }));
    if let Err(panic) = result {
        writeln!(std::io::stderr(), "damage {number}: {how} (QIS_DAMAGE={number} runs it alone)")
            .expect("a reader");
        std::panic::resume_unwind(panic);
    }
    outcome
}

/// 100 damages; `QIS_DAMAGES=1000` for more, `QIS_DAMAGE=17` for one alone. Syncs take most of the
/// time: with `TMPDIR` in memory 1,000 take a minute.
#[test]
fn a_store_damaged_at_random_places_never_lies_and_comes_back() {
    let number = |name| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    let numbers = match (number("QIS_DAMAGE"), number("QIS_DAMAGES")) {
        (Some(one), _) => one..one + 1,
        (None, count) => 0..count.unwrap_or(100),
    };
    let world = World::new();
    let outcomes = Mutex::new(BTreeMap::<Outcome, u64>::new());
    std::thread::scope(|scope| {
        for first in 0..THREADS {
            let (world, outcomes, numbers) = (&world, &outcomes, numbers.clone());
            scope.spawn(move || {
                for number in numbers.skip(first).step_by(THREADS) {
                    let outcome = run(world, number);
                    *outcomes.lock().expect("no panic yet").entry(outcome).or_default() += 1;
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("no panic");
    let count =
        |of: fn(&Outcome) -> bool| outcomes.iter().filter(|(o, _)| of(o)).map(|(_, n)| n).sum::<u64>();
    writeln!(
        std::io::stdout(),
        "{} damages: {} refused at opening, {} new epochs, {} with damaged records, {} opened again, \
         {} refilled; no wrong packet, no silent gap, all back to full",
        numbers.end - numbers.start,
        count(|o| o.refused),
        count(|o| o.new_epoch),
        count(|o| o.damaged_records),
        count(|o| o.reopened),
        count(|o| o.refilled),
    )
    .expect("a reader");
    if numbers.end - numbers.start >= 100 {
        assert!(count(|o| o.new_epoch) > 0 && count(|o| o.damaged_records) > 0, "{outcomes:?}");
    }
}

/// Memory for what these lengths announce is not to be had: without a look at them first, the process
/// would end.
#[test]
fn a_file_that_announces_more_than_it_holds_is_damage() {
    let packets = many(30);
    let batch: Vec<_> = packets.iter().map(|&packet| (address(0), packet)).collect();
    for table in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        DiskStore::open(folder.path()).expect("a store").0.deposit(1, &batch).expect("a deposit");
        let (path, at) = if table {
            flush(folder.path());
            let all = files(folder.path());
            let path = all.iter().find(|path| path.parent().is_some_and(|p| p.ends_with("tables")));
            let path = path.expect("a table");
            let bytes = fs::read(path).expect("the file");
            let contents = bytes[bytes.len() - 16..].first_chunk().map_or(0, |at| u64::from_le_bytes(*at));
            (path.clone(), contents + 4)
        } else {
            // The length of the first item's value, behind the start of its batch.
            (folder.path().join("data/0.jnl"), 13 + 13)
        };
        let file = OpenOptions::new().write(true).open(&path).expect("the file");
        file.write_all_at(&[0xFF; 4], at).expect("written");
        let (store, report) = DiskStore::open(folder.path()).expect("the store opens");
        let loss = report.loss.expect("a report of the loss");
        assert_eq!((loss.packets_marked, loss.packets_kept), (Some(30), 0), "{loss}");
        assert_eq!(store.deposit(1, &batch).expect("a deposit"), vec![Deposited::Stored; 30]);
    }
}

/// What a process leaves that is killed while it writes a table, a blob file or a version: a part of a
/// file that nothing refers to.
#[test]
fn half_written_files_that_nothing_refers_to_are_no_damage() {
    let packets = many(30);
    let batch: Vec<_> = packets.iter().map(|&packet| (address(0), packet)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    DiskStore::open(folder.path()).expect("a store").0.deposit(1, &batch).expect("a deposit");
    flush(folder.path());
    let mut left = Vec::new();
    for path in files(folder.path()) {
        let number = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let parent = path.parent().expect("a folder");
        let like = match number.strip_prefix('v') {
            Some(number) if number.parse::<u64>().is_ok() => path.with_file_name("v999"),
            _ if parent.ends_with("tables") || parent.ends_with("blobs") => path.with_file_name("999"),
            _ => continue,
        };
        // Half of a file, and one that is long enough to end in a trailer that means nothing.
        let mut bytes = fs::read(&path).expect("the file");
        bytes.truncate(bytes.len() / 2);
        bytes.resize(bytes.len().max(100), 0xFF);
        fs::write(&like, bytes).expect("written");
        left.push(like);
    }
    for kind in ["v999", "tables/999", "blobs/999"] {
        assert!(left.iter().any(|path| path.ends_with(kind)), "a {kind} among {left:?}");
    }
    let (store, report) = DiskStore::open(folder.path()).expect("the store opens");
    assert!(report.loss.is_none(), "{report}");
    assert_eq!(store.pull(&address(0), None, 100).expect("a page").packets.len(), 30);
    drop(store);
    let gone = |path: &PathBuf| {
        !path.exists() && !path.with_file_name(format!("._{}", path.file_name().unwrap().display())).exists()
    };
    assert!(left.iter().all(gone), "what nothing refers to is deleted");
}
