//! `qis domain tune`, and `qis eval --tune`: as a user calls them, and on tables that are hardly tables.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn qis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qis")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(arguments: &[&str]) -> String {
    let output = qis(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn refused(arguments: &[&str], code: i32, word: &str) {
    let output = qis(arguments);
    let said: String =
        text(&output.stderr).split_whitespace().filter(|w| *w != "│").collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(word) && !said.contains("panicked"), "{arguments:?} does not say `{word}`: {said}");
}

fn root(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// A number from 0 to 1 that looks drawn (the finaliser of MurmurHash3).
fn wave(i: u32) -> f64 {
    let mut x = i.wrapping_add(0x9E37_79B9);
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    f64::from((x ^ (x >> 16)) >> 8) / f64::from(1u32 << 24)
}

/// A folder with the packets of the breast cancer table, by two authors.
struct Place {
    folder: tempfile::TempDir,
    domain: String,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder, domain: root("datasets/breast_cancer.toml") };
        let table = root("datasets/breast_cancer.csv");
        let (key, packets) = (place.path("me.json"), place.path("mine.qpk"));
        let distil =
            ["distill", "--domain", &place.domain, "--input", &table, "--author", &key, "--output", &packets];
        done(&distil);
        place
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

#[test]
fn a_tuned_view_is_written_checked_and_asked_under() {
    let place = Place::new();
    let (packets, tuned) = (place.path("mine.qpk"), place.path("tuned.toml"));
    let tune = ["domain", "tune", &place.domain, "--packets", &packets, "--output", &tuned, "--json"];
    let said: Value = serde_json::from_str(&done(&tune)).unwrap();
    assert_eq!(said["view"], "tuned");
    assert!(said["report"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains("chosen")));
    assert!(done(&["domain", "check", &tuned]).contains(said["id"].as_str().unwrap()));

    // Same packets, another number of threads, the same view.
    let again = place.path("again.toml");
    let mut other = tune.to_vec();
    other[6] = &again;
    other.extend(["--threads", "1"]);
    done(&other);
    assert_eq!(std::fs::read(&tuned).unwrap(), std::fs::read(&again).unwrap());

    let table = root("datasets/breast_cancer.csv");
    let ask = ["ask", "--domain", &tuned, "--input", &table, "--packets", &packets, "--json"];
    let answers = done(&ask);
    let first: Value = serde_json::from_str(answers.lines().next().unwrap()).unwrap();
    let outcome = &first["outcomes"][0];
    let [estimate, lower, upper] = ["estimate", "lower", "upper"].map(|key| outcome[key].as_f64().unwrap());
    assert!(lower <= estimate && estimate <= upper && upper - lower < 0.9, "{first}");

    // A proof of tuned answers is recomputed to the bit.
    let proof = place.path("answers.qpf");
    done(&["ask", "--domain", &tuned, "--input", &table, "--packets", &packets, "--proof", &proof]);
    assert!(done(&["verify", &proof]).contains("equal"));

    refused(&tune, 1, "exists");
    refused(
        &["domain", "tune", &tuned, "--packets", &packets, "--output", &place.path("x.toml")],
        2,
        "of that name",
    );
    assert!(!Path::new(&place.path("x.toml")).exists(), "nothing half-written");
    let nothing = place.path("nothing.qpk");
    std::fs::write(&nothing, b"no packets").unwrap();
    refused(
        &["domain", "tune", &place.domain, "--packets", &nothing, "--output", &place.path("x.toml")],
        3,
        "nothing.qpk",
    );
    assert!(!Path::new(&place.path("x.toml")).exists(), "nothing half-written");
}

#[test]
fn a_signed_view_holds_only_as_it_was_signed() {
    let place = Place::new();
    let (packets, key) = (place.path("mine.qpk"), place.path("me.json"));
    let unsigned = place.path("x.toml");
    let sign = ["--packets", &packets, "--sign", &key, "--output"];
    refused(&[&["domain", "tune", &place.domain][..], &sign[..], &[&unsigned]].concat(), 3, "curator");

    let said = text(&qis(&[&["domain", "tune", &place.domain][..], &sign[..], &[&unsigned]].concat()).stderr);
    let hexadecimal = |word: &&str| word.len() >= 64 && word.chars().all(|c| c.is_ascii_hexdigit());
    let squeezed: String = said.chars().filter(|c| c.is_ascii_hexdigit() || " \"".contains(*c)).collect();
    let public = squeezed.split([' ', '"']).find(hexadecimal).map(|word| word[..64].to_string());
    let public = public.unwrap_or_else(|| panic!("the message names the key: {said}"));
    // Another schema: the curator is in its id, so its packets are distilled again.
    let domain = std::fs::read_to_string(&place.domain).unwrap();
    let curated = domain.replacen("[schema]", &format!("[schema]\ncurator = \"{public}\""), 1);
    let (file, mine, tuned) =
        (place.path("curated.toml"), place.path("curated.qpk"), place.path("signed.toml"));
    std::fs::write(&file, curated).unwrap();
    let table = root("datasets/breast_cancer.csv");
    done(&["distill", "--domain", &file, "--input", &table, "--author", &key, "--output", &mine]);
    done(&["domain", "tune", &file, "--packets", &mine, "--sign", &key, "--output", &tuned]);
    done(&["domain", "check", &tuned]);

    let changed = std::fs::read_to_string(&tuned).unwrap().replacen("level = 90", "level = 91", 1);
    let forged = place.path("forged.toml");
    std::fs::write(&forged, changed).unwrap();
    refused(&["domain", "check", &forged], 3, "is not its curator's");
}

/// Tables that are hardly tables: an answer with an honest verdict, or a clear refusal.
#[test]
fn odd_tables_are_tuned_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, lines: Vec<String>| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        path
    };
    let rows = |head: &str, count: u32, row: &dyn Fn(u32) -> String| -> Vec<String> {
        std::iter::once(head.to_string()).chain((0..count).map(row)).collect()
    };
    let tables = [
        write("one-class.csv", rows("a,b,y", 60, &|i| format!("{},{},0", wave(i), wave(i + 99)))),
        write("five.csv", rows("a,y", 8, &|i| format!("{},{}", wave(i), i % 2))),
        write("constant.csv", rows("a,b,y", 80, &|i| format!("1,{},{}", wave(i), u8::from(wave(i) > 0.5)))),
        write(
            "duplicates.csv",
            rows("a,b,y", 90, &|i| format!("{},{},{}", i % 3, i % 2, u8::from(i % 3 == 1))),
        ),
        write("missing.csv", rows("a,b,y", 90, &|i| format!("{},,{}", wave(i), u8::from(wave(i) > 0.4)))),
        write("real.csv", rows("a,b,y", 120, &|i| format!("{},{},{}", wave(i), wave(i + 7), 3.0 * wave(i)))),
        write("wide.csv", {
            let head: Vec<String> = (0..200).map(|c| format!("f{c}")).collect();
            let cells =
                |i: u32| (0..200).map(|c| format!("{:.3}", wave(i * 200 + c))).collect::<Vec<_>>().join(",");
            rows(&format!("{},y", head.join(",")), 70, &|i| format!("{},{}", cells(i), i % 2))
        }),
    ];
    for table in &tables {
        let table = table.display().to_string();
        let output =
            qis(&["eval", "--domain", "auto", "--outcome", "y", "--data", &table, "--nodes", "5", "--json"]);
        let said = text(&output.stderr);
        match output.status.code() {
            Some(0) => {
                let found: Value = serde_json::from_slice(&output.stdout).unwrap();
                assert!(found["mean"]["swarm"].is_object(), "{table}: {found}");
            }
            Some(3) => assert!(!said.contains("panicked") && !said.is_empty(), "{table}: {said}"),
            other => panic!("{table}: {other:?}: {said}"),
        }
    }
}

/// The same figures whatever the threads, and no worse than scores where there is a threshold to find.
#[test]
fn tuning_finds_thresholds_and_does_not_depend_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("steps.csv");
    let line = |i: u32| {
        let [a, b, c, noise] = [wave(4 * i), wave(4 * i + 1), wave(4 * i + 2), wave(4 * i + 3)];
        let chance = if a > 0.5 && b < 0.3 { 0.95 } else { 0.05 };
        format!("{a},{b},{c},{}", u8::from(noise < chance))
    };
    let lines: Vec<String> = std::iter::once("a,b,c,y".into()).chain((0..3_000).map(line)).collect();
    std::fs::write(&table, lines.join("\n")).unwrap();
    let table = table.display().to_string();
    let eval = |threads: &str| -> Value {
        let flags =
            ["eval", "--domain", "auto", "--outcome", "y", "--data", &table, "--nodes", "50", "--json"];
        serde_json::from_str(&done(&[&flags[..], &["--threads", threads]].concat())).unwrap()
    };
    let found = eval("1");
    assert_eq!(found, eval("2"));
    let mean = |method: &str, measure: &str| found["mean"][method][measure].as_f64().unwrap();
    for other in ["ridge", "fedavg"] {
        assert!(mean("swarm", "auc") > mean(other, "auc") - 0.005, "{found}");
        assert!(mean("swarm", "brier") < mean(other, "brier"), "{found}");
    }
    assert!(mean("local", "auc") > 0.55, "a node has all its rows, not one: {found}");
}
