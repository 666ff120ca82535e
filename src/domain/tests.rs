//! The shipped domains and their tables, whole.

use super::init::{Request, draft};
use super::{Direction, Domain, Purpose, Table, Value};
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the larger data sets lie; `None`, said once per test, where they do not.
fn data(test: &str) -> Option<PathBuf> {
    let folder =
        std::env::var_os("QIS_DATA_DIR").map_or_else(|| repository().join("../shared/data"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("{test}: skipped the sets outside of this repository, no folder {}", folder.display());
    None
}

/// Domain, table, rows, sites, and what share of rows has the first outcome (or its mean).
type Set = (&'static str, PathBuf, usize, usize, f64);

fn sets(test: &str) -> Vec<Set> {
    let here = repository().join("datasets");
    let mut sets: Vec<Set> = vec![
        ("digits", here.join("digits.csv"), 1_797, 0, 178.0 / 1_797.0),
        ("breast_cancer", here.join("breast_cancer.csv"), 569, 0, 212.0 / 569.0),
    ];
    if let Some(data) = data(test) {
        sets.extend([
            ("heart4", data.join("heart4/heart4.csv"), 920, 4, 509.0 / 920.0),
            ("ist", data.join("ist/ist_hospitals.csv.gz"), 10_912, 278, 6_834.0 / 10_912.0),
            ("ai4i2020", data.join("ai4i2020/ai4i2020.csv"), 10_000, 0, 339.0 / 10_000.0),
            ("actg175", data.join("actg175/ACTG175.txt"), 2_139, 0, 521.0 / 2_139.0),
        ]);
    }
    sets
}

fn check((name, path, rows, sites, mean): &Set) {
    let domain = load(name);
    let (mut count, mut sum) = (0, 0.0);
    let mut seen = std::collections::BTreeSet::new();
    for row in Table::open(path, &domain, Purpose::Evidence).unwrap_or_else(|error| panic!("{error}")) {
        let row = row.unwrap_or_else(|error| panic!("{error}"));
        count += 1;
        sum += row.outcome_numbers[0].expect("every row has an outcome");
        assert_eq!(row.action.is_some(), !domain.schema.actions.is_empty());
        assert!(domain.schema.signal(&row.values).iter().any(|&slot| slot != 0));
        seen.extend(row.site);
    }
    assert_eq!((count, seen.len()), (*rows, *sites), "{name}");
    assert!((sum / count as f64 - mean).abs() < 1e-9, "{name}: mean {}, not {mean}", sum / count as f64);
}

fn load(name: &str) -> Domain {
    let path = repository().join("datasets").join(format!("{name}.toml"));
    Domain::load(path).unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)))
}

#[test]
fn every_shipped_domain_is_sound() {
    let mut count = 0;
    for entry in std::fs::read_dir(repository().join("datasets")).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("").to_string();
        if path.extension().is_some_and(|ending| ending == "toml") && name != "MANIFEST" {
            let domain = load(&name);
            assert_eq!(domain.name, name);
            assert!(!domain.about.is_empty(), "{name} says what it is about");
            count += 1;
        }
    }
    assert_eq!(count, 7);
}

#[test]
fn every_shipped_domain_reads_its_table_whole() {
    for set in &sets("every_shipped_domain_reads_its_table_whole") {
        check(set);
    }
}

#[test]
fn the_turbofan_tables_are_made_and_read() {
    let test = "the_turbofan_tables_are_made_and_read";
    let Some(data) = data(test) else { return };
    let output = tempfile::tempdir().expect("a folder");
    let made = Command::new("sh")
        .arg(repository().join("datasets/prepare.sh"))
        .args([data.join("cmapss_fd001").as_path(), output.path()])
        .output();
    let Ok(made) = made else {
        println!("{test}: skipped, there is no sh");
        return;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let domain = load("cmapss_fd001");
    for (table, rows) in [("train.csv", 20_631), ("test.csv", 13_096)] {
        let read: Result<Vec<_>, _> =
            Table::open(output.path().join(table), &domain, Purpose::Evidence).expect(table).collect();
        assert_eq!(read.unwrap_or_else(|error| panic!("{error}")).len(), rows, "{table}");
    }
}

#[test]
fn a_cholesterol_of_zero_was_not_measured() {
    let Some(data) = data("a_cholesterol_of_zero_was_not_measured") else { return };
    let domain = load("heart4");
    let index = domain.schema.features.iter().position(|feature| feature.name == "cholesterol");
    let index = index.expect("a feature");
    let table = Table::open(data.join("heart4/heart4.csv"), &domain, Purpose::Evidence).expect("a table");
    let missing =
        table.filter(|row| row.as_ref().is_ok_and(|row| row.values[index] == Value::Missing)).count();
    // 30 cells are "?", 172 are 0.
    assert_eq!(missing, 202);
}

#[test]
fn drafts_of_the_real_tables_read_them_whole() {
    for (name, path, rows, _, _) in sets("drafts_of_the_real_tables_read_them_whole") {
        let (outcome, action, site): (&str, &[&str], Option<&str>) = match name {
            "digits" => ("digit", &[], None),
            "breast_cancer" => ("diagnosis", &[], None),
            "heart4" => ("num", &[], Some("site")),
            "ist" => ("outcome", &["RXASP", "RXHEP"], Some("site")),
            "ai4i2020" => ("Machine failure", &[], None),
            "actg175" => ("cens", &["arms"], None),
            other => panic!("{other}"),
        };
        let request = Request {
            name: name.into(),
            outcomes: vec![outcome.into()],
            action: action.iter().map(ToString::to_string).collect(),
            site: site.map(String::from),
            exact: Vec::new(),
            direction: Direction::Lower,
            labels: name == "digits",
        };
        let text = draft(&path, &request).unwrap_or_else(|error| panic!("{name}: {error}"));
        let domain = Domain::parse(name, &text)
            .unwrap_or_else(|error| panic!("{:?}\n{text}", miette::Report::new(error)));
        let read: Result<Vec<_>, _> = Table::open(&path, &domain, Purpose::Evidence).expect(name).collect();
        assert_eq!(read.unwrap_or_else(|error| panic!("{error}")).len(), rows, "{name}");
        assert_eq!(domain.schema.outcomes.len(), if name == "digits" { 10 } else { 1 });
    }
}
