//! What the disk, a crash or a stranger may do to the files.

use super::{many, observed, sign};
use crate::packet::{Id, Verified};
use crate::store::{Cursor, Deposited, DiskStore, Loss, PacketStore, Range, Scrubbed, StoreError};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const HERE: Id = [5; 32];
const FOLDER_VARIABLE: &str = "QIS_TEST_DEPOSIT_UNTIL_KILLED";

fn open(folder: &Path) -> (DiskStore, Option<Loss>) {
    let (store, report) = DiskStore::open(folder).expect("the store opens");
    assert_eq!(report.epoch, store.start().epoch);
    assert_eq!(report.packets, store.health().packets);
    (store, report.loss)
}

/// A closed store with `packets`, ten to a commit, and the cursor behind the last of them.
fn filled(folder: &Path, packets: &[Verified]) -> Cursor {
    let (store, loss) = open(folder);
    assert!(loss.is_none());
    for part in packets.chunks(10) {
        let batch: Vec<_> = part.iter().map(|&packet| (HERE, packet)).collect();
        assert_eq!(store.deposit(0, &batch).expect("a deposit"), vec![Deposited::Stored; part.len()]);
    }
    store.pull(&HERE, None, packets.len()).expect("a page").cursor
}

fn flip(path: &Path, offset: u64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).expect("the file");
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).expect("seek");
    file.read_exact(&mut byte).expect("a byte");
    file.seek(SeekFrom::Start(offset)).expect("seek");
    file.write_all(&[byte[0] ^ 0x55]).expect("a byte");
}

/// After a loss: the old cursor is refused, and the store takes, keeps and returns packets.
fn check_goes_on(folder: &Path, store: DiskStore, old: Cursor, packets: &[Verified]) {
    let error = store.pull(&HERE, Some(old), 1).expect_err("an old cursor");
    assert!(matches!(error, StoreError::CursorExpired { .. }), "{error}");
    let batch: Vec<_> = packets.iter().map(|&packet| (HERE, packet)).collect();
    let refilled = store.deposit(0, &batch).expect("a deposit");
    assert!(!refilled.contains(&Deposited::Obsolete));
    let epoch = store.start().epoch;
    drop(store);
    let (store, loss) = open(folder);
    assert!(loss.is_none(), "a loss is reported once");
    assert_eq!(store.start().epoch, epoch);
    let page = store.pull(&HERE, None, packets.len() + 1).expect("a page");
    let ids = |packets: &[Verified]| packets.iter().map(|p| p.id()).collect::<BTreeSet<_>>();
    assert_eq!((page.packets.len(), ids(&page.packets)), (packets.len(), ids(packets)));
}

#[test]
fn a_journal_damaged_in_the_middle_is_reported() {
    let packets = many(200);
    for twentieth in 1..20 {
        let folder = tempfile::tempdir().expect("a folder");
        let old = filled(folder.path(), &packets);
        let journal = folder.path().join("data/0.jnl");
        let bytes = fs::read(&journal).expect("a journal");
        let used = bytes.iter().rposition(|&byte| byte != 0).expect("a used journal") as u64;
        flip(&journal, used * twentieth / 20);

        let (store, loss) = open(folder.path());
        let loss = loss.expect("a report of the loss");
        assert_eq!((loss.epoch_before, loss.epoch, store.start().epoch), (1, 2, 2));
        assert_eq!(loss.packets_marked, Some(200));
        assert!(loss.packets_kept < 200, "{loss}");
        assert_eq!(store.start().replica, old.replica);
        let page = store.pull(&HERE, None, 1_000).expect("a page");
        assert_eq!(page.packets, packets[..loss.packets_kept as usize], "whole commits, from the first");
        check_goes_on(folder.path(), store, old, &packets);
    }
}

/// Takes an entry out of a table behind the store's back.
fn remove_first_entry(folder: &Path, table: &str) {
    let database = fjall::Database::builder(folder.join("data")).open().expect("the database");
    let space = database.keyspace(table, Default::default).expect("the table");
    let key = space.iter().next().expect("an entry").key().expect("a key");
    space.remove(key).expect("removed");
    database.persist(fjall::PersistMode::SyncAll).expect("synced");
}

#[test]
fn entries_missing_from_the_middle_lead_to_a_rebuild() {
    let packets = many(40);
    for (table, kept) in
        [("packets", 39), ("index", 40), ("latest", 40), ("mailboxes", 40), ("authors", 40), ("head", 40)]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let old = filled(folder.path(), &packets);
        remove_first_entry(folder.path(), table);
        let (store, loss) = open(folder.path());
        let loss = loss.expect("a report of the loss");
        assert_eq!((loss.packets_kept, loss.epoch), (kept, 2), "{table}: {loss}");
        assert!(folder.path().join("damaged-1").is_dir(), "{table}");
        assert!(!folder.path().join("rebuild").exists());
        check_goes_on(folder.path(), store, old, &packets);
    }
}

#[test]
fn a_rebuild_brings_no_superseded_or_retracted_packet_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two] = [1, 2].map(|sequence| sign(0, &observed(0, 0, sequence, "")));
    let other = sign(0, &observed(0, 1, 1, ""));
    let back = sign(0, &super::retraction(two.id(), 3));
    let away = sign(0, &super::retraction(other.id(), 4));
    {
        let (store, _) = open(folder.path());
        let batch = [one, two, back, away, sign(1, &observed(1, 0, 1, ""))].map(|packet| (HERE, packet));
        store.deposit(0, &batch).expect("a deposit");
    }
    remove_first_entry(folder.path(), "mailboxes");
    let (store, loss) = open(folder.path());
    assert!(loss.is_some());
    let again = [one, two, other].map(|packet| (HERE, packet));
    assert_eq!(store.deposit(0, &again).expect("a deposit"), [Deposited::Obsolete; 3]);
    assert_eq!(store.stat(&HERE).expect("stat").packets, 3);
}

#[test]
fn a_database_that_does_not_open_or_is_gone_is_set_aside() {
    let packets = many(20);
    for damage in ["marker", "gone"] {
        let folder = tempfile::tempdir().expect("a folder");
        let old = filled(folder.path(), &packets);
        let data = folder.path().join("data");
        match damage {
            "marker" => fs::write(data.join("version"), b"nonsense").expect("written"),
            _ => fs::remove_dir_all(&data).expect("removed"),
        }
        let (store, loss) = open(folder.path());
        let loss = loss.expect("a report of the loss");
        assert_eq!((loss.packets_marked, loss.packets_kept, loss.epoch), (Some(20), 0, 2), "{loss}");
        assert_eq!(loss.moved_to.is_some(), damage == "marker");
        check_goes_on(folder.path(), store, old, &packets);
    }
}

#[test]
fn one_torn_slot_of_the_high_water_file_is_survived_and_two_are_reported() {
    let packets = many(30);
    for slots in [&[0][..], &[4_096], &[0, 4_096]] {
        let folder = tempfile::tempdir().expect("a folder");
        let old = filled(folder.path(), &packets);
        for offset in slots {
            flip(&folder.path().join("high-water"), offset + 30);
        }
        let (store, loss) = open(folder.path());
        assert_eq!(store.health().packets, 30);
        if slots.len() == 1 {
            assert!(loss.is_none());
            assert!(store.pull(&HERE, Some(old), 1).is_ok());
        } else {
            assert!(loss.is_some());
            assert_ne!(store.start().replica, old.replica, "its epochs are not known");
            check_goes_on(folder.path(), store, old, &packets);
        }
    }
}

#[test]
fn an_older_copy_of_the_database_is_noticed() {
    let packets = many(30);
    let folder = tempfile::tempdir().expect("a folder");
    let old = filled(folder.path(), &packets);
    {
        let (store, _) = open(folder.path());
        store.deposit(0, &[(HERE, sign(1, &observed(1, 0, 1, "")))]).expect("a deposit");
    }
    let other = tempfile::tempdir().expect("a folder");
    filled(other.path(), &packets);
    fs::remove_dir_all(folder.path().join("data")).expect("removed");
    fs::rename(other.path().join("data"), folder.path().join("data")).expect("moved");
    let (store, loss) = open(folder.path());
    let loss = loss.expect("a report of the loss");
    assert_eq!((loss.packets_marked, loss.packets_kept), (Some(31), 30), "{loss}");
    check_goes_on(folder.path(), store, old, &packets);
}

#[test]
fn a_damaged_record_is_counted_passed_over_and_replaced_by_a_deposit() {
    let packets = many(3);
    let folder = tempfile::tempdir().expect("a folder");
    filled(folder.path(), &packets);
    {
        let database = fjall::Database::builder(folder.path().join("data")).open().expect("opens");
        let space = database.keyspace("packets", Default::default).expect("the table");
        let (key, value) = space.iter().nth(1).expect("a record").into_inner().expect("a record");
        let mut value = value.to_vec();
        value[100] ^= 1;
        space.insert(key, value).expect("written");
        database.persist(fjall::PersistMode::SyncAll).expect("synced");
    }
    let (store, loss) = open(folder.path());
    assert!(loss.is_none(), "records are checked on read");
    let page = store.pull(&HERE, None, 10).expect("a page");
    assert_eq!(page.packets, [packets[0], packets[2]]);
    let mut left = [packets[0].id(), packets[2].id()];
    left.sort_unstable();
    let digest = store.digest(&HERE).expect("a digest");
    assert_eq!(digest, left.iter().collect(), "no replica refills what the digest claims");
    assert_eq!(store.digests(None, 9).expect("digests"), [(HERE, digest)]);
    assert_eq!(store.ids(&HERE, None, 9).expect("ids"), left);
    assert_eq!(store.range(&HERE, &[]).expect("a range"), Range::Ids(left.to_vec()));
    assert!(store.fetch(&HERE, &[packets[1].id()]).expect("packets").is_empty());
    assert_eq!(store.health().damaged_records, 1);
    let all = store.scrub(None, 10).expect("a scrub");
    assert_eq!(all, Scrubbed { next: None, read: 3, damaged: 1 });
    let mut slices = vec![store.scrub(None, 1).expect("a scrub")];
    while let Some(next) = slices[slices.len() - 1].next {
        slices.push(store.scrub(Some(next), 1).expect("a scrub"));
    }
    assert_eq!(
        slices.iter().map(|slice| (slice.read, slice.damaged)).collect::<Vec<_>>(),
        [(1, 0), (1, 1), (1, 0), (0, 0)]
    );
    assert_eq!(store.damaged_addresses(), [(HERE, 1)]);

    let batch = [(HERE, packets[1]), (HERE, packets[0])];
    let results = store.deposit(0, &batch).expect("a deposit");
    assert_eq!(results, [Deposited::Stored, Deposited::Duplicate]);
    let news = store.pull(&HERE, Some(page.cursor), 10).expect("a page");
    assert_eq!(news.packets, [packets[1]]);
    assert_eq!((store.health().damaged_records, store.stat(&HERE).expect("stat").packets), (0, 3));
}

#[test]
fn a_second_opening_a_strange_version_and_a_strange_folder_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path());
    let error = DiskStore::open(folder.path()).err().expect("a refusal");
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(store);

    let format = folder.path().join("FORMAT");
    let good = fs::read(&format).expect("the file");
    let mut newer = good.clone();
    newer[4] = 3;
    fs::write(&format, &newer).expect("written");
    let error = DiskStore::open(folder.path()).err().expect("a refusal");
    assert!(matches!(error, StoreError::Version { found: 3, known: 2, .. }), "{error}");
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    for bytes in [&damaged[..], &good[..50], b""] {
        fs::write(&format, bytes).expect("written");
        let error = DiskStore::open(folder.path()).err().expect("a refusal");
        assert!(matches!(error, StoreError::Format { .. }), "{error}");
    }
    fs::write(&format, &good).expect("written");
    assert!(open(folder.path()).1.is_none());

    let strange = tempfile::tempdir().expect("a folder");
    fs::write(strange.path().join("letters.txt"), b"dear").expect("written");
    let error = DiskStore::open(strange.path()).err().expect("a refusal").to_string();
    assert!(error.contains("letters.txt"), "{error}");
    assert_eq!(fs::read_dir(strange.path()).expect("a folder").count(), 1, "nothing was made there");
}

/// The child of the test below; does nothing when run as an ordinary test.
#[test]
fn deposit_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else { return };
    let (store, report) = DiskStore::open(Path::new(&folder)).expect("the store opens");
    assert!(report.loss.is_none(), "{report}");
    let mut out = std::io::stdout().lock();
    let held = store.stat(&HERE).expect("stat").packets as u32;
    let packets = many(held + 40_000);
    for (number, part) in packets.chunks(7).enumerate().skip(held as usize / 7) {
        let batch: Vec<_> = part.iter().map(|&packet| (HERE, packet)).collect();
        store.deposit(0, &batch).expect("a deposit");
        writeln!(out, "acknowledged {}", (number + 1) * 7).and_then(|()| out.flush()).expect("a reader");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = 0;
    for round in 1..=5usize {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["store::tests::crash::deposit_until_killed", "--exact", "--nocapture"])
            .env(FOLDER_VARIABLE, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut read = |line: Option<std::io::Result<String>>| {
            let line = line?.ok()?;
            let count = line.split("acknowledged ").nth(1)?.parse::<usize>().ok()?;
            acknowledged = acknowledged.max(count);
            Some(())
        };
        // A different moment each round; what it prints until it is dead counts too.
        let mut seen = 0;
        while seen < round * 13 {
            let line = lines.next();
            assert!(line.is_some(), "the child ended by itself");
            seen += usize::from(read(line).is_some());
        }
        child.kill().expect("killed");
        lines.for_each(|line| {
            read(Some(line));
        });
        child.wait().expect("its end");

        let (store, loss) = open(folder.path());
        assert!(loss.is_none());
        let page = store.pull(&HERE, None, usize::MAX).expect("a page");
        assert!(page.packets.len() >= acknowledged);
        assert_eq!(page.packets, many(page.packets.len() as u32));
    }
    assert!(acknowledged > 0);
}
