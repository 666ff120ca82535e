use super::*;
use crate::address::Addresser;
use crate::domain::{Domain, Kernel, Value};
use crate::embed::cpu::embed_one;
use crate::engine::{Backend, Choice, Engine};
use crate::limits::{FINISH_VERSION, PACKET_BYTES};
use crate::merge::live;
use crate::packet::{AuthorKey, Draft, Kind, Verified};
use std::sync::OnceLock;

const DAY_MS: u64 = 86_400_000;
const ASK_MS: u64 = 200 * DAY_MS + 5;

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let choice = Choice { backend: Backend::Cpu, adapter: None, threads: Some(2) };
        Engine::new(&choice).expect("an engine")
    })
}

fn domain() -> Domain {
    let kernel = Kernel::gaussian(60.0).to_toml();
    let text = format!(
        r#"
format = 1
name = "pumps"
about = "pumps of a plant"
[schema]
time_step = "1d"
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
levels = ["a", "b", "c"]
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
name = "split"
prior = {{ cases = 1 }}
address = {{ tables = 2, bits = 4, probes = 3 }}
{kernel}
"#
    );
    Domain::parse("pumps.toml", &text).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Observed packets of four authors and three models; some supersede others, some are retracted, some
/// have expired.
fn packets(domain: &Domain) -> Vec<Verified> {
    let schema = &domain.schema;
    let mut packets = vec![];
    for number in 0..120u32 {
        let author = AuthorKey::from_seed([1 + (number % 4) as u8; 32]);
        let row = [Value::Number(f64::from(number % 37) / 12.0 - 1.5), Value::Level(number as usize % 3)];
        let mut draft = Draft::new(Kind::Observed, schema.id(), 1);
        draft.action = [Some(0), Some(1)][number as usize / 3 % 2];
        draft.observed_at = (100 + u64::from(number % 50)) * DAY_MS;
        draft.expires_at = if number % 31 == 7 { 190 * DAY_MS } else { 0 };
        draft.cases = 1 + (number % 4) as u16;
        draft.sequence = number;
        let record = if number % 23 == 22 { number - 12 } else { number };
        draft.reference = author.evidence_id(&schema.id(), &record.to_string());
        draft.signal = schema.signal(&row);
        draft.scope = schema.scope(&row);
        draft.values[0] = Some((if number % 5 == 0 { 65_535 } else { 9_000 }, 0));
        let packet = author.sign(&draft).expect("a sound draft");
        packets.push(packet);
        if number % 41 == 40 {
            let mut back = Draft { kind: Kind::Retraction, cases: 0, expires_at: 0, ..draft.clone() };
            back.reference = packet.id();
            back.values = Default::default();
            back.sequence = 1_000 + number;
            packets.push(author.sign(&back).expect("a sound retraction"));
        }
    }
    packets
}

fn asked(domain: &Domain, row: u64, load: f64, models: &[usize]) -> Asked {
    let schema = &domain.schema;
    let values = |model: usize| [Value::Number(load), Value::Level(model)];
    Asked {
        row,
        signal: schema.signal(&values(models[0])),
        scopes: models.iter().map(|&model| schema.scope(&values(model))).collect(),
        ask_ms: ASK_MS,
    }
}

/// A proof of three answers, one of them across two scopes, under a view by its name.
fn proof(domain: &Domain, view: &str) -> Vec<u8> {
    let view = domain.view(Some(view)).expect("a view");
    let all = packets(domain);
    let addresser = Addresser::new(view);
    let mut writer = ProofWriter::new(domain, view);
    for (row, load, models) in [(1, 0.3, vec![0]), (2, -0.6, vec![0]), (3, 0.3, vec![1, 2])] {
        let asked = asked(domain, row, load, &models);
        let embedding = embed_one(&view.metric, &asked.signal);
        let read: Vec<_> = asked.scopes.iter().flat_map(|scope| addresser.ask(scope, &embedding)).collect();
        let there = |packet: &&Verified| {
            let embedding = embed_one(&view.metric, packet.signal());
            addresser.deposit(packet.scope(), &embedding).iter().any(|address| read.contains(address))
        };
        let mailboxes: Vec<Verified> = all.iter().filter(there).copied().collect();
        assert!(mailboxes.len() > 5, "{row}: {}", mailboxes.len());
        let answers = recompute::answers(
            engine(),
            &domain.schema,
            view,
            live(&mailboxes, ASK_MS),
            &[asked.signal],
            ASK_MS,
        );
        writer.add([(asked, &answers[0])], &mailboxes).expect("within the bounds");
    }
    writer.bytes().expect("a proof")
}

/// The outcome for bytes that are a proof in form.
fn outcome(bytes: &[u8]) -> Outcome {
    check(&Proof::parse(bytes).expect("a proof in form"), engine()).expect("a domain").outcome
}

/// A forger mends the digest.
fn mended(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 32;
    let digest = blake3::derive_key("qis 1 proof", &bytes[..end]);
    bytes[end..].copy_from_slice(&digest);
    bytes
}

/// The header changed as text, its length free.
fn with_header(bytes: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == b'\n').expect("a header");
    let header = std::str::from_utf8(&bytes[..end]).expect("text");
    let changed = change(header);
    assert_ne!(header, changed, "nothing was changed");
    mended([changed.as_bytes(), &bytes[end..]].concat())
}

#[test]
fn a_proof_is_recomputed_to_the_same_bits() {
    let domain = domain();
    for view in ["plain", "split"] {
        let bytes = proof(&domain, view);
        let proof = Proof::parse(&bytes).expect("a proof");
        let checked = check(&proof, engine()).expect("checked");
        assert_eq!(checked.outcome, Outcome::Equal, "{view}");
        assert_eq!((checked.answers.len(), checked.authors), (3, 4));
        // Superseded packets are left out, dead ones that are the newest are not.
        assert!(proof.packets.len() < packets(&domain).len());
        assert!(proof.packets.iter().any(|packet| packet.kind() == Kind::Retraction) || view == "split");
        assert_eq!(bytes, self::proof(&domain, view), "the same file every time");
    }
}

#[test]
fn no_byte_can_change_unnoticed() {
    let bytes = proof(&domain(), "plain");
    for at in (0..bytes.len()).step_by(61).chain(bytes.len() - 40..bytes.len()) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let error = Proof::parse(&damaged).expect_err("damage");
        assert!(matches!(error, ProofError::Damaged | ProofError::NotAProof), "byte {at}: {error}");
    }
    for length in (0..bytes.len()).step_by(97).chain([0, 1, 22, 31, 32, 33, bytes.len() - 1]) {
        let error = Proof::parse(&bytes[..length]).expect_err("cut off");
        assert!(matches!(error, ProofError::Damaged | ProofError::NotAProof), "{length} bytes: {error}");
    }
}

/// With a mended digest the other checks stand alone: nothing panics, and packets cannot be changed.
#[test]
fn a_forger_who_mends_the_digest_is_found() {
    let domain = domain();
    let bytes = proof(&domain, "plain");
    let body = bytes.iter().position(|&byte| byte == b'\n').expect("a header") + 1;
    for at in (0..body).step_by(41).chain((body..bytes.len() - 32).step_by(151)) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 7);
        let Ok(proof) = Proof::parse(&mended(changed)) else { continue };
        let Ok(checked) = check(&proof, engine()) else { continue };
        let harmless = at < body && checked.outcome == Outcome::Equal;
        assert!(harmless || checked.outcome != Outcome::Equal, "byte {at}: {:?}", checked.outcome);
    }
}

#[test]
fn a_forged_answer_is_named_by_its_first_field() {
    let domain = domain();
    let bytes = proof(&domain, "plain");
    let parsed = Proof::parse(&bytes).expect("a proof");
    let (field, value) = parsed.claims[1].answer[7].clone();
    assert_eq!(field, "all / fails / lower");
    // The last digit of a number: one unit of its last place.
    let last = value.chars().last().and_then(|c| c.to_digit(10)).expect("a digit");
    let other = format!("{}{}", &value[..value.len() - 1], (last + 1) % 10);
    let forged = with_header(&bytes, |header| header.replace(&value, &other));
    let Outcome::Forged(why) = outcome(&forged) else { panic!("{:?}", outcome(&forged)) };
    assert!(why.contains("row 2") && why.contains(&field), "{why}");
    assert!(why.contains(&value) && why.contains(&other), "{why}");

    let forged = with_header(&bytes, |header| {
        header.replacen("\"thin\"", "\"answer\"", 1).replacen(
            "\"verdict\",\"answer\"",
            "\"verdict\",\"conflict\"",
            1,
        )
    });
    let Outcome::Forged(why) = outcome(&forged) else { panic!("{:?}", outcome(&forged)) };
    assert!(why.contains("verdict"), "{why}");
}

#[test]
fn what_is_missing_makes_it_not_verifiable() {
    let domain = domain();
    let bytes = proof(&domain, "plain");
    let body = bytes.iter().position(|&byte| byte == b'\n').expect("a header") + 1;
    let parsed = Proof::parse(&bytes).expect("a proof");
    let count = parsed.packets.len();
    let announce = |bytes: &[u8], now: usize| {
        with_header(bytes, |header| {
            header.replace(&format!("\"packets\":{count},"), &format!("\"packets\":{now},"))
        })
    };
    // Without a live packet.
    let alive = live(&packets(&domain), ASK_MS);
    let at = parsed
        .packets
        .iter()
        .position(|packet| alive.iter().any(|live| live.id == packet.id()))
        .expect("a live packet");
    let at = body + at * PACKET_BYTES;
    let less = announce(&[&bytes[..at], &bytes[at + PACKET_BYTES..]].concat(), count - 1);
    let Outcome::NotVerifiable(why) = outcome(&less) else { panic!("{:?}", outcome(&less)) };
    assert!(why.contains("missing"), "{why}");
    // A packet more than was said.
    let wrong = announce(&bytes, count + 1);
    assert!(matches!(Proof::parse(&wrong), Err(ProofError::Length { .. })));
    // Asked after more packets have expired.
    let late = with_header(&bytes, |header| header.replace(&ASK_MS.to_string(), &(150 * DAY_MS).to_string()));
    assert!(matches!(outcome(&late), Outcome::NotVerifiable(_)), "{:?}", outcome(&late));
    // A newer program's formulas.
    let newer = with_header(&bytes, |header| header.replace("\"finish\":1,", "\"finish\":99,"));
    let Err(ProofError::Finish { found, known }) = Proof::parse(&newer) else { panic!("version 99") };
    assert_eq!((found, known), (99, FINISH_VERSION));
}

#[test]
fn packets_that_do_not_belong_are_forgery() {
    let domain = domain();
    let bytes = proof(&domain, "plain");
    let body = bytes.iter().position(|&byte| byte == b'\n').expect("a header") + 1;
    let mut broken = bytes.clone();
    broken[body + 500] ^= 1;
    let Outcome::Forged(why) = outcome(&mended(broken)) else { panic!("a broken signature") };
    assert!(why.contains("packet 0") && why.contains("signature"), "{why}");
    let mut twice = bytes.clone();
    twice.copy_within(body..body + PACKET_BYTES, body + PACKET_BYTES);
    assert!(matches!(outcome(&mended(twice)), Outcome::Forged(why) if why.contains("ascending")));
    // The first question alone leaves the mailboxes of the third without a reader.
    let view = domain.view(Some("plain")).expect("a view");
    let all = packets(&domain);
    let mut writer = ProofWriter::new(&domain, view);
    let asked = asked(&domain, 1, 0.3, &[0]);
    let mine: Vec<Verified> = all.iter().filter(|p| *p.scope() == asked.scopes[0]).copied().collect();
    let live = live(&mine, ASK_MS);
    let answers = recompute::answers(engine(), &domain.schema, view, live, &[asked.signal], ASK_MS);
    writer.add([(asked.clone(), &answers[0])], &mine).expect("added");
    writer.add([], &all).expect("added");
    let outcome = outcome(&writer.bytes().expect("a proof"));
    assert!(matches!(&outcome, Outcome::Forged(why) if why.contains("no mailbox")), "{outcome:?}");
    // Another domain's text under the ids of this one.
    let other =
        with_header(&bytes, |header| header.replace("prior = { cases = 4 }", "prior = { cases = 5 }"));
    assert!(matches!(self::outcome(&other), Outcome::Forged(why) if why.contains("view")));
}

#[test]
fn a_proof_appears_whole_or_not_at_all() {
    let domain = domain();
    let folder = tempfile::tempdir().expect("a folder");
    let view = domain.view(None).expect("a view");
    let path = folder.path().join("answers.qpf");
    ProofWriter::new(&domain, view).finish(&path).expect("written");
    let names: Vec<_> = folder.path().read_dir().expect("listed").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["answers.qpf"]);
    assert!(Proof::open(&path).expect("a proof without an answer").claims.is_empty());
    assert!(ProofWriter::new(&domain, view).finish(folder.path()).is_err());
    let nobody = Proof::open(&folder.path().join("none.qpf")).expect_err("no file");
    assert!(nobody.to_string().contains("none.qpf"), "{nobody}");
}
