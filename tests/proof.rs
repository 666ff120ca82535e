//! Proofs, synthesis checks, exploration and questions across scopes as a user calls them.

use std::path::Path;
use std::process::{Command, Output};

fn qis(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qis")).current_dir(folder).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of standard output as JSON; the run ends with `code`.
fn lines(folder: &Path, arguments: &[&str], code: i32) -> Vec<serde_json::Value> {
    let output = qis(folder, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn refused(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let output = qis(folder, arguments);
    let squeeze = |text: &str| text.chars().filter(|c| !c.is_whitespace() && *c != '│').collect::<String>();
    let said = squeeze(&text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(&squeeze(word)), "{arguments:?} does not say `{word}`: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

const DOMAIN: &str = r#"
format = 1
name = "clinic"
[schema]
time_step = "1d"
exact = ["speciality"]
actions = ["wait", "treat", "send"]
[[feature]]
name = "age"
kind = "numeric"
unit = "year"
centre = 50
scale = 10
[[feature]]
name = "speciality"
kind = "categorical"
levels = ["cardiology", "nephrology", "surgery"]
[[outcome]]
name = "ill"
kind = "binary"
direction = "lower"
[[view]]
name = "default"
prior = { kind = "mean", cases = 1 }
kernel = { shift = 9, table = [4096, 3000, 2000, 1000, 500, 250, 120, 60, 30, 15, 7, 3, 1, 0] }
[source]
record = "id"
[source.action]
columns = ["done"]
"#;

/// A domain, 150 cases of three authors as `all.qpk`-like files, and a few questions.
fn clinic() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("clinic.toml"), DOMAIN).unwrap();
    for author in 0..3 {
        let mut rows = String::from("id,age,speciality,done,ill\n");
        for i in 0..50 {
            let speciality = ["cardiology", "nephrology", "surgery"][i % 3];
            let done = ["wait", "treat"][(i / 3 + author) % 2];
            let ill = usize::from((i + author) % 4 == 0 || done == "wait" && i % 5 < 2);
            rows += &format!("{author}-{i},{},{speciality},{done},{ill}\n", 35 + (i * 7) % 30);
        }
        let (table, packets) = (format!("{author}.csv"), format!("{author}.qpk"));
        std::fs::write(at.join(&table), rows).unwrap();
        let author = format!("{author}.json");
        let arguments = ["distill", "--domain", "clinic.toml", "--input", &table, "--author", &author];
        let summary = lines(at, &[&arguments[..], &["--output", &packets, "--json"]].concat(), 0);
        assert_eq!(summary[0]["packets"], 50);
    }
    let questions = "id,age,speciality\na,44,cardiology\nb,52,surgery\nc,61,nephrology\n";
    std::fs::write(at.join("new.csv"), questions).unwrap();
    let both = "id,age,speciality\na,44,cardiology\na,44,nephrology\nb,52,surgery\n";
    std::fs::write(at.join("both.csv"), both).unwrap();
    folder
}

const ASK: [&str; 10] = [
    "ask",
    "--domain",
    "clinic.toml",
    "--packets",
    "0.qpk",
    "--packets",
    "1.qpk",
    "--packets",
    "2.qpk",
    "--input",
];

fn ask<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&ASK[..], more].concat()
}

#[test]
fn a_proof_is_verified_and_a_forged_one_is_not() {
    let folder = clinic();
    let at = folder.path();
    let answers = lines(at, &ask(&["new.csv", "--json", "--proof", "a.qpf"]), 0);
    assert_eq!(answers, lines(at, &ask(&["new.csv", "--json"]), 0), "a proof changes no answer");
    // Nothing but the file is needed.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::copy(at.join("a.qpf"), elsewhere.path().join("a.qpf")).unwrap();
    let verified = lines(elsewhere.path(), &["verify", "a.qpf", "--json"], 0);
    assert_eq!(verified[0]["outcome"], "equal");
    assert_eq!((&verified[0]["packets"], &verified[0]["authors"]), (&150.into(), &3.into()));
    assert_eq!(verified[0]["answers"].as_array().unwrap().len(), 3);
    let shown = text(&qis(elsewhere.path(), &["verify", "a.qpf"]).stdout);
    assert!(shown.contains("150 packets of 3 authors") && shown.contains("equal"), "{shown}");

    // One answer prettier than it is, with a digest that fits.
    let bytes = std::fs::read(at.join("a.qpf")).unwrap();
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap();
    let header = text(&bytes[..end]);
    let packets = answers[1]["packets"].to_string();
    let forged = header.replacen(&format!("[\"packets\",\"{packets}\"]"), "[\"packets\",\"4000\"]", 1);
    assert_ne!(forged, header);
    let mut forged = [forged.as_bytes(), &bytes[end..bytes.len() - 32]].concat();
    let digest = blake3::derive_key("qis 1 proof", &forged);
    forged.extend(digest);
    std::fs::write(at.join("forged.qpf"), &forged).unwrap();
    refused(at, &["verify", "forged.qpf"], 1, &["forged", "packets", "4000", "its packets give"]);
    assert_eq!(lines(at, &["verify", "forged.qpf", "--json"], 1)[0]["outcome"], "forged");

    for (name, damage) in [("cut", 1_000), ("flipped", 0)] {
        let mut bytes = bytes.clone();
        match damage {
            0 => bytes[5_000] ^= 4,
            length => bytes.truncate(length),
        }
        std::fs::write(at.join(name), &bytes).unwrap();
        refused(at, &["verify", name], 3, &["not readable", "damaged or cut off"]);
    }
    refused(at, &["verify", "clinic.toml"], 3, &["is not a proof"]);
    refused(at, &["verify", "none.qpf"], 3, &["none.qpf"]);
    refused(at, &ask(&["new.csv", "--proof", "."]), 1, &["."]);
}

#[test]
fn a_question_across_scopes_shows_its_parts() {
    let folder = clinic();
    let at = folder.path();
    let found = lines(at, &ask(&["both.csv", "--scopes", "--json", "--proof", "b.qpf"]), 0);
    assert_eq!(found.len(), 2);
    let parts = found[0]["scopes"].as_array().unwrap();
    let names: Vec<_> = parts.iter().map(|part| part["scope"].as_str().unwrap()).collect();
    assert_eq!(names, ["speciality cardiology", "speciality nephrology"]);
    let sum = |of: &str| parts.iter().map(|part| part[of].as_u64().unwrap()).sum::<u64>();
    assert_eq!(found[0]["packets"], sum("packets"));
    assert_eq!(sum("live_packets"), 102);
    // Alone it is the plain answer.
    let alone = lines(at, &ask(&["new.csv", "--json"]), 0);
    assert_eq!(parts[0]["outcomes"], alone[0]["outcomes"]);
    assert_ne!(found[0]["outcomes"], alone[0]["outcomes"]);
    assert_eq!(found[1]["outcomes"], alone[1]["outcomes"], "one scope is one scope");
    assert_eq!(lines(at, &["verify", "b.qpf", "--json"], 0)[0]["outcome"], "equal");
    let shown = text(&qis(at, &ask(&["both.csv", "--scopes"])).stdout);
    assert!(shown.contains("scope alone") && shown.contains("speciality nephrology"), "{shown}");

    std::fs::write(at.join("bad.csv"), "id,age,speciality\na,44,cardiology\na,64,nephrology\n").unwrap();
    refused(at, &ask(&["bad.csv", "--scopes"]), 3, &["row 2", "row 1", "exact features"]);
    std::fs::write(at.join("plain.toml"), DOMAIN.replace("record = \"id\"", "")).unwrap();
    let mut arguments = ask(&["both.csv", "--scopes"]);
    arguments[2] = "plain.toml";
    refused(at, &arguments, 2, &["record"]);
    refused(at, &ask(&["both.csv", "--scopes", "--publish", "--author", "x.json"]), 2, &["--scopes"]);
}

#[test]
fn exploration_follows_the_seed_and_effects_have_intervals() {
    let folder = clinic();
    let at = folder.path();
    // Many rows of one situation: what is explored follows the chances.
    let rows: String = (0..400).map(|row| format!("r{row},44,cardiology\n")).collect();
    std::fs::write(at.join("many.csv"), format!("id,age,speciality\n{rows}")).unwrap();
    let explored = lines(at, &ask(&["many.csv", "--explore", "--seed", "5", "--json"]), 0);
    let again = lines(at, &ask(&["many.csv", "--explore", "--seed", "5", "--json"]), 0);
    assert_eq!(explored, again);
    let other = lines(at, &ask(&["many.csv", "--explore", "--seed", "6", "--json"]), 0);
    assert_ne!(explored, other);
    let taken = |name: &str| explored.iter().filter(|line| line["explored"]["action"] == name).count();
    let chance = |name: &str| {
        let line = explored.iter().find(|line| line["explored"]["action"] == name);
        line.map_or(0.0, |line| line["explored"]["chance"].as_f64().unwrap())
    };
    let mut sum = 0.0;
    for name in ["wait", "treat", "send"] {
        sum += chance(name);
        let expected = 400.0 * chance(name);
        let error = (expected * (1.0 - chance(name))).sqrt();
        assert!((taken(name) as f64 - expected).abs() < 4.0 * error + 2.0, "{name}: {}", taken(name));
    }
    // An action that is never taken says no chance.
    assert!((0.99..1.0 + 1e-9).contains(&sum), "{sum}");
    assert!(taken("send") > 0, "what nobody tried is tried");

    let line = &explored[0];
    let best: f64 =
        line["actions"].as_array().unwrap().iter().map(|a| a["chance_best"].as_f64().unwrap()).sum();
    assert!((best - 1.0).abs() < 1e-9);
    let effect = &line["effects"][0];
    assert_eq!(effect["action"], line["action"]);
    let of = |key: &str| effect["difference"][key].as_f64().unwrap();
    assert!(of("lower") < of("estimate") && of("estimate") < of("upper"));

    let told = lines(at, &ask(&["new.csv", "--against", "wait", "--json"]), 0);
    assert_eq!(told.len(), 4, "three rows and their sum");
    assert!(told[0]["effects"][0]["robust"]["estimate"].is_f64(), "{}", told[0]);
    assert_eq!(told[3]["rows"], 3);
    let shown = text(&qis(at, &ask(&["new.csv", "--against", "wait", "--randomised"])).stdout);
    for word in ["chance to be the best", "treat against wait", "over 3 rows"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    refused(at, &ask(&["new.csv", "--against", "cut"]), 2, &["no action `cut`", "wait, treat, send"]);
    refused(at, &ask(&["new.csv", "--seed", "3"]), 2, &["--explore"]);

    // Far from all cases nothing overlaps.
    std::fs::write(at.join("far.csv"), "id,age,speciality\nz,115,cardiology\n").unwrap();
    let far = lines(at, &ask(&["far.csv", "--json"]), 0);
    assert_eq!(far[0]["actions"][0]["overlap"], "out of reach", "{}", far[0]);
    assert!(text(&qis(at, &ask(&["far.csv"])).stdout).contains("farther away than the kernel reaches"));
}

/// Syntheses in a file, a store and a mailbox: equal, forged, not verifiable.
#[test]
fn syntheses_are_judged_wherever_they_lie() {
    let folder = clinic();
    let at = folder.path();
    let import = |input: &str| {
        let arguments =
            ["resynth", "import", "--domain", "clinic.toml", "--input", input, "--output", "store"];
        lines(at, &[&arguments[..], &["--json"]].concat(), 0);
    };
    ["0.qpk", "1.qpk", "2.qpk"].into_iter().for_each(import);
    let refresh = ["resynth", "refresh", "--domain", "clinic.toml", "--input", "store", "--output"];
    lines(at, &[&refresh[..], &["syntheses.qpk", "--json"]].concat(), 0);
    lines(at, &[&refresh[..], &["store", "--json"]].concat(), 0);
    let inspect = |more: &[&'static str]| -> Vec<&'static str> {
        [&["inspect", "--domain", "clinic.toml", "--verify-synthesis", "--json"][..], more].concat()
    };
    let found = lines(at, &inspect(&["store"]), 0);
    assert_eq!(found.len(), 6, "three scopes, two actions each");
    assert!(found.iter().all(|line| line["finding"] == "equal"), "{found:?}");
    // Syntheses without the evidence beside them.
    let found = lines(at, &inspect(&["syntheses.qpk"]), 0);
    assert!(found.iter().all(|line| line["finding"] == "not verifiable"), "{found:?}");
    assert!(found[0]["why"].as_str().unwrap().contains("evidence is missing"), "{}", found[0]);
    // One mailbox, by its address.
    let address = lines(at, &["inspect", "store", "--json", "--limit", "1"], 0)[0]["address"].clone();
    let address = address.as_str().unwrap();
    let mut arguments = inspect(&["--store", "store", "--address"]);
    arguments.push(address);
    let found = lines(at, &arguments, 0);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|line| line["finding"] == "equal"), "{found:?}");
    refused(at, &["inspect", "store", "--verify-synthesis"], 2, &["--domain"]);
    refused(at, &inspect(&["store", "--store", "store"]), 2, &["--address"]);
    refused(at, &inspect(&["--address", "12"]), 2, &["64 hexadecimal digits"]);
}
