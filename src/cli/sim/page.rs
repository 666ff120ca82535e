//! The page of `qis sim loop --report`.

use super::learning::{DIFFERENCE_HEADER, Found, GROWTH_HEADER, difference_cells, growth_cells, month_cells};
use crate::cli::{Failure, data};
use crate::eval::report::{Line, Plot};
use crate::run::files::{Readers, replace};
use crate::sim::learning::{Contestant, Month, Size};
use std::path::Path;

/// Writes the page in one piece: there is the old one or the new one, whatever happens.
pub fn write(path: &Path, found: &Found) -> Result<(), Failure> {
    replace(path, html(found).as_bytes(), Readers::All).map_err(|e| data::io(path, e))
}

fn html(found: &Found) -> String {
    let lines = |value: &dyn Fn(&Month) -> f64| -> Vec<Line> {
        let one = |contestant: Contestant| {
            let months = (1..=found.plan.months).filter_map(|month| found.summary.month(contestant, month));
            (contestant.name().to_string(), months.map(|row| (row.month as f64, value(row))).collect())
        };
        Contestant::ALL.map(one).to_vec()
    };
    let over_months = |title: &str, y: &str, lines: Vec<Line>| {
        Plot { title, x: "month", y, logarithmic: false, diagonal: false, lines: &lines }.figure()
    };
    let mut figures = vec![
        over_months("Regret", "regret per case", lines(&|row| row.regret)),
        over_months("Cumulative regret", "regret per node so far", lines(&|row| row.cumulative)),
    ];
    if !found.sizes.is_empty() {
        figures.push(growth_figure(&found.sizes));
    }
    let months = table(
        &["month"].into_iter().chain(Contestant::ALL.map(Contestant::name)).collect::<Vec<_>>(),
        &month_cells(found),
    );
    let differences: Vec<Vec<String>> = difference_cells(&found.summary).map_rows();
    let growth: Vec<Vec<String>> = growth_cells(&found.sizes).map_rows();
    let paragraphs =
        |lines: Vec<String>| lines.iter().map(|line| format!("<p>{line}</p>")).collect::<String>();
    let growth = match found.sizes.is_empty() {
        true => String::new(),
        false => format!(
            "<h2>What grows how fast</h2>{}{}",
            table(&GROWTH_HEADER, &growth),
            paragraphs(found.growth_sentences())
        ),
    };
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>QIS: nodes that learn</title><style>\
         body{{font:16px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#222}}\
         table{{border-collapse:collapse}}td,th{{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}}\
         td:first-child,th:first-child{{text-align:left}}.plots{{display:flex;flex-wrap:wrap;gap:1em}}\
         figure{{margin:0}}figcaption{{padding-left:64px;font-size:13px}}\
         </style></head><body><h1>Nodes that act and learn: world of {world}</h1>\
         <p>{nodes} nodes with {cases} cases a week each over {months} months of four weeks, {seeds} seeds; all contestants met \
         the same situations with the same luck. Regret is the benefit of the best action minus that of the chosen \
         one, from the known truth.</p><div class=\"plots\">{figures}</div>\
         <h2>Regret per case, thousandths</h2>{month_table}<h2>Differences, in pairs by seed</h2>{difference_table}\
         {events}{growth}</body></html>\n",
        world = found.plan.rules.world.name(),
        nodes = found.plan.nodes,
        cases = found.plan.cases,
        months = found.plan.months,
        seeds = found.seeds,
        figures = figures.concat(),
        month_table = months,
        difference_table = table(&DIFFERENCE_HEADER, &differences),
        events = paragraphs(found.events()),
    )
}

/// One figure of a size.
type Pick = fn(&Size) -> f64;

/// Everything that grows in one picture, information as effective cases: log2 of each figure over that of the smallest number of nodes for which
/// it is above zero.
fn growth_figure(sizes: &[Size]) -> String {
    let figures: [(&str, Pick); 6] = [
        ("pairs", |size| size.pairs as f64),
        ("pairs at one address", |size| size.pairs_sharing),
        ("effective cases", |size| size.effective_cases),
        ("error", |size| size.error),
        ("bytes", |size| size.bytes),
        ("hops", |size| size.hops),
    ];
    let one = |(name, pick): (&str, Pick)| {
        let shown: Vec<&Size> = sizes.iter().filter(|size| pick(size) > 0.0).collect();
        let first = shown.first().map_or(1.0, |size| pick(size));
        (name.to_string(), shown.iter().map(|s| (s.nodes as f64, libm::log2(pick(s) / first))).collect())
    };
    let lines: Vec<Line> = figures.into_iter().map(one).collect();
    Plot {
        title: "What grows how fast",
        x: "nodes",
        y: "doublings since the first point",
        logarithmic: true,
        diagonal: false,
        lines: &lines,
    }
    .figure()
}

/// Rows of a fixed width as rows of any.
trait Rows {
    fn map_rows(self) -> Vec<Vec<String>>;
}

impl<const N: usize> Rows for Vec<[String; N]> {
    fn map_rows(self) -> Vec<Vec<String>> {
        self.into_iter().map(Vec::from).collect()
    }
}

fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |cells: &[String], tag: &str| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{cell}</{tag}>")).collect();
        format!("<tr>{cells}</tr>")
    };
    let header: Vec<String> = header.iter().map(|&name| name.to_string()).collect();
    let rows: String = rows.iter().map(|row| cells(row, "td")).collect();
    format!("<table>{}{rows}</table>", cells(&header, "th"))
}
