//! The engine's own published vectors, `datasets/vectors/engine.json`: ids of schemas and views, the
//! finish of sums, and one whole mailbox from packets to the synthesis packet.
//!
//! They hold the formats still between releases, and let another implementation check itself.
//! `QIS_WRITE_VECTORS=1 cargo test --release --test engine_vectors` writes them anew.

use ndarray::Array2;
use qis::domain::Domain;
use qis::limits::{OUTCOMES_MAX, SLOTS};
use qis::merge::finish::{Moments, PlainMean, finish, further_cases};
use qis::merge::{Batch, Question, Situation, Situations, answer, cpu, lineage_root, live, synthesis};
use qis::packet::{AuthorKey, Draft, Kind, Verified, hex};
use serde_json::{Value as Json, json};

const DOMAIN: &str = r#"format = 1
name = "ward"
[schema]
time_step = "1d"
levels = 32
exact = ["unit"]
actions = ["wait", "treat"]
[[feature]]
name = "age"
kind = "numeric"
unit = "year"
centre = 50
scale = 12.5
thermometer = [40, 60]
[[feature]]
name = "unit"
kind = "categorical"
levels = ["a", "b"]
[[feature]]
name = "stage"
kind = "ordinal"
levels = ["I", "II", "III"]
missing = "refuse"
[[feature]]
name = "smoker"
kind = "boolean"
weight = 0.5
[[outcome]]
name = "ill"
kind = "binary"
direction = "lower"
[[outcome]]
name = "days"
kind = "real"
unit = "day"
direction = "lower"
range = [0, 30]
outside = "clip"
[[view]]
name = "plain"
prior = { kind = "mean", cases = 2 }
kernel = { shift = 8, table = [4096, 3500, 3000, 2500, 2000, 1500, 1000, 500, 250, 125, 60, 30, 15, 7, 3, 1] }
[[view]]
name = "hashed"
level = 80
prior = { kind = "mean", cases = 1 }
metric = { shift = 6, diagonal = [64, 96, 96, 40, 70, 70, 127, 30] }
address = { tables = 4, bits = 12, probes = 8 }
decay = { half_life = "30d", table = [4096, 2048, 1024, 512, 0] }
kernel = { shift = 10, table = [4096, 2000, 1000, 500, 250] }
"#;

/// A float as people read it and as its bits.
fn float(x: f64) -> Json {
    json!({"value": x, "bits": format!("{:016x}", x.to_bits())})
}

fn ids(domain: &Domain) -> Json {
    let views: Vec<Json> = domain
        .views
        .iter()
        .map(|view| json!({"name": view.name, "view id": hex(&view.id()), "index id": hex(&view.index_id())}))
        .collect();
    json!({
        "what": "a domain file, and the ids of its schema and views: BLAKE3 derive_key over postcard, the structs in the order of their definitions in src/domain",
        "domain file": DOMAIN,
        "schema id": hex(&domain.schema.id()),
        "views": views,
    })
}

fn finishes() -> Json {
    let prior = PlainMean { mean: 0.3, variance: 0.21, cases: 2.0 };
    let author = |count: u64, weight: u64, mean: u64, second: u64| Moments {
        count,
        weight,
        squared: weight * 4_096 / count.max(1),
        mean: weight * mean,
        second: weight * second,
        ..Moments::default()
    };
    let cases = [
        ("nothing known: the prior", vec![]),
        ("one author, one certain case", vec![author(1, 4_096, 65_535, 65_535)]),
        ("two agreeing authors", vec![author(4, 9_000, 20_000, 20_000), author(9, 30_000, 21_000, 21_000)]),
        (
            "four authors in two camps: a conflict",
            (0..4).map(|i| author(20, 81_920, 65_535 * (i % 2), 65_535 * (i % 2))).collect(),
        ),
        (
            "rounding of the second moment below the square: variance is clamped at 0",
            vec![author(3, 12_288, 40_000, 24_413)],
        ),
    ];
    let finished: Vec<Json> = cases
        .into_iter()
        .map(|(name, authors)| {
            let f = finish(&authors, prior, 90);
            let sums: Vec<Json> =
                authors.iter().map(|m| json!([m.count, m.weight, m.squared, m.mean, m.second])).collect();
            json!({
                "name": name,
                "per author [count, W, V, Y, Z]": sums,
                "estimate": float(f.estimate),
                "half-width": float(f.half_width),
                "effective cases": float(f.effective_cases),
                "case variance": float(f.case_variance),
                "conflict": f.conflict,
                "further cases to the border 0.5": further_cases((f.estimate - 0.5).abs(), f.case_variance, f.effective_cases + 2.0),
            })
        })
        .collect();
    json!({
        "what": "finish 1: exact sums per author to estimate and interval (as fractions of the range) under the prior below at level 90",
        "prior": {"mean": 0.3, "variance": 0.21, "cases": 2.0},
        "cases": finished,
    })
}

fn observed(domain: &Domain, author: u8, record: u8, value: (u16, u16), action: u16) -> Verified {
    let key = AuthorKey::from_seed([author; 32]);
    let mut values = [None; OUTCOMES_MAX];
    values[0] = Some(value);
    values[1] = (!record.is_multiple_of(3)).then_some((u16::from(record) * 1_000, 0));
    let mut signal = [0; SLOTS];
    signal[0] = record as i8 * 7 - 40;
    signal[3] = 51;
    let schema = domain.schema.id();
    let draft = Draft {
        values,
        signal,
        action: Some(action),
        sequence: u32::from(record),
        observed_at: 20_000 * 86_400_000,
        reference: key.evidence_id(&schema, &record.to_string()),
        scope: [7; 32],
        ..Draft::new(Kind::Observed, schema, 2)
    };
    key.sign(&draft).unwrap()
}

fn mailbox(domain: &Domain) -> Json {
    let (schema, view) = (&domain.schema, &domain.views[0]);
    let ask_ms = 20_010 * 86_400_000;
    let packets: Vec<Verified> = (0..12u8)
        .map(|i| observed(domain, 1 + i % 3, i, (if i % 4 == 0 { 65_535 } else { 0 }, 0), u16::from(i % 2)))
        .collect();
    let batch = Batch::new(live(&packets, ask_ms), 2, |signals| signals.to_owned());
    let question = Question { schema, view, batch: &batch, ask_ms };
    let mut query = [0i8; SLOTS];
    query[3] = 51;
    let queries = Array2::from_shape_vec((1, SLOTS), query.to_vec()).unwrap();
    let answer = answer(question, Situations::public(queries.view(), queries.view()), cpu::merge).remove(0);
    let lineage = lineage_root(batch.ids.iter().copied());
    let situation = Situation { signal: &query, scope: [7; 32] };
    let draft = synthesis(schema, view, &answer, Some(1), situation, lineage, ask_ms).unwrap();
    let signed = AuthorKey::from_seed([9; 32]).sign(&draft).unwrap();
    let outcomes: Vec<Json> = answer
        .outcomes
        .iter()
        .map(|estimate| {
            let e = estimate.unwrap();
            json!({"estimate": float(e.estimate), "lower": float(e.lower), "upper": float(e.upper)})
        })
        .collect();
    let evidence: Vec<Json> =
        question.evidence(&query).into_iter().map(|(row, w)| json!([hex(&batch.ids[row]), w])).collect();
    json!({
        "what": "one mailbox under the domain above and its view `plain`: 12 packets of 3 authors, one question, its answer, the packets behind it by weight in 1/4096, and the signed synthesis for action 1",
        "asked at ms": ask_ms,
        "packets": packets.iter().map(|p| hex(p.as_bytes())).collect::<Vec<_>>(),
        "question, an embedding": hex(bytemuck::cast_slice(&query)),
        "outcomes": outcomes,
        "recommended action": answer.action,
        "verdict": answer.verdict.name(),
        "effective cases": float(answer.effective_cases),
        "further cases": answer.further_cases,
        "evidence [packet id, w]": evidence,
        "lineage root": hex(&lineage),
        "synthesis": hex(signed.as_bytes()),
    })
}

#[test]
fn the_engine_still_says_what_it_published() {
    let domain = Domain::parse("vectors.toml", DOMAIN).unwrap();
    let found = json!({
        "about": "the engine's own vectors; each part says what it is. Hex of bytes in memory order; floats with their IEEE 754 bits, equal on every machine",
        "ids": ids(&domain),
        "finish": finishes(),
        "mailbox": mailbox(&domain),
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/vectors/engine.json");
    let text = serde_json::to_string_pretty(&found).unwrap() + "\n";
    if std::env::var_os("QIS_WRITE_VECTORS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    // As text: a reader may round the decimal form of a float, the bits beside it are exact.
    let published = std::fs::read_to_string(path).unwrap();
    for (line, (found, published)) in text.lines().zip(published.lines()).enumerate() {
        assert_eq!(found, published, "line {}", line + 1);
    }
    assert_eq!(text, published);
}
