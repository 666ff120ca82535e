//! `qis eval` as the referee: tables that are hardly tables, and figures that must be what they are called.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn qis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qis")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(arguments: &[&str]) -> Value {
    let output = qis(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stdout)))
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

/// A folder with a domain of two features and one outcome, and a table of it.
struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new(kind: &str, rows: &[(f64, f64, &str, f64)]) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        let range = if kind == "real" { "range = [0, 10]\nunit = \"cycle\"\n" } else { "" };
        let domain = format!(
            "format = 1\nname = \"small\"\n[schema]\ntime_step = \"1d\"\n\
             [[feature]]\nname = \"a\"\nkind = \"numeric\"\ncentre = 0\nscale = 1\nmissing = \"refuse\"\n\
             [[feature]]\nname = \"b\"\nkind = \"numeric\"\ncentre = 0\nscale = 1\nmissing = \"refuse\"\n\
             [[outcome]]\nname = \"y\"\nkind = \"{kind}\"\n{range}direction = \"higher\"\n\
             [[view]]\nname = \"near\"\nkernel = {{ shift = 4, table = [4096, 2048, 1024, 512, 256, 128] }}\n\
             [[view]]\nname = \"far\"\nkernel = {{ shift = 7, table = [4096, 4000, 3900, 3800, 3700] }}\n\
             [source]\nsite = \"site\"\n"
        );
        std::fs::write(path.join("small.toml"), domain).unwrap();
        let lines: String = rows.iter().map(|(a, b, site, y)| format!("{a},{b},{site},{y}\n")).collect();
        std::fs::write(path.join("small.csv"), format!("a,b,site,y\n{lines}")).unwrap();
        Place { _folder: folder, path }
    }

    /// Some rows whose outcome follows from the features, dealt to `sites` sites.
    fn regular(kind: &str, rows: usize, sites: usize) -> Place {
        let row = |i: usize| {
            let (a, b) = ((i * 37 % 101) as f64 / 50.0 - 1.0, (i * 53 % 97) as f64 / 48.0 - 1.0);
            let y = if kind == "real" { 5.0 + 2.0 * a + b } else { f64::from(a + 0.5 * b > 0.0) };
            (a, b, ["north", "south", "east", "west"][i % sites], y)
        };
        Place::new(kind, &(0..rows).map(row).collect::<Vec<_>>())
    }

    fn file(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn eval(&self, more: &[&str]) -> Value {
        let (domain, table) = (self.file("small.toml"), self.file("small.csv"));
        json(&[&["eval", "--domain", &domain, "--data", &table, "--json"], more].concat())
    }

    fn refuses(&self, more: &[&str], code: i32, word: &str) {
        let (domain, table) = (self.file("small.toml"), self.file("small.csv"));
        refused(&[&["eval", "--domain", &domain, "--data", &table], more].concat(), code, word);
    }
}

const METHODS: [&str; 5] = ["swarm", "local", "ridge", "fedavg", "pooled_mean"];

#[test]
fn hardly_a_table_is_measured_all_the_same() {
    // One class only: no AUC, but everything else.
    let one_class: Vec<_> = (0..40).map(|i| (f64::from(i) / 20.0 - 1.0, 0.0, "north", 1.0)).collect();
    let found = Place::new("binary", &one_class).eval(&["--splits", "2"]);
    for method in METHODS {
        let mean = &found["mean"][method];
        assert!(mean.get("auc").is_none() && mean["brier"].as_f64().unwrap() < 0.3, "{method}: {found}");
    }
    // One node, whose evidence is the swarm's.
    let found = Place::regular("binary", 60, 1).eval(&["--splits", "2"]);
    assert_eq!(found["nodes"], 1);
    assert_eq!(found["mean"]["local"], found["mean"]["swarm"]);
    assert_eq!(found["differences"]["local"]["auc"]["mean"], 0.0);
    // Five rows, two of them test rows; features that never change.
    for rows in [Place::regular("binary", 5, 1), Place::regular("real", 5, 2)] {
        let found = rows.eval(&["--splits", "3", "--poison", "0.5", "--scramble", "2"]);
        assert_eq!(found["splits"].as_array().unwrap().len(), 3);
    }
    let constant: Vec<_> = (0..30).map(|i| (1.0, 1.0, ["n", "s"][i % 2], (i % 3) as f64)).collect();
    let found = Place::new("real", &constant).eval(&["--splits", "2"]);
    let rmse = |method: &str| found["mean"][method]["rmse"].as_f64().unwrap();
    for method in ["swarm", "ridge", "fedavg"] {
        assert!((rmse(method) - rmse("pooled_mean")).abs() < 0.05, "{method}: {found}");
    }
    Place::new("binary", &[(0.0, 0.0, "n", 1.0)]).refuses(&[], 3, "at least one of each");
}

#[test]
fn the_object_is_the_same_for_any_number_of_threads() {
    let place = Place::regular("real", 200, 4);
    let more =
        ["--splits", "3", "--curve", "1,2,4", "--poison", "0.3", "--scramble", "2", "--views", "near", "far"];
    let run = |threads: &str| place.eval(&[&more[..], &["--threads", threads]].concat());
    let one = run("1");
    assert_eq!(one, run("2"));
    for key in
        ["data", "rows", "nodes", "splits", "mean", "se", "read_share", "differences", "curve", "poison"]
    {
        assert!(one.get(key).is_some(), "no {key}: {one}");
    }
    assert!(one["mean"]["swarm under far"]["rmse"].is_number(), "{one}");
    assert!(one["poison"]["excluded_honest"].is_null(), "a view that trusts all alike excludes nobody");
}

/// The intervals follow from the differences within each split, not from the methods' own spread.
#[test]
fn differences_are_those_within_the_splits() {
    let found = Place::regular("binary", 200, 4).eval(&["--splits", "4"]);
    let splits = found["splits"].as_array().unwrap();
    for method in &METHODS[1..] {
        let of = |split: &Value, method: &str| split["metrics"][method]["brier"].as_f64().unwrap();
        let values: Vec<f64> = splits.iter().map(|split| of(split, "swarm") - of(split, method)).collect();
        let mean = values.iter().sum::<f64>() / 4.0;
        let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
        // t(.95, 3 degrees) = 3.18245.
        let reach = 3.182_45 * (squares / 3.0 / 4.0).sqrt();
        let said = |key: &str| found["differences"][method]["brier"][key].as_f64().unwrap();
        for (key, wanted) in [("mean", mean), ("low", mean - reach), ("high", mean + reach)] {
            assert!((said(key) - wanted).abs() < 1e-4, "{method} {key}: {} is not {wanted}", said(key));
        }
    }
}

#[test]
fn coverage_is_near_the_level_and_peers_promise_none() {
    let found = Place::regular("real", 400, 4).eval(&["--splits", "3"]);
    let swarm = &found["mean"]["swarm"];
    assert!((0.8..=1.0).contains(&swarm["coverage"].as_f64().unwrap()), "{found}");
    assert!((0.0..=10.0).contains(&swarm["width"].as_f64().unwrap()), "{found}");
    assert!(found["mean"]["ridge"].get("coverage").is_none());
    let found = Place::regular("binary", 400, 4).eval(&["--splits", "3"]);
    assert!(found["mean"]["swarm"]["rate_coverage"].is_number(), "{found}");
}

#[test]
fn a_curve_grows_and_leaves_out_what_cannot_be_had() {
    let place = Place::regular("binary", 300, 4);
    let found = place.eval(&["--splits", "2", "--rows", "10", "--curve", "1,4,16,64"]);
    assert_eq!(found["left_out"], serde_json::json!([64]));
    let curve = found["curve"].as_array().unwrap();
    assert_eq!(curve.iter().map(|p| p["packets"].as_u64().unwrap()).collect::<Vec<_>>(), [10, 40, 160]);
    assert_eq!(found["nodes"], 16, "the main table is that of the largest point");
    assert_eq!(curve[2]["mean"], found["mean"]);
    assert_eq!(curve[0]["mean"]["local"], curve[0]["mean"]["swarm"]);
    let brier = |point: &Value| point["mean"]["swarm"]["brier"].as_f64().unwrap();
    assert!(brier(&curve[2]) < brier(&curve[0]), "{found}");
    // Without rows, the sites are the nodes.
    let found = place.eval(&["--curve", "1,2,4,5"]);
    assert_eq!(found["left_out"], serde_json::json!([5]));
    assert_eq!(found["curve"][2]["mean"], found["mean"], "all sites are the main table");
}

#[test]
fn lies_cost_something_and_the_truth_nothing() {
    let place = Place::regular("binary", 400, 4);
    let run = |kind: &str| {
        place.eval(&["--splits", "3", "--nodes", "20", "--poison", "0.3", "--poison-kind", kind])
    };
    for kind in ["flip", "flood", "targeted", "partial"] {
        let poison = run(kind)["poison"].clone();
        assert_eq!((&poison["kind"], &poison["dishonest"][0]), (&kind.into(), &6.into()));
        let loss = |method: &str, key: &str| poison["loss"][method]["brier"][key].as_f64().unwrap();
        assert!(loss("swarm", "mean") > 0.0, "{kind}: {poison}");
        // A node alone, if honest, has only its own packets.
        assert_eq!(loss("local", "mean"), 0.0, "{kind}");
    }
}

#[test]
fn splits_and_report_are_written_whole() {
    let place = Place::regular("real", 120, 4);
    let (folder, page) = (place.file("splits"), place.file("report.html"));
    let more =
        ["--splits", "2", "--splits-out", &folder, "--report", &page, "--scramble", "2", "--curve", "1,2,4"];
    let found = place.eval(&more);
    for seed in 0..2 {
        let path = Path::new(&folder).join(format!("split-{seed}.json"));
        let split: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let list = |key: &str| split[key].as_array().unwrap().clone();
        let mut rows: Vec<u64> =
            list("train").iter().chain(&list("test")).map(|r| r.as_u64().unwrap()).collect();
        rows.sort_unstable();
        assert_eq!(rows, (1..=120).collect::<Vec<_>>(), "each row is dealt or asked");
        assert_eq!(split["columns"].as_array().unwrap().len(), 2, "the site is no feature");
        let (truths, said) = (&split["outcomes"][0]["test"], &split["predictions"]["swarm"]);
        let squares: f64 = (0..36)
            .map(|i| {
                let error = truths[i].as_f64().unwrap() - said[i][0].as_f64().unwrap();
                error * error
            })
            .sum();
        let rmse = found["splits"][seed]["metrics"]["swarm"]["rmse"].as_f64().unwrap();
        assert!(((squares / 36.0).sqrt() - rmse).abs() < 1e-9);
    }
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<svg").count(), 5, "curve, reliability, coverage, scramble, verdicts");
    assert!(page.ends_with("</html>\n") && !page.contains("http://") || page.contains("www.w3.org"));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "nothing half-written is left");
}

#[test]
fn wrong_flags_are_named() {
    let place = Place::regular("binary", 40, 2);
    place.refuses(&["--methods", "swarm,oracle"], 2, "no method `oracle`");
    place.refuses(&["--poison", "1.5"], 2, "between 0 and 1");
    place.refuses(&["--poison-kind", "flip"], 2, "--poison");
    place.refuses(&["--rows", "3"], 2, "--rows needs");
    place.refuses(&["--rows", "100", "--curve", "4"], 2, "no number of nodes");
    place.refuses(&["--view", "near", "--view", "near"], 2, "named twice");
    place.refuses(&["--view", "nope"], 2, "no view `nope`");
    place.refuses(&["--report", "/nowhere/at/all.html"], 1, "/nowhere/at/all.html");
}

/// Both ways of asking for two views say the same.
#[test]
fn rival_views_compete_on_the_same_rows() {
    let digits = [root("datasets/breast_cancer.toml"), root("datasets/breast_cancer.csv")];
    let found = json(&["eval", "--domain", &digits[0], "--data", &digits[1], "--nodes", "8", "--json"]);
    assert!(found["mean"]["swarm"]["auc"].as_f64().unwrap() > 0.97);
    let place = Place::regular("binary", 200, 4);
    let both = place.eval(&["--views", "near", "far", "--splits", "2"]);
    assert_eq!(both, place.eval(&["--view", "near", "--view", "far", "--splits", "2"]));
    let far = place.eval(&["--view", "far", "--splits", "2"]);
    assert_eq!(both["mean"]["swarm under far"], far["mean"]["swarm"]);
    assert!(both["differences"]["swarm under far"]["auc"]["low"].is_number());
    let fewer = place.eval(&["--methods", "ridge", "--splits", "2"]);
    assert_eq!(fewer["mean"].as_object().unwrap().len(), 2, "the swarm and what was asked for: {fewer}");
}
