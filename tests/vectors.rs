//! The engine agrees with an independent implementation: every vector of `datasets/vectors/design.json`.

use ndarray::Array2;
use qis::address::{address, probes, sizes};
use qis::domain::{
    Decay, Direction, Feature, FeatureKind, Kernel, Metric, Missing, Outcome, OutcomeKind, Outside, Schema,
    Value, mean_signal,
};
use qis::fingerprint::cpu::{fingerprint_one, project};
use qis::limits::{KERNEL_ENTRIES, SLOTS};
use qis::merge::batch::{prior_columns, second_moment};
use qis::merge::{Columns, Job, Span, cpu, lineage_root};
use qis::packet::{AuthorKey, Draft, Id, Kind, Packet, unhex};
use serde_json::Value as Json;

fn vectors() -> Json {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/vectors/design.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn list<'a>(json: &'a Json, key: &str) -> &'a Vec<Json> {
    json[key].as_array().unwrap_or_else(|| panic!("no list `{key}`"))
}
fn text<'a>(json: &'a Json, key: &str) -> &'a str {
    json[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {json}"))
}
fn number(json: &Json, key: &str) -> u64 {
    json[key].as_u64().unwrap_or_else(|| panic!("no number `{key}` in {json}"))
}
fn bytes(json: &Json, key: &str) -> Vec<u8> {
    unhex(text(json, key)).unwrap()
}
fn id(json: &Json, key: &str) -> Id {
    bytes(json, key).try_into().unwrap()
}
fn slots(json: &Json, key: &str) -> [i8; SLOTS] {
    bytemuck::cast(<[u8; SLOTS]>::try_from(bytes(json, key)).unwrap())
}
fn numbers(json: &Json) -> Vec<u64> {
    json.as_array().unwrap().iter().map(|x| x.as_u64().unwrap()).collect()
}
fn words(json: &Json) -> Vec<u16> {
    numbers(json).into_iter().map(|x| u16::try_from(x).unwrap()).collect()
}

#[test]
fn fingerprints() {
    let all = vectors();
    let stream = bytes(&all["fingerprint stream"], "hex");
    assert_eq!(stream, *qis::fingerprint::STREAM);
    for case in list(&all, "fingerprint") {
        let embedding = slots(case, "embedding i8[128]");
        let projected: Vec<i64> =
            (0..2).flat_map(|b| project(&embedding, b)[..4].to_vec()).map(i64::from).collect();
        let expected = case["projections, first 4 of block 0, first 4 of block 1"].as_array().unwrap();
        assert_eq!(projected, expected.iter().map(|x| x.as_i64().unwrap()).collect::<Vec<_>>());
        let zeros = (0..2).flat_map(|b| project(&embedding, b)).filter(|&x| x == 0).count() as u64;
        assert_eq!(zeros, number(case, "zero projections"));
        assert_eq!(fingerprint_one(&embedding).to_vec(), bytes(case, "fingerprint"), "{}", case["name"]);
    }
}

#[test]
fn embeddings() {
    for case in list(&vectors(), "embedding") {
        let shift = number(case, "shift") as u8;
        let matrix: Vec<i8> = bytes(case, "matrix i8, row-major").into_iter().map(|b| b as i8).collect();
        let metric = match text(case, "metric") {
            "identity" => Metric::Identity,
            "diagonal" => Metric::Diagonal { shift, weights: matrix },
            "full" => Metric::Full { shift, matrix },
            other => panic!("metric {other}"),
        };
        let found = qis::embed::cpu::embed_one(&metric, &slots(case, "signal"));
        assert_eq!(found, slots(case, "embedding"), "{} shift {shift}", case["metric"]);
    }
}

#[test]
fn addresses_and_probes() {
    let all = vectors();
    let embedding = |name: &str| {
        let found = list(&all, "fingerprint").iter().find(|case| text(case, "name") == name);
        slots(found.unwrap_or_else(|| panic!("embedding {name}")), "embedding i8[128]")
    };
    for case in list(&all, "address") {
        let embedding = embedding(text(case, "embedding"));
        let (table, bits) = (number(case, "table") as u16, number(case, "bits") as u16);
        let (index, scope) = (id(case, "index id"), id(case, "scope (packet bytes 320..352)"));
        let fingerprint = fingerprint_one(&embedding);
        assert_eq!(address(&index, &scope, table, bits, &fingerprint), id(case, "address"));
        let expected: Vec<Vec<u64>> =
            list(case, "first 20 probes, as flipped fingerprint bits").iter().map(numbers).collect();
        let found = probes(&sizes(&embedding), table, bits, 20);
        let found_wide: Vec<Vec<u64>> =
            found.iter().map(|flips| flips.iter().map(|&j| j as u64).collect()).collect();
        assert_eq!(found_wide, expected, "table {table} of {bits} bits");
        let mut last = fingerprint;
        for flip in found.last().unwrap() {
            last[flip / 8] ^= 1 << (flip % 8);
        }
        assert_eq!(address(&index, &scope, table, bits, &last), id(case, "address of the last probe"));
    }
}

#[test]
fn packets() {
    let all = vectors();
    for case in list(&all, "packet") {
        let mut raw = bytes(case, "packet");
        raw.truncate(448);
        raw.extend(bytes(case, "signature"));
        let packet = Packet::parse(&raw).unwrap();
        assert_eq!(packet.as_bytes()[..], raw[..]);
        assert_eq!(packet.id(), id(case, "id"));
        let verified = packet.verify().unwrap();
        // The same content, built and signed here, gives the same bytes: signing is deterministic.
        let key = AuthorKey::from_seed(id(case, "author's ed25519 seed"));
        assert_eq!(key.public(), packet.author());
        let draft = Draft {
            kind: packet.kind(),
            outcomes: packet.outcomes(),
            action: packet.action(),
            observed_at: packet.observed_at(),
            expires_at: packet.expires_at(),
            cases: packet.cases(),
            sequence: packet.sequence(),
            schema: *packet.schema(),
            reference: *packet.reference(),
            signal: *packet.signal(),
            values: std::array::from_fn(|i| (packet.mask() >> i & 1 == 1).then(|| packet.value(i))),
            scope: *packet.scope(),
            note: packet.note().into(),
            synthesis: packet.synthesis(),
        };
        assert_eq!(key.sign(&draft).unwrap(), verified);
        assert_eq!(
            number(case, "kind"),
            match packet.kind() {
                Kind::Observed => 0,
                Kind::Synthesis => 1,
                Kind::Retraction => 2,
            }
        );
        // One flipped bit is no longer what the author signed, or no packet at all.
        for bit in (0..512 * 8).step_by(37) {
            let mut bent = raw.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(Packet::parse(&bent).and_then(Packet::verify).is_err(), "bit {bit}");
        }
    }
    for case in list(&all, "refused packet") {
        let refused = Packet::parse(&bytes(case, "packet")).unwrap_err();
        assert_eq!(refused.field.to_string(), text(case, "field"));
    }
}

#[test]
fn weights() {
    let all = vectors();
    let given = &all["weight"];
    let table = words(&given["kernel table"]);
    assert_eq!(table.len(), KERNEL_ENTRIES);
    let kernel = Kernel { shift: number(given, "kernel shift") as u8, table };
    for case in list(given, "cases") {
        let distance = cpu::distance(&slots(case, "query"), &slots(case, "packet"));
        let gain = cpu::gain(number(case, "freshness") as u16, number(case, "trust") as u16);
        assert_eq!(u64::from(cpu::weight(&kernel, distance, gain)), number(case, "w"), "{case}");
    }
}

#[test]
fn columns() {
    for case in list(&vectors(), "columns") {
        let (y, s) = (number(case, "y") as u16, number(case, "s") as u16);
        let mut found = vec![y, second_moment(y, s)];
        if let Some(b) = case["prior b"].as_u64() {
            found.extend(prior_columns(y, s, b as u16, case["binary"].as_bool().unwrap()));
        }
        assert_eq!(found, words(&case["columns y, z, [b, [v,] zr]"]), "{case}");
    }
}

/// Packets whose weights are given: one kernel step per packet, each with its wanted weight.
#[test]
fn tallies() {
    for case in list(&vectors(), "tally") {
        let (w, n) = (words(&case["w"]), words(&case["n"]));
        let rows: Vec<Vec<u16>> = list(case, "columns").iter().map(words).collect();
        let columns = list(case, "S").len();
        // All packets lie at the question; the gain is the weight because the kernel is one there.
        let mut kernel = Kernel { shift: 0, table: vec![4_096; KERNEL_ENTRIES] };
        kernel.table[KERNEL_ENTRIES - 1] = 0;
        let values = Array2::from_shape_vec((w.len(), columns), rows.concat()).unwrap();
        let embeddings = Array2::<i8>::zeros((w.len(), SLOTS));
        let packets = Columns::new(embeddings, n, values);
        let spans = [Span { queries: 0..1, packets: 0..w.len() }];
        let queries = Array2::<i8>::zeros((1, SLOTS));
        let job = Job {
            kernel: &kernel,
            columns: &packets,
            gains: &w,
            queries: queries.view(),
            spans: &spans,
            skip: true,
        };
        let tally = cpu::merge(&job).tally(0);
        assert_eq!(tally.count, number(case, "count"), "{}", case["name"]);
        assert_eq!(tally.weight, number(case, "W"));
        assert_eq!(tally.squared, number(case, "V"));
        assert_eq!(tally.sums, numbers(&case["S"]));
    }
}

#[test]
fn freshness() {
    let all = vectors();
    let given = &all["freshness"];
    let decay = Decay { half_life_ms: number(given, "half-life ms"), table: words(&given["table"]) };
    for case in list(given, "cases") {
        let found = decay.freshness(number(case, "ask ms"), number(case, "observed ms"));
        assert_eq!(u64::from(found), number(case, "freshness"), "{case}");
    }
    assert_eq!(Decay::none().freshness(u64::MAX, 0), 4_096);
}

#[test]
fn lineage() {
    for case in list(&vectors(), "lineage") {
        let ids = list(case, "packet ids, as pulled");
        let ids = ids.iter().map(|hex| <Id>::try_from(unhex(hex.as_str().unwrap()).unwrap()).unwrap());
        assert_eq!(lineage_root(ids), id(case, "root"));
    }
}

#[test]
fn rows_become_signals_and_scopes() {
    let all = vectors();
    let given = &all["row"];
    let schema = &given["schema"];
    let texts = |json: &Json| -> Vec<String> {
        json.as_array().unwrap().iter().map(|x| x.as_str().unwrap().to_string()).collect()
    };
    let features = list(schema, "features").iter().map(|feature| Feature {
        name: text(feature, "name").into(),
        unit: String::new(),
        weight: 1.0,
        missing: Missing::Slot,
        kind: match text(feature, "kind") {
            "numeric" => FeatureKind::Numeric {
                centre: feature["centre"].as_f64().unwrap(),
                scale: feature["scale"].as_f64().unwrap(),
                thermometer: list(feature, "thermometer").iter().map(|x| x.as_f64().unwrap()).collect(),
            },
            "categorical" => FeatureKind::Categorical { levels: texts(&feature["levels"]) },
            "ordinal" => FeatureKind::Ordinal { levels: texts(&feature["levels"]) },
            "boolean" => FeatureKind::Boolean,
            other => panic!("kind {other}"),
        },
    });
    let features: Vec<Feature> = features.collect();
    let exact = texts(&schema["exact"]);
    let position = |name: &String| features.iter().position(|f| f.name == *name).unwrap() as u16;
    let schema = Schema {
        name: text(schema, "name").into(),
        exact: exact.iter().map(position).collect(),
        features,
        actions: texts(&schema["actions"]),
        outcomes: vec![Outcome {
            name: "dead".into(),
            kind: OutcomeKind::Binary,
            unit: String::new(),
            low: 0.0,
            high: 1.0,
            direction: Direction::Lower,
            outside: Outside::Refuse,
        }],
        time_step_ms: number(schema, "time_step_ms"),
        levels: number(schema, "levels") as u16,
        cases_min: 1,
        curator: [0; 32],
    };
    let mut signals = vec![];
    for case in list(given, "cases") {
        let values: Vec<Value> = schema
            .features
            .iter()
            .map(|feature| {
                let cell = match &case["row"][&feature.name] {
                    Json::Null => String::new(),
                    Json::String(text) => text.clone(),
                    other => other.to_string(),
                };
                feature.read(&cell).unwrap()
            })
            .collect();
        assert_eq!(schema.signal(&values), slots(case, "signal"), "{}", case["row"]);
        assert_eq!(schema.scope_bytes(&values), bytes(case, "scope bytes"));
        assert_eq!(schema.scope(&values), id(case, "scope"));
        signals.push((schema.signal(&values), values));
    }
    let only: Vec<_> = signals.iter().map(|(signal, _)| *signal).collect();
    assert_eq!(mean_signal(&only), slots(given, "mean of all cases"));
    let fine = Schema { levels: 256, ..schema };
    assert_eq!(fine.signal(&signals[0].1), slots(given, "the same at 256 levels, first case"));
}
