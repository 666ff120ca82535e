//! One HTML page that says what an evaluation found: tables and plots, nothing loaded from elsewhere.

mod plot;

pub use plot::{Line, Plot};

use super::coverage::groups;
use super::statistics::mean;
use std::fmt::Write;

/// A table with a heading; cells are text.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub heading: String,
    /// What the numbers are.
    pub about: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Everything on the page.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub title: String,
    /// One paragraph each.
    pub about: Vec<String>,
    pub tables: Vec<Table>,
    /// Quality over the number of nodes, by method, and its name.
    pub curve: Vec<Line>,
    pub measure: String,
    /// (estimate, what came) of the swarm's test rows: probability and 0 or 1, or values in `unit`.
    pub reliability: Vec<(f64, f64)>,
    pub unit: String,
    /// (nominal level, share covered), by view.
    pub levels: Vec<Line>,
    /// Quality over the share of scrambled slots.
    pub scramble: Vec<Line>,
    /// Shares of the verdicts over the share of scrambled slots.
    pub verdicts: Vec<Line>,
}

/// The self-contained page.
pub fn html(report: &Report) -> String {
    let means = |group: &Vec<(f64, f64)>| {
        let of = |pick: fn(&(f64, f64)) -> f64| mean(&group.iter().map(pick).collect::<Vec<_>>());
        Some((of(|pair| pair.0)?, of(|pair| pair.1)?))
    };
    let tenths: Vec<(f64, f64)> =
        groups(&report.reliability, |pair| pair.0).iter().filter_map(means).collect();
    let reliability = [("swarm".to_string(), tenths)];
    let unit = if report.unit.is_empty() { "probability" } else { &report.unit };
    let plots = [
        Plot {
            title: &format!("{} against nodes", report.measure),
            x: "nodes",
            y: &report.measure,
            logarithmic: true,
            diagonal: false,
            lines: &report.curve,
        }
        .figure(),
        Plot {
            title: "Said and seen, by tenths of the estimate",
            x: &format!("estimate [{unit}]"),
            y: &format!("seen [{unit}]"),
            logarithmic: false,
            diagonal: true,
            lines: &reliability,
        }
        .figure(),
        Plot {
            title: "Coverage of intervals",
            x: "level asked for",
            y: "share covered",
            logarithmic: false,
            diagonal: true,
            lines: &report.levels,
        }
        .figure(),
        Plot {
            title: &format!("{} with slots scrambled", report.measure),
            x: "share of slots scrambled",
            y: &report.measure,
            logarithmic: false,
            diagonal: false,
            lines: &report.scramble,
        }
        .figure(),
        Plot {
            title: "Verdicts with slots scrambled",
            x: "share of slots scrambled",
            y: "share of answers",
            logarithmic: false,
            diagonal: false,
            lines: &report.verdicts,
        }
        .figure(),
    ];
    let about: String = report.about.iter().fold(String::new(), |mut text, paragraph| {
        let _ = write!(text, "<p>{}</p>", escape(paragraph));
        text
    });
    let tables: String = report.tables.iter().map(table).collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>\
         body{{font:16px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#222}}\
         table{{border-collapse:collapse}}td,th{{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}}\
         td:first-child,th:first-child{{text-align:left}}.plots{{display:flex;flex-wrap:wrap;gap:1em}}\
         figure{{margin:0}}figcaption{{padding-left:64px;font-size:13px}}\
         </style></head><body><h1>{title}</h1>{about}{tables}<div class=\"plots\">{plots}</div></body></html>\n",
        title = escape(&report.title),
        plots = plots.concat(),
    )
}

fn table(table: &Table) -> String {
    let row = |cells: &[String], tag: &str| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>")
    };
    format!(
        "<h2>{}</h2><p>{}</p><table>{}{}</table>",
        escape(&table.heading),
        escape(&table.about),
        row(&table.header, "th"),
        table.rows.iter().map(|cells| row(cells, "td")).collect::<String>(),
    )
}

/// Text that is nothing but text in HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_only_text() {
        let page = html(&Report { title: "<script>x</script>".into(), ..Report::default() });
        assert!(!page.contains("<script") && page.contains("&lt;script"));
    }
}
