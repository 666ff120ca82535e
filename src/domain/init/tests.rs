//! Drafts pass their own check and read their own table.

use super::{InitError, Request, draft};
use crate::domain::schema::{Direction, FeatureKind, OutcomeKind};
use crate::domain::view::Kernel;
use crate::domain::{Domain, Purpose, Table};
use crate::limits::SLOTS;
use std::fmt::Write;
use std::path::Path;

fn request(outcome: &str) -> Request {
    Request {
        name: "test".into(),
        outcomes: vec![outcome.into()],
        action: Vec::new(),
        site: None,
        exact: Vec::new(),
        direction: Direction::Neutral,
        labels: false,
    }
}

/// The domain of a draft, after it has read its whole table.
fn round_trip(path: &Path, request: &Request) -> (Domain, usize) {
    let text = draft(path, request).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let domain = Domain::parse("draft.toml", &text)
        .unwrap_or_else(|error| panic!("{:?}\n{text}", miette::Report::new(error)));
    let mut rows = 0;
    for row in Table::open(path, &domain, Purpose::Evidence).expect("the same table") {
        row.unwrap_or_else(|error| panic!("{error}\n{text}"));
        rows += 1;
    }
    assert!(domain.schema.layout().1 <= SLOTS);
    (domain, rows)
}

fn with_table<T>(name: &str, text: &str, check: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("a file");
    check(&path)
}

/// 60 rows: a key, a number, a number with odd cells, codes, a word, a constant, yes or no, an
/// ill-normalised text, an action, a site, three labels, a number to predict.
fn table() -> String {
    let mut text = "key,size,odd,grade,colour,same,sick,name,act,ward,label,result\n".to_string();
    for i in 0..60 {
        let odd = if i % 20 == 0 { "-".into() } else { format!("{}", i * 7 % 31) };
        let colour = if i % 9 == 0 { "NA" } else { ["red", "blue", "gr\u{fc}n"][i % 3] };
        let sick = ["never", "sometimes"][i % 2];
        let label = ["a", "b", "c"][i * 5 % 3];
        writeln!(
            text,
            "{},{}.5,{odd},{},{colour},x,{sick},n{},{},w{},{label},{}",
            1000 + i,
            i * 13 % 47,
            i % 4,
            i * 77 % 59,
            ["go", "stop"][i / 3 % 2],
            i % 5,
            i * i % 83,
        )
        .expect("memory");
    }
    text
}

#[test]
fn columns_become_what_they_look_like() {
    with_table("t.csv", &table(), |path| {
        let mut request = request("result");
        request.action = vec!["act".into()];
        request.site = Some("ward".into());
        request.exact = vec!["label".into()];
        let (domain, rows) = round_trip(path, &request);
        assert_eq!(rows, 60);
        let kind = |name: &str| {
            domain.schema.features.iter().find(|feature| feature.name == name).map(|feature| &feature.kind)
        };
        assert!(
            matches!(kind("size"), Some(FeatureKind::Numeric { thermometer, .. }) if thermometer.len() == 6)
        );
        assert!(matches!(kind("odd"), Some(FeatureKind::Numeric { .. })));
        assert!(
            matches!(kind("grade"), Some(FeatureKind::Ordinal { levels }) if levels == &["0", "1", "2", "3"])
        );
        assert!(matches!(kind("colour"), Some(FeatureKind::Categorical { levels }) if levels.len() == 3));
        assert_eq!(kind("sick"), Some(&FeatureKind::Boolean));
        for left_out in ["key", "same", "name", "act", "ward", "result"] {
            assert_eq!(kind(left_out), None, "{left_out}");
        }
        assert_eq!(domain.source.record.as_deref(), Some("key"));
        assert_eq!(domain.source.site.as_deref(), Some("ward"));
        assert_eq!(domain.schema.actions, ["go", "stop"]);
        assert_eq!(domain.schema.exact.len(), 1);
        assert_eq!(domain.schema.outcomes[0].kind, OutcomeKind::Count);
        assert_eq!(domain.schema.outcomes[0].low, 0.0);
    });
}

#[test]
fn outcomes_become_what_they_look_like() {
    with_table("t.csv", &table(), |path| {
        let (domain, _) = round_trip(path, &request("label"));
        let names: Vec<&str> = domain.schema.outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
        assert_eq!(names, ["label_a", "label_b", "label_c"]);
        let (domain, _) = round_trip(path, &request("sick"));
        assert_eq!(domain.schema.outcomes[0].kind, OutcomeKind::Binary);
        let (domain, _) = round_trip(path, &request("size"));
        assert_eq!(domain.schema.outcomes[0].kind, OutcomeKind::Real);
        let labels = Request { labels: true, ..request("grade") };
        assert_eq!(round_trip(path, &labels).0.schema.outcomes.len(), 4);
    });
}

#[test]
fn a_draft_is_the_same_on_every_run() {
    with_table("t.csv", &table(), |path| {
        let one = draft(path, &request("result")).expect("a draft");
        let other = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("threads");
        assert_eq!(one, other.install(|| draft(path, &request("result")).expect("a draft")));
    });
}

#[test]
fn json_lines_are_drafted_too() {
    let mut text = String::new();
    for i in 0..40 {
        writeln!(text, "{{\"x\": {}.5, \"y\": {}, \"z\": {}}}", i * 7 % 11, i % 2, i % 3 == 0)
            .expect("memory");
    }
    with_table("t.ndjson", &text, |path| {
        let (domain, rows) = round_trip(path, &request("y"));
        assert_eq!((rows, domain.schema.features.len()), (40, 2));
    });
}

#[test]
fn wide_tables_are_cut_to_the_slots() {
    let columns = 90;
    let mut text: String = (0..columns).map(|c| format!("c{c},")).collect::<String>() + "y\n";
    for row in 0..50usize {
        for c in 0..columns {
            match c % 9 {
                0 => write!(text, "level{},", (row * 31 + c) % 20),
                _ => write!(text, "{}.25,", (row * 17 + c * 5) % 41),
            }
            .expect("memory");
        }
        writeln!(text, "{}", row % 2).expect("memory");
    }
    with_table("t.csv", &text, |path| {
        let (domain, _) = round_trip(path, &request("y"));
        assert!(domain.schema.layout().1 > SLOTS - 8, "slots are used");
        let hashed = |feature: &&crate::domain::Feature| matches!(feature.kind, FeatureKind::Hashed { .. });
        assert!(domain.schema.features.iter().filter(hashed).count() > 0);
        assert!(domain.text.contains("slots of a signal are taken"));
    });
}

#[test]
fn what_cannot_be_drafted_says_why() {
    let cases: [(&str, Request, &str); 8] = [
        ("", request("y"), "no rows"),
        ("x,y\n", request("y"), "no rows"),
        ("x,y\n1,2\n2,1\n", request("z"), "no column `z`"),
        ("x,y\n1,2\n2,2\n", request("y"), "fewer than two"),
        ("y\n1\n2\n", request("y"), "no column is left"),
        ("x,y\n1,2\n2\n", request("y"), "t.csv:3: 1 fields"),
        ("x,y\n1,2\n2,1\n", Request { outcomes: Vec::new(), ..request("y") }, "no outcome is named"),
        ("x,y\n1,2\n2,1\n", Request { exact: vec!["y".into()], ..request("y") }, "cannot be exact"),
    ];
    for (text, request, expected) in cases {
        let error = with_table("t.csv", text, |path| draft(path, &request).expect_err("an error"));
        assert!(error.to_string().contains(expected), "{error} does not say {expected:?}");
        assert!(!matches!(error, InitError::Draft { .. }));
    }
}

#[test]
fn the_kernel_fits_what_there_is_to_predict() {
    // Wherever x lies decides in one table, chance in the other.
    let reach = |decided: bool| {
        let mut text = "x,y\n".to_string();
        for i in 0..400u64 {
            let x = i * 7919 % 400;
            let chance = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63;
            writeln!(text, "{x}.5,{}", if decided { x / 100 % 2 } else { chance }).expect("memory");
        }
        with_table("t.csv", &text, |path| {
            let kernel: Kernel = round_trip(path, &request("y")).0.views[0].kernel.clone();
            let used = kernel.table.iter().filter(|&&weight| weight > 0).count();
            used << kernel.shift
        })
    };
    assert!(reach(true) < reach(false), "{} {}", reach(true), reach(false));
}
