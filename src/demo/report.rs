//! What the demo leaves behind: `report.json` for programs, `report.html` for people.

use plotters::prelude::*;
use serde::Serialize;
use std::fmt::Write;

/// One size of the swarm.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pub nodes: usize,
    /// N (N - 1) / 2 pairs of nodes that learn from each other.
    pub pathways: usize,
    /// Packets that the nodes had pulled by the end of the step.
    pub packets: u64,
    /// Bytes that these pulls brought over QUIC.
    pub bytes: u64,
    /// Quality of a node alone, of the swarm, and of all packets pooled in one place.
    pub local: Option<f64>,
    pub swarm: Option<f64>,
    pub pooled: Option<f64>,
    /// Packets in the mailboxes asked.
    pub mailbox: u64,
    /// Milliseconds of the step, summed over its nodes.
    pub distil_ms: f64,
    pub deposit_ms: f64,
    pub pull_ms: f64,
    pub synthesise_ms: f64,
}

/// What one node, whose packets one author signs, gave to the swarm and took from it.
#[derive(Clone, Debug, Serialize)]
pub struct Participant {
    pub node: usize,
    /// Key of the author, hexadecimal.
    pub author: String,
    /// Packets acknowledged, once for each mailbox that they lie in.
    pub deposited: u64,
    /// Questions: reads of a mailbox that were begun.
    pub asked: u64,
    /// Packets that the questions brought.
    pub pulled: u64,
    /// `None` where nothing was asked.
    pub deposits_per_ask: Option<f64>,
}

/// Answers before and after nodes were killed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct AfterKill {
    pub killed: usize,
    pub asked: usize,
    pub answered: usize,
    /// Answers equal to the bit to those before.
    pub equal: usize,
}

/// One case with what the swarm said of it.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    pub row: u64,
    pub truth: String,
    pub answer: String,
    pub verdict: &'static str,
    pub packets: u64,
    pub authors: u64,
    /// A square picture, 0..=1 per pixel, where the signal is one.
    #[serde(skip)]
    pub picture: Option<Vec<f64>>,
}

/// Everything that the demo measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub data: String,
    /// What `local`, `swarm` and `pooled` count: accuracy, AUC or RMSE.
    pub measure: &'static str,
    pub backend: String,
    pub seconds: f64,
    pub steps: Vec<Step>,
    /// Packets in one mailbox before and after a new outcome was deposited.
    pub mailbox_before: u64,
    pub mailbox_after: u64,
    /// By node, from the start until nodes were killed.
    pub participation: Vec<Participant>,
    pub after_kill: AfterKill,
    pub examples: Vec<Example>,
}

const SIZE: (u32, u32) = (560, 320);

/// A line of a plot: name, colour, points.
type Line<'a> = (&'a str, RGBColor, Vec<(f64, f64)>);

/// The self-contained page.
pub fn html(report: &Report) -> String {
    let over_nodes = |value: fn(&Step) -> Option<f64>| -> Vec<(f64, f64)> {
        report.steps.iter().filter_map(|step| Some((step.nodes as f64, value(step)?))).collect()
    };
    let quality = plot(
        &format!("{} against nodes", report.measure),
        &[
            // Drawn first and wide: the swarm's line lies on it where nothing was lost on the way.
            ("pooled in one place", RGBColor(150, 220, 150), over_nodes(|step| step.pooled)),
            ("swarm", BLUE, over_nodes(|step| step.swarm)),
            ("node alone", RED, over_nodes(|step| step.local)),
        ],
    );
    let pathways = plot("pathways N(N-1)/2", &[("pathways", BLUE, over_nodes(|s| Some(s.pathways as f64)))]);
    let bytes =
        plot("KiB pulled over QUIC", &[("KiB", BLUE, over_nodes(|step| Some(step.bytes as f64 / 1024.0)))]);
    let per_node = |value: fn(&Step) -> f64| {
        report.steps.iter().map(|step| (step.nodes as f64, value(step) / step.nodes as f64)).collect()
    };
    let times = plot(
        "milliseconds per node and step",
        &[
            ("distil", GREEN, per_node(|step| step.distil_ms)),
            ("deposit", RED, per_node(|step| step.deposit_ms)),
            ("pull", BLUE, per_node(|step| step.pull_ms)),
            ("synthesise", BLACK, per_node(|step| step.synthesise_ms)),
        ],
    );
    let mut rows = String::new();
    for step in &report.steps {
        let quality = |value: Option<f64>| value.map_or_else(|| "-".into(), |x| format!("{x:.3}"));
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            step.nodes,
            step.pathways,
            step.packets,
            step.bytes,
            quality(step.local),
            quality(step.swarm),
            quality(step.pooled),
        );
    }
    let participation: String = report.participation.iter().map(participant).collect();
    let examples: String = report.examples.iter().map(example).collect();
    let kill = report.after_kill;
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>QIS demo: {data}</title><style>\
         body{{font:16px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#222}}\
         table{{border-collapse:collapse}}td,th{{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}}\
         .plots,.cases{{display:flex;flex-wrap:wrap;gap:1em}}.case{{font-size:13px;text-align:center;width:120px}}\
         .wrong{{color:#b00}}</style></head><body>\
         <h1>QIS demo: {data}</h1>\
         <p>{nodes} nodes on one machine learned from each other's outcomes over QUIC in {seconds:.1} s, \
         computed on {backend}. Every figure was measured in this run.</p>\
         <div class=\"plots\">{quality}{pathways}{bytes}{times}</div>\
         <table><tr><th>nodes</th><th>pathways</th><th>packets pulled</th><th>bytes pulled</th>\
         <th>{measure}, node alone</th><th>swarm</th><th>pooled</th></tr>{rows}</table>\
         <p>A new outcome was deposited: its mailbox grew from {before} to {after} packets.</p>\
         <p>{killed} nodes were killed without goodbye. Of {asked} questions asked again, {answered} were \
         answered, {equal} of them equal to the bit.</p>\
         <h2>Who gives, who asks</h2>\
         <p>The loop lives of deposits: a node that only asks learns, and nobody learns from it. Each node signs \
         with one author's key; counted until nodes were killed.</p>\
         <table class=\"participation\"><tr><th>node</th><th>author</th><th>packets deposited</th>\
         <th>mailboxes asked</th><th>packets pulled</th><th>deposits per ask</th></tr>{participation}</table>\
         <h2>Some cases</h2><div class=\"cases\">{examples}</div></body></html>\n",
        data = escape(&report.data),
        nodes = report.steps.last().map_or(0, |step| step.nodes),
        seconds = report.seconds,
        backend = escape(&report.backend),
        measure = report.measure,
        before = report.mailbox_before,
        after = report.mailbox_after,
        killed = kill.killed,
        asked = kill.asked,
        answered = kill.answered,
        equal = kill.equal,
    )
}

fn participant(of: &Participant) -> String {
    let ratio = of.deposits_per_ask.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
    // As much of a key as tells authors apart.
    let author = of.author.get(..16).unwrap_or(&of.author);
    let (node, deposited, asked, pulled) = (of.node, of.deposited, of.asked, of.pulled);
    format!(
        "<tr><td>{node}</td><td>{}</td><td>{deposited}</td><td>{asked}</td><td>{pulled}</td><td>{ratio}</td></tr>",
        escape(author)
    )
}

/// Lines over the number of nodes, as SVG text; nothing where there is nothing to draw.
fn plot(title: &str, lines: &[Line]) -> String {
    let mut svg = String::new();
    if draw(&mut svg, title, lines).is_err() {
        return String::new();
    }
    // An XML declaration may not stand inside HTML.
    svg.find("<svg").map_or_else(String::new, |start| svg[start..].to_string())
}

fn draw(svg: &mut String, title: &str, lines: &[Line]) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|(_, _, points)| points);
    let last = points().map(|point| point.0).fold(1.0, f64::max);
    let high = points().map(|point| point.1).fold(0.0, f64::max).max(1e-9);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d((1.0..last.max(2.0)).log_scale().base(2.0), 0.0..high * 1.05)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("nodes")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .draw()?;
    for (index, (name, colour, points)) in lines.iter().enumerate() {
        let style = colour.stroke_width(if index == 0 && lines.len() > 1 { 7 } else { 2 });
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()?;
    root.present()?;
    Ok(())
}

fn example(example: &Example) -> String {
    let picture = example.picture.as_ref().map_or_else(String::new, |pixels| {
        let side = pixels.len().isqrt();
        let mut cells = String::new();
        for (index, value) in pixels.iter().enumerate() {
            let shade = 255 - (value.clamp(0.0, 1.0) * 255.0) as u8;
            let (x, y) = (index % side, index / side);
            let _ = write!(
                cells,
                "<rect x=\"{x}\" y=\"{y}\" width=\"1.02\" height=\"1.02\" fill=\"rgb({shade},{shade},{shade})\"/>"
            );
        }
        format!("<svg width=\"96\" height=\"96\" viewBox=\"0 0 {side} {side}\">{cells}</svg>")
    });
    let class = if example.truth == example.answer { "" } else { " class=\"wrong\"" };
    format!(
        "<div class=\"case\">{picture}<div{class}>{} (truth {})</div><div>{}: {} packets, {} authors</div></div>",
        escape(&example.answer),
        escape(&example.truth),
        example.verdict,
        example.packets,
        example.authors,
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
