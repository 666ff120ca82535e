use super::copy::{Copied, Copy};
use super::input::Input;
use super::output::{Output, Written, write};
use super::partition::{Layout, RECORD_BYTES};
use super::pass::Pass;
use super::refresh::Refresh;
use super::verify::{Report, verify};
use crate::domain::{Addressing, Domain, Kernel, Value, View};
use crate::engine::{Backend, Choice, Engine};
use crate::merge::{Batch, Question, answer, lineage_root, live};
use crate::packet::{AuthorKey, Draft, Id, Kind, Packet, PacketFile, PacketFileWriter, Verified};
use crate::store::{DiskStore, PacketStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const DAY_MS: u64 = 86_400_000;
const NOW_MS: u64 = 400 * DAY_MS;

fn domain() -> Domain {
    let kernel = Kernel::gaussian(100.0).to_toml();
    let text = format!(
        r#"
format = 1
name = "pumps"
[schema]
time_step = "1d"
levels = 32
exact = ["model"]
actions = ["run", "stop"]
[[feature]]
name = "load"
kind = "numeric"
centre = 0
scale = 1
[[feature]]
name = "model"
kind = "categorical"
levels = ["a", "b", "c", "d", "e", "f", "g", "h"]
[[outcome]]
name = "fails"
kind = "binary"
range = [0, 1]
direction = "lower"
[[view]]
name = "plain"
prior = {{ cases = 4 }}
{kernel}
[[view]]
name = "wider"
prior = {{ cases = 1 }}
{kernel}
"#
    );
    Domain::parse("pumps.toml", &text).unwrap_or_else(|error| panic!("{error:?}"))
}

fn author(number: u8) -> AuthorKey {
    AuthorKey::from_seed([number; 32])
}

/// Observed packets of five authors in eight mailboxes; a few supersede others, a few are retracted,
/// a few have expired.
fn packets(domain: &Domain, count: u32) -> Vec<Verified> {
    let schema = &domain.schema;
    let mut packets = vec![];
    for number in 0..count {
        let author = author(1 + (number % 5) as u8);
        let row = [Value::Number(f64::from(number % 37) / 12.0 - 1.5), Value::Level(number as usize % 7 % 5)];
        let mut draft = Draft::new(Kind::Observed, schema.id(), 1);
        draft.action = [None, Some(0), Some(1)][number as usize % 3];
        draft.observed_at = (100 + u64::from(number % 50)) * DAY_MS;
        draft.expires_at = if number % 31 == 7 { draft.observed_at + DAY_MS } else { 0 };
        draft.cases = 1 + (number % 4) as u16;
        draft.sequence = number;
        // Every 23rd is a new version of the one 5 before it, by the same author.
        let record = if number % 23 == 22 { number - 5 } else { number };
        draft.reference = author.evidence_id(&schema.id(), &record.to_string());
        draft.signal = schema.signal(&row);
        draft.scope = schema.scope(&row);
        draft.values[0] = Some((if number % 3 == 0 { 65_535 } else { 0 }, 0));
        let packet = author.sign(&draft).expect("a sound draft");
        packets.push(packet);
        if number % 41 == 40 {
            let mut back = Draft { kind: Kind::Retraction, cases: 0, expires_at: 0, ..draft.clone() };
            back.reference = packet.id();
            back.values = Default::default();
            back.sequence = count + number;
            packets.push(author.sign(&back).expect("a sound retraction"));
        }
    }
    packets
}

fn file(path: &Path, domain: &Domain, packets: &[Verified]) -> PathBuf {
    let mut writer = PacketFileWriter::create(path, domain.schema.id(), [0; 32]).expect("a file");
    packets.iter().for_each(|packet| writer.write(packet).expect("written"));
    writer.finish().expect("finished");
    path.into()
}

fn engine(threads: usize) -> Engine {
    Engine::new(&Choice { backend: Backend::Cpu, adapter: None, threads: Some(threads) }).expect("an engine")
}

struct Setting<'a> {
    engine: &'a Engine,
    view: &'a View,
    memory_bytes: u64,
    shard: (u32, u32),
}

fn pass<'a>(setting: &Setting<'a>, domain: &'a Domain, input: &'a Input, folder: &Path) -> Pass<'a> {
    Pass {
        input,
        schema: &domain.schema,
        view: setting.view,
        engine: setting.engine,
        checks_signatures: true,
        keeps_syntheses: false,
        memory_bytes: setting.memory_bytes,
        shard: setting.shard,
        rejected: folder.join("rejected.ndjson"),
    }
}

/// Refreshes into `output`.
fn refresh(setting: &Setting, domain: &Domain, input: &Path, output: &Path) -> Written {
    let input = Input::find(input).expect("an input");
    let folder = output.parent().expect("a folder");
    let key = author(99);
    let job = Refresh {
        pass: pass(setting, domain, &input, folder),
        key: &key,
        as_of: None,
        work: folder.join("work"),
        resume: false,
    };
    let refreshed = job.run(|_| ()).expect("a refresh");
    write(refreshed, &domain.schema, setting.view, &key, Output::of(output), NOW_MS, |_| Ok(1))
        .expect("written")
}

fn read(path: &Path) -> Vec<Packet> {
    PacketFile::open(path).expect("a file").collect::<Result<_, _>>().expect("packets")
}

/// The digest depends on nothing but packets, view and time.
#[test]
fn the_digest_is_a_function_of_the_packets() {
    let domain = domain();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut all = packets(&domain, 900);
    let input = file(&at("in.qpk"), &domain, &all);
    let view = &domain.views[0];
    let (one, two) = (engine(1), engine(2));
    let setting = |engine, memory_bytes| Setting { engine, view, memory_bytes, shard: (0, 1) };
    let first = refresh(&setting(&two, 1 << 30), &domain, &input, &at("a.qpk"));
    assert!(first.packets >= 12, "{}", first.packets);
    // Spilled to disk in several buckets, one thread.
    assert!(!Layout::for_records(900, 1 << 18).in_memory && Layout::for_records(900, 1 << 18).buckets > 8);
    assert_eq!(refresh(&setting(&one, 1 << 18), &domain, &input, &at("b.qpk")), first);
    assert_eq!(std::fs::read(at("a.qpk")).expect("a"), std::fs::read(at("b.qpk")).expect("b"));
    // Another order, some of it twice, in two files of a folder.
    all.reverse();
    std::fs::create_dir(at("parts")).expect("a folder");
    file(&at("parts/1.qpk"), &domain, &all[..500]);
    file(&at("parts/2.qpk"), &domain, &all[300..]);
    assert_eq!(refresh(&setting(&two, 1 << 18), &domain, &at("parts"), &at("c.qpk")), first);
    // Another view gives another result.
    let other = Setting { view: &domain.views[1], ..setting(&two, 1 << 30) };
    assert_ne!(refresh(&other, &domain, &input, &at("d.qpk")).digest, first.digest);
}

/// What comes out is what asking each mailbox gives.
#[test]
fn a_refresh_says_what_asking_says() {
    let domain = domain();
    let folder = tempfile::tempdir().expect("a folder");
    let all = packets(&domain, 600);
    let input = file(&folder.path().join("in.qpk"), &domain, &all);
    let (engine, view) = (engine(2), &domain.views[0]);
    let setting = Setting { engine: &engine, view, memory_bytes: 1 << 18, shard: (0, 1) };
    let output = folder.path().join("out.qpk");
    refresh(&setting, &domain, &input, &output);
    let latest = all.iter().map(|packet| packet.observed_at()).max().expect("packets");
    let mut scopes: BTreeMap<Id, Vec<Verified>> = BTreeMap::new();
    all.iter().for_each(|packet| scopes.entry(*packet.scope()).or_default().push(*packet));
    let found = read(&output);
    let mut expected = 0;
    for (scope, packets) in &scopes {
        let live = live(packets, latest);
        let lineage = lineage_root(live.iter().map(|live| live.id));
        for action in [None, Some(0), Some(1)] {
            let of_action: Vec<_> = live.iter().filter(|live| live.packet.action() == action).collect();
            let packet = found.iter().find(|packet| packet.scope() == scope && packet.action() == action);
            let Some(packet) = packet else {
                assert!(of_action.is_empty());
                continue;
            };
            expected += 1;
            // The integer mean, half away from zero.
            for slot in 0..crate::limits::SLOTS {
                let sum: f64 = of_action.iter().map(|live| f64::from(live.packet.signal()[slot])).sum();
                assert_eq!(f64::from(packet.signal()[slot]), (sum / of_action.len() as f64).round());
            }
            let batch = Batch::new(live.clone(), 1, |signals| signals.to_owned());
            let question = Question { schema: &domain.schema, view, batch: &batch, ask_ms: latest };
            let query = ndarray::ArrayView2::from_shape((1, 128), packet.signal().as_slice()).expect("a row");
            let answers =
                answer(question, crate::merge::Situations::public(query, query), crate::merge::cpu::merge);
            let estimates = &answers[0].actions.iter().find(|(of, _)| *of == action).expect("the action").1;
            let finished = estimates[0].expect("an estimate").finished;
            assert_eq!(packet.value(0).0, (finished.estimate * 65_535.0 + 0.5) as u16);
            assert_eq!(*packet.reference(), lineage);
            assert_eq!((packet.kind(), packet.cases()), (Kind::Synthesis, 0));
            assert!(packet.verify().is_ok());
        }
    }
    assert_eq!(found.len(), expected);
    let sequences: Vec<u32> = found.iter().map(|packet| packet.sequence()).collect();
    assert_eq!(sequences, (1..=expected as u32).collect::<Vec<_>>());
}

/// The shards of the address space are disjoint and together the whole.
#[test]
fn shards_are_the_whole() {
    let domain = domain();
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder.path().join("in.qpk"), &domain, &packets(&domain, 300));
    let (engine, view) = (engine(2), &domain.views[0]);
    let run = |shard, name: &str| {
        let setting = Setting { engine: &engine, view, memory_bytes: 1 << 30, shard };
        let output = folder.path().join(name);
        refresh(&setting, &domain, &input, &output);
        read(&output).iter().map(super::digest::content).collect::<Vec<_>>()
    };
    let whole = run((0, 1), "whole.qpk");
    let parts: Vec<_> = (0..3).flat_map(|i| run((i, 3), &format!("{i}.qpk"))).collect();
    assert_eq!(parts, whole);
}

/// Whatever a killed job left, going on gives the same bytes.
#[test]
fn a_resumed_job_gives_the_same_bytes() {
    let domain = domain();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let path = file(&at("in.qpk"), &domain, &packets(&domain, 600));
    let (engine, view) = (engine(2), &domain.views[0]);
    let setting = Setting { engine: &engine, view, memory_bytes: 1 << 18, shard: (0, 1) };
    refresh(&setting, &domain, &path, &at("whole.qpk"));
    let whole = std::fs::read(at("whole.qpk")).expect("bytes");
    let input = Input::find(&path).expect("an input");
    let key = author(99);
    let job = |resume| Refresh {
        pass: pass(&setting, &domain, &input, folder.path()),
        key: &key,
        as_of: None,
        work: at("work"),
        resume,
    };
    let done = job(false).run(|_| ()).expect("a refresh");
    let buckets = done.buckets();
    assert!(buckets > 4 && !done.report.resumed);
    // Killed after some buckets, then after all of them.
    for kept in [0, 1, buckets / 2, buckets] {
        for bucket in kept..buckets {
            std::fs::remove_file(at("work").join(format!("result-{bucket:04}"))).expect("a result");
        }
        std::fs::write(at("work").join("result-0001.part"), b"torn").expect("a torn file");
        let resumed = job(true).run(|_| ()).expect("resumed");
        assert!(resumed.report.resumed);
        let results: Vec<Vec<u8>> = (0..buckets)
            .map(|bucket| bytemuck::cast_slice(&resumed.bucket(bucket).expect("a bucket")).to_vec())
            .collect();
        assert_eq!(results.concat().len() % RECORD_BYTES, 0);
    }
    let resumed = job(true).run(|_| ()).expect("resumed");
    let out = at("resumed.qpk");
    write(resumed, &domain.schema, view, &key, Output::of(&out), NOW_MS, |_| Ok(1)).expect("written");
    assert_eq!(std::fs::read(&out).expect("bytes"), whole);
    assert!(!at("work").exists());
    // Killed while the folder was being removed: without a plan the job begins anew.
    job(false).run(|_| ()).expect("a refresh");
    std::fs::remove_file(at("work").join("plan.json")).expect("a plan");
    std::fs::remove_file(at("work").join("bucket-0000")).expect("a bucket");
    let anew = job(true).run(|_| ()).expect("a refresh");
    assert!(!anew.report.resumed && anew.buckets() == buckets);
    // A damaged result is an error, not an answer.
    job(false).run(|_| ()).expect("a refresh");
    let result = at("work").join("result-0000");
    let mut bytes = std::fs::read(&result).expect("bytes");
    bytes[0] ^= 1;
    std::fs::write(&result, bytes).expect("damaged");
    let damaged = job(true).run(|_| ()).and_then(|refreshed| refreshed.bucket(0).map(|_| ()));
    assert!(damaged.is_err_and(|error| error.to_string().contains("damaged")));
    // So is the folder of another job.
    let other = Refresh { as_of: Some(7), ..job(true) };
    assert!(other.run(|_| ()).is_err_and(|error| error.to_string().contains("another job")));
}

fn verified(setting: &Setting, domain: &Domain, path: &Path, folder: &Path) -> Report {
    let input = Input::find(path).expect("an input");
    let pass = Pass { keeps_syntheses: true, ..pass(setting, domain, &input, folder) };
    verify(&pass, folder, |_| ()).expect("verified")
}

#[test]
fn a_forged_synthesis_is_found() {
    let domain = domain();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let evidence = packets(&domain, 300);
    let input = file(&at("in.qpk"), &domain, &evidence);
    let (engine, view) = (engine(2), &domain.views[0]);
    let setting = Setting { engine: &engine, view, memory_bytes: 1 << 18, shard: (0, 1) };
    let written = refresh(&setting, &domain, &input, &at("out.qpk"));
    let syntheses: Vec<Verified> =
        read(&at("out.qpk")).into_iter().map(|packet| packet.verify().expect("signed")).collect();
    let both = [evidence.clone(), syntheses.clone()].concat();
    let report = verified(&setting, &domain, &file(&at("both.qpk"), &domain, &both), folder.path());
    assert_eq!((report.equal, report.forged.len(), report.not_verifiable), (written.packets, 0, 0));

    // Another estimate under a good signature.
    let honest = syntheses[2];
    let mut draft = Draft::new(Kind::Synthesis, domain.schema.id(), 1);
    draft.action = honest.action();
    draft.observed_at = honest.observed_at();
    draft.reference = *honest.reference();
    draft.signal = *honest.signal();
    draft.scope = *honest.scope();
    draft.synthesis = honest.synthesis();
    draft.values[0] = Some((honest.value(0).0 ^ 1, honest.value(0).1));
    let forged = author(66).sign(&draft).expect("a sound draft");
    let with = [both.clone(), vec![forged]].concat();
    let report = verified(&setting, &domain, &file(&at("forged.qpk"), &domain, &with), folder.path());
    assert_eq!((report.equal, &report.forged), (written.packets, &vec![forged.id()]));

    // Without one packet of its evidence nothing can be said of a mailbox's syntheses.
    let missing = both.iter().position(|packet| packet.scope() == honest.scope()).expect("evidence");
    let less = [&both[..missing], &both[missing + 1..]].concat();
    let report = verified(&setting, &domain, &file(&at("less.qpk"), &domain, &less), folder.path());
    assert!(report.forged.is_empty() && report.not_verifiable >= 1, "{report:?}");
    assert_eq!(report.equal + report.not_verifiable, written.packets);
}

/// Export, wipe, import: the same packets at the same addresses; and the move to another view.
#[test]
fn a_backup_is_signed_packets() {
    let mut domain = domain();
    domain.views[1].addressing = Addressing { tables: 2, bits: 3, probes: 1 };
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let all = packets(&domain, 200);
    let path = file(&at("in.qpk"), &domain, &all);
    let copy = |input: &Path, views: &[usize], output: &Path| -> Copied {
        let input = Input::find(input).expect("an input");
        let views = views.iter().map(|&view| &domain.views[view]).collect();
        let copy = Copy { input: &input, schema: &domain.schema, views, rejected: at("rejected.ndjson") };
        match Output::of(output) {
            Output::File(path) => copy.to_file(path, [0; 32], |_| ()).expect("copied"),
            Output::Store(path) => copy.to_store(path, NOW_MS, |_| ()).expect("copied"),
        }
    };
    let mailboxes = |path: &Path| {
        let (store, _) = DiskStore::open(path).expect("a store");
        let of = |address| store.ids(address, None, 10_000).expect("ids");
        store.addresses().expect("addresses").iter().map(|(at, _)| (*at, of(at))).collect::<Vec<_>>()
    };
    let first = copy(&path, &[0, 1], &at("store"));
    assert_eq!(first.packets, all.len() as u64);
    assert!(first.written > 150 && first.obsolete > 0 && first.rejected == 0, "{first:?}");
    assert_eq!(copy(&path, &[0, 1], &at("store")).written, 0);
    let exported = copy(&at("store"), &[0, 1], &at("backup.qpk"));
    assert!(exported.duplicates > 0 && exported.written >= first.written - first.obsolete);
    copy(&at("backup.qpk"), &[0, 1], &at("restored"));
    assert_eq!(mailboxes(&at("restored")), mailboxes(&at("store")));
    // Every packet is found again at its addresses under the other view, and nowhere else.
    copy(&at("backup.qpk"), &[1], &at("moved"));
    let addresser = crate::address::Addresser::new(&domain.views[1]);
    let moved = mailboxes(&at("moved"));
    let mut places = 0;
    for packet in read(&at("backup.qpk")) {
        for address in addresser.deposit(packet.scope(), packet.signal()) {
            let mailbox = moved.iter().find(|(at, _)| *at == address).expect("a mailbox");
            assert!(mailbox.1.contains(&packet.id()));
            places += 1;
        }
    }
    assert_eq!(moved.iter().map(|(_, ids)| ids.len()).sum::<usize>(), places);
}

/// A damaged packet is skipped, counted and listed with its place; a file that ends early is an error.
#[test]
fn damage_is_listed() {
    let domain = domain();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let path = file(&at("in.qpk"), &domain, &packets(&domain, 100));
    let mut bytes = std::fs::read(&path).expect("bytes");
    bytes[512 + 512 * 7 + 4] = 9; // kind
    bytes[512 + 512 * 9 + 500] ^= 1; // signature
    std::fs::write(&path, &bytes).expect("damaged");
    let (engine, view) = (engine(1), &domain.views[0]);
    let setting = Setting { engine: &engine, view, memory_bytes: 1 << 30, shard: (0, 1) };
    refresh(&setting, &domain, &path, &at("out.qpk"));
    let list = std::fs::read_to_string(at("rejected.ndjson")).expect("a list");
    let lines: Vec<serde_json::Value> =
        list.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        lines.iter().map(|line| line["offset"].as_u64()).collect::<Vec<_>>(),
        [Some(4_096), Some(5_120)]
    );
    assert!(list.contains("`kind`") && list.contains("`signature`"), "{list}");
    // A later run that rejects nothing leaves no list behind.
    let good = file(&at("good.qpk"), &domain, &packets(&domain, 10));
    refresh(&setting, &domain, &good, &at("out.qpk"));
    assert!(!at("rejected.ndjson").exists());
    bytes.truncate(2_000);
    std::fs::write(&path, &bytes).expect("truncated");
    let input = Input::find(&path).expect("an input");
    assert!(input.describe(&domain.schema.id()).is_err_and(|error| error.to_string().contains("truncated")));
}
