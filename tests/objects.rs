//! Mailboxes in folders and buckets under writers that race, faults and strangers.

mod support;

use futures::future::{BoxFuture, join_all};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;
use qis::address::Address;
use qis::mailbox::{Admission, Mailbox, ObjectMailbox, Position, Receipt};
use qis::packet::{Id, Verified, hex};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use support::{at, ids, packets};

const ADDRESS: Address = [9; 32];
const NOW_MS: u64 = 1_000_000;

fn open() -> Admission {
    Admission::default().carry_any_schema()
}

fn in_folder(folder: &std::path::Path) -> ObjectMailbox {
    ObjectMailbox::open(&format!("file://{}", folder.display()), open(), || NOW_MS).unwrap()
}

/// A reader that remembers where it stands, and that nothing may come to twice.
#[derive(Default)]
struct Reader {
    position: Position,
    seen: BTreeSet<Id>,
}

impl Reader {
    async fn pull(&mut self, mailbox: &ObjectMailbox) {
        let pulled = mailbox.pull(&ADDRESS, &self.position).await.unwrap();
        for packet in &pulled.packets {
            assert!(self.seen.insert(packet.id()), "a packet came twice");
        }
        self.position = pulled.position;
    }
}

/// Objects in memory, as a folder shows them: what is put while it is listed may be missing or not,
/// whatever was put before it. Puts fail now and then, before or after they have had their effect.
#[derive(Clone, Debug)]
struct Racing {
    inner: Arc<InMemory>,
    numbers: Arc<Mutex<ChaCha8Rng>>,
}

impl fmt::Display for Racing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("racing objects")
    }
}

impl Racing {
    fn below(&self, bound: u64) -> u64 {
        self.numbers.lock().unwrap().next_u64() % bound
    }

    /// Lets the others go on for a while.
    async fn pause(&self) {
        for _ in 0..self.below(6) {
            tokio::task::yield_now().await;
        }
    }

    fn racing_list(self, prefix: Option<Path>, offset: Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let listing = async move {
            let list = || self.inner.list_with_offset(prefix.as_ref(), &offset).try_collect::<Vec<_>>();
            let before: BTreeSet<Path> = list().await?.into_iter().map(|object| object.location).collect();
            self.pause().await;
            let mut shown = list().await?;
            shown.retain(|object| before.contains(&object.location) || self.below(2) == 0);
            Ok::<_, Error>(stream::iter(shown.into_iter().map(Ok)))
        };
        stream::once(listing).try_flatten().boxed()
    }
}

impl ObjectStore for Racing {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'c, Result<PutResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        let lost = || Err(Error::Generic { store: "racing", source: "the line is dead".into() });
        Box::pin(async move {
            self.pause().await;
            let fate = self.below(10);
            if fate == 0 {
                return lost();
            }
            let result = self.inner.put_opts(location, payload, options).await;
            self.pause().await;
            if fate == 1 { lost() } else { result }
        })
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'c, Result<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.inner.put_multipart_opts(location, options)
    }

    fn get_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        options: GetOptions,
    ) -> BoxFuture<'c, Result<GetResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.inner.get_opts(location, options)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.clone().racing_list(prefix.cloned(), Path::default())
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.clone().racing_list(prefix.cloned(), offset.clone())
    }

    fn list_with_delimiter<'a, 'b, 'c>(
        &'a self,
        prefix: Option<&'b Path>,
    ) -> BoxFuture<'c, Result<ListResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'd, 'c>(
        &'a self,
        from: &'b Path,
        to: &'d Path,
        options: CopyOptions,
    ) -> BoxFuture<'c, Result<()>>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
    {
        self.inner.copy_opts(from, to, options)
    }
}

/// Deposits until it is acknowledged.
async fn insist(mailbox: &ObjectMailbox, batch: &[(Address, Verified)]) {
    for _ in 0..100 {
        if let Ok(receipts) = mailbox.deposit(batch).await {
            assert!(receipts.iter().all(|receipt| !matches!(receipt, Receipt::Rejected(_))));
            return;
        }
    }
    panic!("a hundred deposits failed");
}

/// Outside a runtime everything runs on this thread, in the order of the seed.
#[test]
fn no_packet_is_skipped_or_doubled_whatever_the_interleaving() {
    const WRITERS: u8 = 4;
    let all: Vec<Vec<Verified>> = (1..=WRITERS).map(|author| packets(author, 0..40)).collect();
    for seed in 0..150 {
        let store =
            Racing { inner: Arc::default(), numbers: Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(seed))) };
        let mailbox = || ObjectMailbox::new(Arc::new(store.clone()), open(), || NOW_MS);
        let running = Mutex::new(WRITERS);
        let write = async |own: &[Verified]| {
            let (mut writer, mut rest) = (mailbox(), own);
            while !rest.is_empty() {
                let (batch, more) = rest.split_at(rest.len().min(1 + store.below(5) as usize));
                insist(&writer, &at(ADDRESS, batch)).await;
                rest = more;
                store.pause().await;
                // A program that starts again.
                if store.below(8) == 0 {
                    writer = mailbox();
                }
            }
            *running.lock().unwrap() -= 1;
        };
        let read = async || {
            let (reading, mut reader) = (mailbox(), Reader::default());
            while *running.lock().unwrap() > 0 {
                reader.pull(&reading).await;
                store.pause().await;
            }
            reader.pull(&reading).await;
            assert_eq!(reader.seen.len(), 40 * usize::from(WRITERS), "seed {seed}: a packet was skipped");
        };
        let (a, b) = (read(), read());
        let writers = join_all(all.iter().map(|own| write(own)));
        pollster::block_on(async { futures::join!(writers, a, b) });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_readers_of_one_folder_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<Vec<Verified>> = (1..=3).map(|author| packets(author, 0..60)).collect();
    let writers = all.iter().map(async |own| {
        let writer = in_folder(folder.path());
        for batch in own.chunks(4) {
            let (first, second) = batch.split_at(2);
            // Two deposits of one writer at a time are numbered one after the other.
            let (first, second) = (at(ADDRESS, first), at(ADDRESS, second));
            let (first, second) = tokio::join!(writer.deposit(&first), writer.deposit(&second));
            assert_eq!([first.unwrap(), second.unwrap()].concat(), [const { Receipt::Stored }; 4]);
        }
        let again = writer.deposit(&at(ADDRESS, own)).await.unwrap();
        assert!(again.iter().all(|receipt| *receipt == Receipt::Duplicate));
    });
    let mut reader = Reader::default();
    let reading = in_folder(folder.path());
    let mut writing = std::pin::pin!(join_all(writers));
    loop {
        tokio::select! {
            _ = &mut writing => break,
            () = reader.pull(&reading) => {}
        }
    }
    reader.pull(&reading).await;
    assert_eq!(reader.seen.len(), 180);
    assert_eq!(reading.stat(&ADDRESS).await.unwrap().observed, 180);
}

/// The only segment files below a folder, in order of their paths.
fn segments(folder: &std::path::Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder.to_path_buf()], vec![]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    files
}

/// A segment as the format's table says, written by hand.
fn segment(address: &Address, writer: &Id, sequence: u64, packets: &[u8]) -> Vec<u8> {
    let mut header = b"QISS\x01\0\0\0".to_vec();
    header.extend(sequence.to_le_bytes());
    header.extend((packets.len() as u64 / 512).to_le_bytes());
    header.extend([0; 8]);
    header.extend(address);
    header.extend(writer);
    let mut hasher = blake3::Hasher::new_derive_key("qis 1 segment");
    header.extend(hasher.update(&header.clone()).update(packets).finalize().as_bytes());
    header.extend(packets);
    header
}

fn put(folder: &std::path::Path, address: &Address, writer: &Id, sequence: u64, bytes: &[u8]) -> String {
    let folder = folder.join("qis1").join(hex(address)).join(hex(writer));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{sequence:016x}.qpk"));
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

fn bytes(packets: &[Verified]) -> Vec<u8> {
    packets.iter().flat_map(|packet| *packet.as_bytes()).collect()
}

#[test]
fn the_format_is_what_its_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let own = packets(1, 0..3);
    pollster::block_on(in_folder(folder.path()).deposit(&at(ADDRESS, &own))).unwrap();
    let files = segments(folder.path());
    let path = files[0].strip_prefix(folder.path()).unwrap();
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    assert_eq!((files.len(), parts.len()), (1, 4));
    assert_eq!((parts[0], parts[1], parts[3]), ("qis1", &*hex(&ADDRESS), "0000000000000001.qpk"));
    let writer: Id = qis::packet::unhex(parts[2]).unwrap().try_into().unwrap();
    assert_eq!(std::fs::read(&files[0]).unwrap(), segment(&ADDRESS, &writer, 1, &bytes(&own)));
}

/// What is logged while `work` runs on this thread.
fn logged<T>(work: impl FnOnce() -> T) -> (T, String) {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let result = tracing::subscriber::with_default(log, work);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    (result, text)
}

#[test]
fn damage_of_any_byte_is_told_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let writer = in_folder(folder.path());
    let (first, second, third) = (packets(1, 0..2), packets(1, 2..4), packets(1, 4..6));
    for batch in [&first, &second, &third] {
        pollster::block_on(writer.deposit(&at(ADDRESS, batch))).unwrap();
    }
    let damaged = segments(folder.path())[1].clone();
    let sound = std::fs::read(&damaged).unwrap();
    let expected = ids(&[first, third].concat());
    let check = |bytes: &[u8], what: &str| {
        std::fs::write(&damaged, bytes).unwrap();
        let reader = in_folder(folder.path());
        let pull = |from: &Position| pollster::block_on(reader.pull(&ADDRESS, from)).unwrap();
        let (pulled, log) = logged(|| pull(&Position::default()));
        assert_eq!(ids(&pulled.packets), expected, "{what}");
        assert!(log.contains("0000000000000002.qpk"), "{what}: {log}");
        assert!(pull(&pulled.position).packets.is_empty());
    };
    for at in (0..sound.len()).step_by(7) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        check(&bytes, &format!("byte {at} is flipped"));
    }
    for length in [0, 1, 127, 128, 640, sound.len() - 1] {
        check(&sound[..length], &format!("{length} bytes are left"));
    }
    check(&[&sound[..], &[0]].concat(), "a byte too much");
    check(&vec![0; 5 << 20], "longer than any segment");
    std::fs::write(&damaged, sound).unwrap();
    let whole = pollster::block_on(in_folder(folder.path()).pull(&ADDRESS, &Position::default()));
    assert_eq!(whole.unwrap().packets.len(), 6);
}

#[test]
fn forged_and_misplaced_packets_and_foreign_files_are_never_returned() {
    let folder = tempfile::tempdir().unwrap();
    let own = packets(1, 0..3);
    pollster::block_on(in_folder(folder.path()).deposit(&at(ADDRESS, &own))).unwrap();
    let others = packets(2, 0..4);
    let mut forged = bytes(&others);
    forged[512 + 500] ^= 1;
    forged[3 * 512 + 4] = 77;
    let named = [
        // A wrong signature and a wrong kind among two good packets; and a segment of another mailbox.
        put(folder.path(), &ADDRESS, &[1; 32], 1, &segment(&ADDRESS, &[1; 32], 1, &forged)),
        put(folder.path(), &ADDRESS, &[1; 32], 2, &segment(&[8; 32], &[1; 32], 2, &bytes(&others))),
    ];
    let mailbox = folder.path().join("qis1").join(hex(&ADDRESS));
    std::fs::write(mailbox.join("Thumbs.db"), "x").unwrap();
    std::fs::write(mailbox.join(hex(&[1; 32])).join("notes.txt"), "x").unwrap();
    std::fs::create_dir_all(mailbox.join("a folder/within")).unwrap();
    std::fs::write(mailbox.join("a folder/within/file"), "x").unwrap();
    std::fs::write(folder.path().join("readme"), "x").unwrap();

    let reader = in_folder(folder.path());
    let pull = |from: &Position| pollster::block_on(reader.pull(&ADDRESS, from)).unwrap();
    let (pulled, log) = logged(|| pull(&Position::default()));
    let expected = [&own[..], &[others[0], others[2]]].concat();
    assert_eq!(ids(&pulled.packets), ids(&expected));
    for name in named.iter().map(|name| &name[folder.path().display().to_string().len() + 1..]) {
        assert!(log.contains(name), "{name}: {log}");
    }
    for name in ["Thumbs.db", "notes.txt", "a folder"] {
        assert!(log.contains(name), "{name}: {log}");
    }
    assert!(log.contains("2 of its packets are refused"), "{log}");
    let (again, log) = logged(|| pull(&pulled.position));
    assert!(again.packets.is_empty() && log.is_empty(), "each fault is told once: {log}");

    // Behind a gap a sound segment counts, and one that is not does not move the reader.
    let far = put(folder.path(), &ADDRESS, &[1; 32], 9, b"QISS");
    assert_eq!(pull(&pulled.position).position, pulled.position);
    std::fs::remove_file(far).unwrap();
    put(folder.path(), &ADDRESS, &[1; 32], 3, &segment(&ADDRESS, &[1; 32], 3, &bytes(&others[1..2])));
    put(folder.path(), &ADDRESS, &[1; 32], 7, &segment(&ADDRESS, &[1; 32], 7, &bytes(&others[3..])));
    let rest = pull(&pulled.position);
    assert_eq!(ids(&rest.packets), ids(&[others[1], others[3]]));
    assert!(pull(&rest.position).packets.is_empty());
}

#[test]
fn a_reader_admits_what_a_replica_would_and_keeps_other_cursors() {
    let folder = tempfile::tempdir().unwrap();
    let own = packets(1, 0..2);
    pollster::block_on(in_folder(folder.path()).deposit(&at(ADDRESS, &own))).unwrap();
    let url = format!("file://{}", folder.path().display());
    let closed = ObjectMailbox::open(&url, Admission::default(), || NOW_MS).unwrap();
    let foreign = qis::store::Cursor { replica: [3; 32], epoch: 1, sequence: 70 };
    let from = Position(vec![foreign]);
    let pulled = pollster::block_on(closed.pull(&ADDRESS, &from)).unwrap();
    assert!(pulled.packets.is_empty(), "of a schema that is not served");
    assert!(pulled.position.0.contains(&foreign) && pulled.position.0.len() == 2);
    let refused = pollster::block_on(closed.deposit(&at(ADDRESS, &own))).unwrap();
    assert!(refused.iter().all(|receipt| matches!(receipt, Receipt::Rejected(_))));

    // Whoever names a folder after a replica of another backend does not move its cursor.
    put(folder.path(), &ADDRESS, &[3; 32], 90, &segment(&ADDRESS, &[3; 32], 90, &bytes(&own)));
    let pulled = pollster::block_on(closed.pull(&ADDRESS, &from)).unwrap();
    assert!(pulled.position.0.contains(&foreign), "{:?}", pulled.position);
}

#[test]
fn many_writers_are_read_in_one_listing() {
    let store = Arc::new(InMemory::new());
    let all = packets(1, 0..100);
    for packet in &all {
        let writer = ObjectMailbox::new(store.clone(), open(), || NOW_MS);
        pollster::block_on(writer.deposit(&at(ADDRESS, &[*packet]))).unwrap();
    }
    let mailbox = ObjectMailbox::new(store, open(), || NOW_MS);
    let mut reader = Reader::default();
    pollster::block_on(reader.pull(&mailbox));
    assert_eq!(reader.seen.len(), 100);
    pollster::block_on(async {
        mailbox.deposit(&at(ADDRESS, &packets(2, 0..1))).await.unwrap();
        reader.pull(&mailbox).await;
    });
    assert_eq!(reader.seen.len(), 101);
}
