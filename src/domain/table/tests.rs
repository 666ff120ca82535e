//! Good tables in every form, and bad ones with file, line and column.

use super::{Purpose, Row, Table, TableError};
use crate::domain::{Domain, Value};
use crate::limits::RECORD_BYTES_MAX;
use std::io::{Cursor, Read, Write};

const DOMAIN: &str = r#"format = 1
name = "ward"
[schema]
actions = ["wait", "treat both"]
[[feature]]
name = "age"
kind = "numeric"
centre = 50
scale = 10
[[feature]]
name = "grade"
kind = "categorical"
levels = ["1", "2", "hoch\u00E9"]
missing = "refuse"
[[outcome]]
name = "dead"
kind = "binary"
direction = "lower"
[[outcome]]
name = "days"
kind = "real"
range = [0, 10]
direction = "lower"
outside = "clip"
[[view]]
name = "default"
kernel = { table = [1] }
[source]
missing = ["?"]
site = "ward"
record = "key"
time = "seen"
[source.feature.age]
missing = ["0"]
[source.outcome.dead]
column = "state"
above = 1
[source.action]
columns = ["a", "b"]
[source.action.values]
"Y/Y" = "treat both"
"N/N" = "wait"
"#;

const HEADER: &str = "age,grade,state,days,ward,key,seen,a,b\n";

fn domain() -> Domain {
    Domain::parse("ward.toml", DOMAIN).expect("a sound domain")
}

fn open(file: &str, bytes: impl Into<Vec<u8>>, purpose: Purpose) -> Result<Table, TableError> {
    Table::from_bytes(file, Box::new(Cursor::new(bytes.into())), &domain(), purpose)
}

fn rows(text: &str) -> Vec<Result<Row, TableError>> {
    open("t.csv", text, Purpose::Evidence).expect("a table").collect()
}

/// The first error of a table, in words.
fn error(text: &str) -> String {
    match open("t.csv", text, Purpose::Evidence) {
        Err(error) => error.to_string(),
        Ok(table) => table.into_iter().find_map(Result::err).expect("an error").to_string(),
    }
}

fn row() -> Row {
    Row {
        number: 1,
        line: 2,
        values: vec![Value::Number(61.5), Value::Level(1)],
        outcomes: vec![Some(65_535), Some(16_384)],
        outcome_numbers: vec![Some(1.0), Some(2.5)],
        action: Some(1),
        site: Some("w1".into()),
        content: (0, 0),
        record: Some("r1".into()),
        time_ms: Some(951_782_400_000),
    }
}

const LINE: &str = "61.5,2.0,3,2.5,w1,r1,2000-02-29,Y,Y\n";

#[test]
fn one_row_in_every_form() {
    let plain = format!("{HEADER}{LINE}");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(plain.as_bytes()).expect("memory");
    let gzip = gzip.finish().expect("memory");
    let json = r#"{"age": 61.5, "grade": "2", "state": 3, "days": 2.5, "ward": "w1", "key": "r1",
        "seen": "2000-02-29", "a": "Y", "b": "Y", "more": [1]}"#;
    let json = json.replace('\n', " ") + "\n";
    let forms: Vec<(&str, Vec<u8>, u64)> = vec![
        ("t.csv", plain.clone().into(), 2),
        ("t.csv", plain.replace('\n', "\r\n").into(), 2),
        ("t.csv", format!("\u{feff}{plain}").into(), 2),
        ("t.csv", plain.trim_end().into(), 2),
        ("t.csv", plain.replace(',', ";").into(), 2),
        ("t.txt", plain.replace(',', "\t").into(), 2),
        ("t.tsv", plain.replace(',', "\t").into(), 2),
        ("t.txt", plain.replace(',', "  ").into(), 2),
        ("t.txt", plain.replace(',', " ").replace("w1", "\"w1\"").into(), 2),
        ("t.csv", plain.replace("61.5", "\" 61.5 \"").into(), 2),
        ("t.csv.gz", gzip.clone(), 2),
        ("t", gzip, 2),
        ("t.ndjson", json.clone().into(), 1),
        ("standard input", json.into(), 1),
    ];
    for (file, bytes, line) in forms {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let found: Vec<Row> = open(file, bytes, Purpose::Evidence)
            .and_then(Iterator::collect)
            .unwrap_or_else(|error| panic!("{file}: {error}\n{shown}"));
        assert_eq!(found, [Row { line, ..row() }], "{file}\n{shown}");
    }
}

#[test]
fn a_table_without_a_header_line_takes_the_names_of_the_domain() {
    let mut domain = domain();
    domain.source.header = HEADER.trim().split(',').map(String::from).collect();
    let table = Table::from_bytes("t.csv", Box::new(Cursor::new(LINE)), &domain, Purpose::Evidence);
    let found: Vec<Row> = table.and_then(Iterator::collect).expect("a row");
    assert_eq!(found, [Row { line: 1, ..row() }]);
}

#[test]
fn missing_values_become_missing() {
    let found = rows(&format!("{HEADER}0.0,1,?,,?,,,,\n?,2,2,?,w,k,?,?,\n"));
    let first = found[0].as_ref().expect("a row");
    assert_eq!(first.values, [Value::Missing, Value::Level(0)]);
    assert_eq!((&first.outcomes[..], first.action), (&[None, None][..], None));
    assert_eq!((&first.site, &first.record, first.time_ms), (&None, &None, None));
    assert!(first.record_key().ends_with("/0"), "the first row that says so: {}", first.record_key());
    let second = found[1].as_ref().expect("a row");
    assert_eq!(second.values[0], Value::Missing);
    assert_eq!(second.outcome_numbers, [Some(1.0), None]);
}

#[test]
fn spellings_in_another_normal_form_are_the_same_level() {
    let found = rows(&format!("{HEADER}1,hoche\u{301},1,1,w,k,0,N,N\n"));
    assert_eq!(found[0].as_ref().expect("a row").values[1], Value::Level(2));
}

#[test]
fn values_outside_the_range_are_clipped_and_counted() {
    let mut table =
        open("t.csv", format!("{HEADER}1,1,1,99,w,k,0,N,N\n"), Purpose::Evidence).expect("a table");
    let row = table.next().expect("a row").expect("a sound row");
    assert_eq!((row.outcomes[1], row.outcome_numbers[1]), (Some(65_535), Some(99.0)));
    assert_eq!(table.clipped(), [0, 1]);
}

#[test]
fn questions_need_only_the_features() {
    let found: Vec<Row> = open("q.csv", "grade,age\n2,61.5\n", Purpose::Questions)
        .and_then(Iterator::collect)
        .expect("a question");
    assert_eq!(found[0].values, row().values);
    assert_eq!((&found[0].outcomes[..], found[0].action), (&[None, None][..], None));
    let error = open("q.csv", "grade\n2\n", Purpose::Questions).err().expect("no age").to_string();
    assert_eq!(error, "q.csv:1: missing column `age` (feature \"age\")");
}

#[test]
fn bad_tables_name_file_line_and_column() {
    let with = |line: &str| format!("{HEADER}{LINE}{line}\n");
    let cases = [
        (String::new(), "t.csv: the table has no rows"),
        (HEADER.into(), "t.csv: the table has no rows"),
        (
            "age,b\n1,2\n".into(),
            "t.csv:1: missing column `grade` (feature \"grade\"), column `state` (outcome \"dead\"), column `days`",
        ),
        (HEADER.replace("key", "age") + LINE, "t.csv:1: two columns are named `age`"),
        (with("old,2,3,2.5,w1,r1,0,Y,Y"), "t.csv:3: column `age`: \"old\" is not a number"),
        (with("inf,2,3,2.5,w1,r1,0,Y,Y"), "t.csv:3: column `age`: \"inf\" is not a number"),
        (with("1,9,3,2.5,w1,r1,0,Y,Y"), "t.csv:3: column `grade`: \"9\" is not one of the levels 1, 2"),
        (with("1,,3,2.5,w1,r1,0,Y,Y"), "t.csv:3: column `grade` is missing"),
        (with("1,1,yes,2.5,w1,r1,0,Y,Y"), "t.csv:3: column `state`: `dead`: \"yes\" is not a number"),
        (
            with("1,1,1,2.5,w1,r1,0,Y,N"),
            "t.csv:3: column `a/b`: \"Y/N\" is not one of the actions wait, treat both",
        ),
        (with("1,1,1,2.5,w1,r1,soon,Y,Y"), "t.csv:3: column `seen`: \"soon\" is no time"),
        (with("1,1,1"), "t.csv:3: 3 fields, where the table has 9 columns"),
        (with("1,1,1,2.5,w1,r1,0,Y,Y,Y"), "t.csv:3: 10 fields, where the table has 9 columns"),
    ];
    for (text, expected) in cases {
        let found = error(&text);
        assert!(found.starts_with(expected), "{found:?} does not start with {expected:?}");
    }
}

#[test]
fn bytes_that_are_no_text_name_their_column() {
    let mut bytes = format!("{HEADER}{LINE}1,").into_bytes();
    bytes.extend(b"\xFF,3,2.5,w1,r1,0,Y,Y\n");
    let found = open("t.csv", bytes, Purpose::Evidence).expect("a table").find_map(Result::err);
    assert_eq!(found.expect("an error").to_string(), "t.csv:3: column `grade` is not UTF-8");
    let utf16 = open("t.csv", b"\xFF\xFEa\0".to_vec(), Purpose::Evidence).err().expect("an error");
    assert!(matches!(utf16, TableError::Encoding { .. }));
}

#[test]
fn reading_goes_on_after_a_bad_row() {
    let found = rows(&format!("{HEADER}x,1,1,1,w,k,0,N,N\n{LINE}1,1\n{LINE}"));
    let numbers: Vec<Option<u64>> = found.iter().map(|row| row.as_ref().ok().map(|row| row.number)).collect();
    assert_eq!(numbers, [None, Some(2), None, Some(4)]);
    assert!(found.iter().filter_map(|row| row.as_ref().err()).all(TableError::is_of_one_row));
}

#[test]
fn lines_count_what_is_inside_of_quotes_and_empty_ones() {
    let found = rows(&format!("{HEADER}{}\n{LINE}", LINE.replace("w1", "\"w\n1\"")));
    let lines: Vec<u64> = found.iter().map(|row| row.as_ref().expect("a row").line).collect();
    assert_eq!(lines, [2, 5]);
}

/// Endless bytes without a line end; it counts what was taken.
struct Endless(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(b'x');
        self.0.fetch_add(buffer.len(), std::sync::atomic::Ordering::Relaxed);
        Ok(buffer.len())
    }
}

#[test]
fn a_record_without_an_end_is_refused_in_bounded_memory() {
    for (file, start) in [("t.csv", format!("{HEADER}{LINE}\"")), ("t.ndjson", "{}\n".to_string())] {
        let taken = std::sync::Arc::default();
        let bytes = Cursor::new(start.clone()).chain(Endless(std::sync::Arc::clone(&taken)));
        let table = Table::from_bytes(file, Box::new(bytes), &domain(), Purpose::Evidence).expect("a header");
        let last = table.last().expect("an error").expect_err("an error");
        let line = start.lines().count() as u64 + u64::from(file == "t.ndjson");
        assert!(matches!(last, TableError::RecordTooLong { line: l, .. } if l == line), "{last}");
        let taken = taken.load(std::sync::atomic::Ordering::Relaxed);
        assert!(taken <= RECORD_BYTES_MAX + (1 << 18), "{taken} bytes read");
    }
}

#[test]
fn the_longest_record_is_read() {
    let filling = RECORD_BYTES_MAX - 200;
    let text = format!("{HEADER}{}{LINE}", LINE.replace("w1", &"w".repeat(filling)));
    let found = rows(&text);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].as_ref().expect("a row").site.as_ref().map(String::len), Some(filling));
}

#[test]
fn damaged_gzip_is_an_error() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(format!("{HEADER}{}", LINE.repeat(5_000)).as_bytes()).expect("memory");
    let mut bytes = gzip.finish().expect("memory");
    bytes.truncate(bytes.len() / 2);
    let last = open("t.csv.gz", bytes, Purpose::Evidence).expect("a header").last().expect("an item");
    assert!(matches!(last, Err(TableError::Read { .. })), "{last:?}");
}

#[test]
fn json_lines_without_a_column_say_so_at_the_end() {
    let text = "{\"age\": 1, \"grade\": 1}\n\n{\"age\": null, \"grade\": 2}\n";
    let mut table = open("t.ndjson", text, Purpose::Evidence).expect("a table");
    assert_eq!(table.next().expect("a row").expect("a row").line, 1);
    assert_eq!(table.next().expect("a row").expect("a row").line, 3);
    let error = table.next().expect("an error").expect_err("an error").to_string();
    assert!(error.contains("column `state`") && error.contains("column `b`"), "{error}");
    let error = open("t.ndjson", "[1]\n", Purpose::Evidence).expect("a table").next().expect("an item");
    assert!(matches!(error, Err(TableError::Json { line: 1, .. })));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), named in 0usize..3) {
        let file = ["t.csv", "t.txt", "t.ndjson"][named];
        let mut with_header = HEADER.as_bytes().to_vec();
        with_header.extend(&bytes);
        for bytes in [bytes, with_header] {
            if let Ok(table) = open(file, bytes, Purpose::Evidence) {
                table.take(1_000).for_each(drop);
            }
        }
    }
}

/// Another day's table is new evidence; the same rows again, in whatever order, are not.
#[test]
fn a_record_without_a_key_is_what_its_row_says() {
    let mut domain = domain();
    domain.source.record = None;
    let keys = |lines: &[&str]| -> Vec<String> {
        let text = format!("{HEADER}{}\n", lines.join("\n"));
        let table =
            Table::from_bytes("t.csv", Box::new(Cursor::new(text.into_bytes())), &domain, Purpose::Evidence);
        table
            .and_then(Iterator::collect::<Result<Vec<Row>, _>>)
            .expect("rows")
            .iter()
            .map(Row::record_key)
            .collect()
    };
    let (one, other) = ("1.0,1,1,,w,k,,,", "2.0,1,1,,w,k,,,");
    let both = keys(&[one, other]);
    assert_ne!(both[0], both[1]);
    assert_eq!(keys(&[other, one]), [both[1].clone(), both[0].clone()]);
    assert_eq!(keys(&[other]), both[1..]);
    let twice = keys(&[one, one]);
    assert_eq!(twice[0], both[0]);
    assert_ne!(twice[0], twice[1], "a row that the table repeats is another record");
}
