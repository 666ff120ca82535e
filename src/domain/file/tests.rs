//! Golden ids, and every problem once with its line.

use super::{Domain, DomainError};
use crate::domain::view::{Decay, Kernel, Metric};
use crate::limits::{KERNEL_ENTRIES, SLOTS};
use crate::packet::Id;

/// A domain that uses every key once. Lines are counted by the tests below: add at the end.
const FULL: &str = r#"format = 1
name = "ward"
about = "a test"
[schema]
time_step = "1d"
levels = 32
cases_min = 2
exact = ["unit"]
actions = ["wait", "treat"]
[[feature]]
name = "age"
kind = "numeric"
unit = "year"
centre = 55
scale = 10.5
weight = 1.5
thermometer = [40, 50, 60]
missing = "slot"
[[feature]]
name = "unit"
kind = "categorical"
levels = ["a", "b"]
[[feature]]
name = "stage"
kind = "ordinal"
levels = ["1", "2", "3"]
missing = "refuse"
[[feature]]
name = "smoker"
kind = "boolean"
[[feature]]
name = "code"
kind = "categorical"
hashed_slots = 16
[[outcome]]
name = "death"
kind = "binary"
direction = "lower"
[[outcome]]
name = "stay"
kind = "real"
unit = "day"
range = [0, 60.0]
direction = "lower"
outside = "clip"
[[view]]
name = "default"
level = 90
finish = 1
prior = { kind = "mean", cases = 2.0 }
metric = "identity"
address = { tables = 1, bits = 0, probes = 1 }
kernel = { shift = 7, table = [4096, 2048, 1024] }
[source]
separator = ";"
missing = ["NA"]
site = "site"
[source.feature.smoker]
column = "smokes"
values = { "ja" = "true", "nein" = "false" }
[source.outcome.death]
column = "dead"
above = 0
[source.action]
columns = ["drug"]
values = { "0" = "wait", "1" = "treat" }
"#;

fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn ids_are_stable() {
    let domain = Domain::parse("ward.toml", FULL).expect("a sound domain");
    assert_eq!(hex(&domain.schema.id()), "c53f0bb480f7d5be404e48fc44aa22960b4d19c23c01380213c4275711afaaf9");
    assert_eq!(
        hex(&domain.views[0].id()),
        "e70da645b1f9159de5cee3c949b3ae550667c433a360eb43ea58b0ff117b8342"
    );
    assert_eq!(
        hex(&domain.views[0].index_id()),
        "403f7eabbe77f201ca25742bc2e643710fdff74ea3fb1682546003139d2a6b59"
    );
}

#[test]
fn what_is_not_hashed_moves_no_id() {
    let domain = Domain::parse("ward.toml", FULL).expect("a sound domain");
    let source = FULL.find("[source]").expect("a source");
    let other =
        FULL[..source].replace("about = \"a test\"", "").replace("[4096, 2048, 1024]", "[4096,2048,1024,0]");
    let other = Domain::parse("ward.toml", &other).expect("a sound domain");
    assert_eq!(domain.schema.id(), other.schema.id());
    assert_eq!(domain.views[0].id(), other.views[0].id());
}

#[test]
fn names_are_compared_in_nfc() {
    // The same name, composed and with a combining accent.
    let composed = FULL.replace("\"age\"", "\"\u{e9}ge\"");
    let combining = FULL.replace("\"age\"", "\"e\u{301}ge\"");
    let id = |text: &str| Domain::parse("ward.toml", text).expect("a sound domain").schema.id();
    assert_eq!(id(&composed), id(&combining));
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let text = "format = 1\nname = \"x\"\n[[feature]]\nname = \"a\"\nkind = \"boolean\"\n[[outcome]]\nname = \"y\"\nkind = \"binary\"\ndirection = \"neutral\"\n[[view]]\nname = \"v\"\nkernel = { table = [1] }\n";
    let domain = Domain::parse("x.toml", text).expect("a sound domain");
    assert_eq!(domain.schema.time_step_ms, 86_400_000);
    assert_eq!((domain.schema.levels, domain.schema.cases_min), (32, 1));
    assert_eq!((domain.views[0].level, domain.views[0].finish), (90, 1));
    assert_eq!(domain.views[0].decay, Decay::none());
    assert_eq!(domain.views[0].kernel.table.len(), KERNEL_ENTRIES);
    assert_eq!(domain.view(None), domain.view(Some("v")));
    assert_eq!(domain.view(Some("other")), None);
}

/// The problems of the full domain with one text replaced, as "line: message".
fn problems(from: &str, to: &str) -> Vec<String> {
    assert!(FULL.contains(from), "{from:?} is not in the domain");
    match Domain::parse("ward.toml", &FULL.replacen(from, to, 1)) {
        Ok(_) => Vec::new(),
        Err(error) => {
            error.problems().iter().map(|problem| format!("{}: {}", problem.line, problem.message)).collect()
        }
    }
}

#[test]
fn every_problem_is_named_with_its_line() {
    let long = format!("[{}]", "1, ".repeat(KERNEL_ENTRIES + 1));
    let full = format!("[{}]", "1, ".repeat(KERNEL_ENTRIES));
    let many =
        (0..17).map(|i| format!("[[outcome]]\nname = \"o{i}\"\nkind = \"binary\"\ndirection = \"lower\"\n"));
    let many = many.collect::<String>() + "[[view]]";
    let cases: &[(&str, &str, usize, &str)] = &[
        ("format = 1", "format = 2", 1, "format 2 is not known"),
        ("format = 1\n", "", 1, "no `format`"),
        ("name = \"ward\"", "name = \"ward", 2, "not TOML"),
        ("name = \"ward\"\n", "", 1, "no `name`"),
        ("name = \"ward\"", "name = 3", 2, "is an integer, not a string"),
        ("about", "abuot", 3, "unknown key `abuot`"),
        ("cases_min = 2", "cases_min = 0", 7, "`cases_min` of [schema] is out of range"),
        ("time_step = \"1d\"", "time_step = \"1 month\"", 5, "is no duration"),
        ("time_step = \"1d\"", "time_step = 0", 5, "out of range"),
        ("levels = 32", "levels = 31", 6, "is odd"),
        ("levels = 32", "levels = 258", 6, "out of range"),
        ("levels = 32", "levels = \"32\"", 6, "is a string, not an integer"),
        ("exact = [\"unit\"]", "exact = [\"units\"]", 8, "which is no feature"),
        ("exact = [\"unit\"]", "exact = [\"age\"]", 8, "which is numeric"),
        ("exact = [\"unit\"]", "exact = [\"unit\", \"unit\"]", 8, "twice"),
        ("\"wait\", \"treat\"]", "\"wait\", \"treat\", \"wait\"]", 9, "two actions are named"),
        ("levels = 32", "levels = 32\ncurator = \"12\"", 7, "`curator` is no key"),
        ("name = \"age\"\n", "", 10, "has no `name`"),
        ("name = \"age\"", "name = \"code\"", 32, "two features are named \"code\""),
        ("kind = \"numeric\"", "kind = \"number\"", 12, "unknown `kind`"),
        ("kind = \"numeric\"\n", "", 10, "has no `kind`"),
        ("kind = \"boolean\"", "kind = \"text\"", 30, "not supported by this version"),
        ("kind = \"boolean\"", "kind = \"vector\"", 30, "not supported by this version"),
        ("centre = 55", "centre = nan", 14, "is not finite"),
        ("centre = 55\n", "", 10, "has no `centre`"),
        ("scale = 10.5", "scale = 0", 15, "is not positive"),
        ("weight = 1.5", "weight = inf", 16, "is not finite"),
        ("weight = 1.5", "weight = -1", 16, "is negative"),
        ("thermometer = [40, 50, 60]", "thermometer = [40, 60, 50]", 17, "does not ascend"),
        ("missing = \"slot\"", "missing = \"skip\"", 18, "unknown `missing`"),
        ("levels = [\"a\", \"b\"]", "levels = []", 22, "is empty"),
        ("levels = [\"a\", \"b\"]", "levels = [\"a\", \"a\"]", 22, "twice"),
        ("levels = [\"1\", \"2\", \"3\"]", "levels = [\"1\", \"1.0\"]", 26, "twice"),
        ("levels = [\"a\", \"b\"]", "levels = [\"a\", \" b\"]", 22, "blank"),
        ("kind = \"boolean\"", "kind = \"boolean\"\ncentre = 1", 31, "does not belong to the kind"),
        ("hashed_slots = 16", "hashed_slots = 0", 34, "out of range"),
        ("hashed_slots = 16", "hashed_slots = 128", 31, "a signal has 128"),
        ("range = [0, 60.0]", "range = [60, 0]", 43, "is empty"),
        ("range = [0, 60.0]", "range = [60]", 43, "has not two ends"),
        ("range = [0, 60.0]\n", "", 39, "has no `range`"),
        ("direction = \"lower\"\n", "", 35, "has no `direction`"),
        ("[[view]]", &many, 102, "19 outcomes"),
        (
            "[source]\n",
            "[[view]]\nname = \"default\"\nkernel = { table = [1] }\n[source]\n",
            55,
            "two views are named",
        ),
        ("level = 90", "level = 100", 48, "out of range"),
        ("finish = 1", "finish = 9", 49, "is not known to this program"),
        ("cases = 2.0", "cases = -1", 50, "is negative"),
        ("\"identity\"", "\"full\"", 51, "unknown `metric`"),
        ("\"identity\"", "{ diagonal = [1, 2], shift = 0 }", 51, "has 2 weights"),
        ("\"identity\"", "{ full = \"00\", shift = 0 }", 51, "128 x 128"),
        ("\"identity\"", "{ full = [[1]], shift = 0 }", 51, "128 weights"),
        ("\"identity\"", "{ shift = 0 }", 51, "one of `diagonal` and `full`"),
        ("bits = 0", "bits = 200, tables = 2", 52, "not TOML"),
        ("tables = 1, bits = 0", "tables = 3, bits = 100", 52, "3 tables of 100 bits"),
        ("tables = 1, bits = 0", "tables = 2, bits = 0", 52, "bits = 0 is one mailbox"),
        ("probes = 1", "probes = 0", 52, "out of range"),
        ("[4096, 2048, 1024]", "[4097]", 53, "out of range"),
        ("[4096, 2048, 1024]", "[0, 0]", 53, "zero everywhere"),
        ("[4096, 2048, 1024]", &long, 53, "1025 entries"),
        ("[4096, 2048, 1024]", &full, 53, "does not end with 0"),
        ("level = 90", "decay = { half_life = \"30d\" }", 48, "has no `table`"),
        ("level = 90", "decay = { half_life = 0, table = [1] }", 48, "half_life is 0"),
        ("separator = \";\"", "separator = \";;\"", 55, "`separator`"),
        ("[source.feature.smoker]", "[source.feature.smokr]", 58, "which is no feature"),
        ("\"ja\" = \"true\"", "\"ja\" = \"yes\"", 60, "is not known"),
        ("[source.outcome.death]", "[source.outcome.stay]", 63, "make a binary outcome"),
        ("above = 0", "above = 0\nequals = \"1\"", 64, "both `above` and `equals`"),
        ("\"1\" = \"treat\"", "\"1\" = \"treet\"", 66, "is not known"),
        ("actions = [\"wait\", \"treat\"]\n", "", 63, "the schema has none"),
    ];
    let mut wrong = Vec::new();
    for (from, to, line, message) in cases {
        let found = problems(from, to);
        let expected =
            |problem: &String| problem.starts_with(&format!("{line}: ")) && problem.contains(message);
        if !found.iter().any(expected) {
            wrong.push(format!("{from:?} -> {to:.80?}: {line}: {message:?} not in {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_problems_come_at_once_in_file_order() {
    let text = FULL
        .replace("levels = 32", "levels = 31")
        .replace("scale = 10.5", "scale = -1")
        .replace("level = 90", "levle = 90")
        .replace("range = [0, 60.0]", "range = [1, 1]");
    let error = Domain::parse("ward.toml", &text).expect_err("four problems");
    let lines: Vec<usize> = error.problems().iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [6, 15, 43, 48]);
    assert!(error.problems()[3].help.as_deref() == Some("did you mean `level`?"));
    assert_eq!(error.problems()[1].column, 9);
    let shown = format!("{:?}", miette::Report::new(error));
    for part in ["ward.toml", "levels = 31", "scale = -1", "range = [1, 1]", "levle"] {
        assert!(shown.contains(part), "{part:?} is not shown in\n{shown}");
    }
}

#[test]
fn too_many_slots_say_who_takes_them() {
    let text = FULL.replace("hashed_slots = 16", "hashed_slots = 128");
    let error = Domain::parse("ward.toml", &text).expect_err("too many slots");
    let help = error.problems()[0].help.clone().expect("a remedy");
    assert!(help.starts_with("slots per feature: code 129, age 5, "), "{help}");
}

#[test]
fn bytes_that_are_no_text_and_large_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.toml");
    assert!(matches!(Domain::load(&path), Err(DomainError::Read { .. })));
    std::fs::write(&path, b"format = 1\n\xFF").expect("a file");
    assert!(matches!(Domain::load(&path), Err(DomainError::NotUtf8 { byte: 11, .. })));
    let large = vec![b'#'; crate::limits::DOMAIN_FILE_BYTES_MAX as usize + 1];
    std::fs::write(&path, large).expect("a file");
    assert!(matches!(Domain::load(&path), Err(DomainError::TooLarge { .. })));
}

#[test]
fn metrics_are_read_in_every_form() {
    let metric = |text: &str| {
        let text = FULL.replace("\"identity\"", text);
        Domain::parse("ward.toml", &text).expect("a sound metric").views[0].metric.clone()
    };
    // Its features take 5 + 2 + 2 + 17 slots; unit is exact.
    let weights = "3, ".repeat(26);
    match metric(&format!("{{ shift = 5, diagonal = [{weights}] }}")) {
        Metric::Diagonal { shift: 5, weights } => {
            assert_eq!(weights.len(), SLOTS);
            assert_eq!(weights[..26], [3; 26]);
            assert_eq!(weights[26..], [0; 102]);
        }
        other => panic!("{other:?}"),
    }
    let hex = "ff".repeat(SLOTS * SLOTS);
    let row = format!("[{}], ", "-1, ".repeat(SLOTS));
    let rows = row.repeat(SLOTS);
    let of_hex = metric(&format!("{{ shift = 7, full = \"{hex}\" }}"));
    assert_eq!(of_hex, metric(&format!("{{ shift = 7, full = [{rows}] }}")));
    assert_eq!(of_hex, Metric::Full { shift: 7, matrix: vec![-1; SLOTS * SLOTS] });
}

#[test]
fn written_tables_are_read_back() {
    for bandwidth in [1.0, 8.0, 46.0, 300.0, 2_000.0] {
        let kernel = Kernel::gaussian(bandwidth);
        let decay = Decay::exponential(86_400_000);
        let text = FULL.replace(
            "kernel = { shift = 7, table = [4096, 2048, 1024] }\n",
            &(kernel.to_toml() + &decay.to_toml()),
        );
        let domain = Domain::parse("ward.toml", &text).expect("a sound domain");
        assert_eq!(domain.views[0].kernel, kernel, "bandwidth {bandwidth}");
        assert_eq!(domain.views[0].decay, decay);
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}", cut in 0usize..1_600) {
        let _ = Domain::parse("any.toml", &text);
        let cut = cut.min(FULL.len());
        let _ = Domain::parse("any.toml", &FULL[..cut]);
        let _ = Domain::parse("any.toml", &format!("{}{text}{}", &FULL[..cut], &FULL[cut..]));
    }
}
