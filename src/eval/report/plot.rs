//! Lines over numbers, as SVG text that may stand inside HTML.

use super::escape;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Width and height in pixels.
const SIZE: (u32, u32) = (560, 340);
/// Lines take these in turn.
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 90, 180),
    RGBColor(200, 60, 40),
    RGBColor(40, 140, 70),
    RGBColor(140, 80, 170),
    RGBColor(200, 140, 20),
    RGBColor(110, 110, 110),
];

/// Points of one name.
pub type Line = (String, Vec<(f64, f64)>);

/// What a plot shows.
pub struct Plot<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    /// Powers of two at equal distances along x.
    pub logarithmic: bool,
    /// A thin line where y = x.
    pub diagonal: bool,
    pub lines: &'a [Line],
}

impl Plot<'_> {
    /// The picture with its legend below, where no line is hidden by it; empty where there is nothing to draw.
    pub fn figure(&self) -> String {
        let svg = self.svg();
        if svg.is_empty() || self.lines.len() < 2 {
            return svg;
        }
        let legend: String = self
            .lines
            .iter()
            .enumerate()
            .map(|(index, (name, _))| {
                let RGBColor(red, green, blue) = COLOURS[index % COLOURS.len()];
                format!("<span style=\"color:rgb({red},{green},{blue})\">&#9632; {}</span> ", escape(name))
            })
            .collect();
        format!("<figure>{svg}<figcaption>{legend}</figcaption></figure>")
    }

    fn svg(&self) -> String {
        let mut svg = String::new();
        if self.lines.iter().all(|(_, points)| points.is_empty()) || self.draw(&mut svg).is_err() {
            return String::new();
        }
        // An XML declaration may not stand inside HTML.
        svg.find("<svg").map_or_else(String::new, |start| svg[start..].to_string())
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (x, y) = (self.reach(|point| point.0), self.reach(|point| point.1));
        let y = if self.diagonal { margin((x.0.min(y.0), x.1.max(y.1))) } else { margin(y) };
        let x = if self.diagonal { y } else { x };
        if self.logarithmic {
            let x = (x.0.max(1.0), x.1.max(2.0 * x.0.max(1.0)));
            let mut chart =
                self.frame(&root).build_cartesian_2d((x.0..x.1).log_scale().base(2.0), y.0..y.1)?;
            self.fill(&mut chart, &|x| format!("{x:.0}"))?;
        } else {
            let x = if x.0 < x.1 { x } else { margin(x) };
            let mut chart = self.frame(&root).build_cartesian_2d(x.0..x.1, y.0..y.1)?;
            self.fill(&mut chart, &|x| format!("{:.2}", x + 0.0))?;
        }
        root.present()?;
        Ok(())
    }

    /// The least and the greatest of a coordinate.
    fn reach(&self, of: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
        let all = || self.lines.iter().flat_map(|(_, points)| points).map(&of);
        (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max))
    }

    fn frame<'b, 'c>(
        &self,
        root: &'b DrawingArea<SVGBackend<'c>, Shift>,
    ) -> ChartBuilder<'b, 'b, SVGBackend<'c>> {
        let mut frame = ChartBuilder::on(root);
        frame.caption(self.title, ("sans-serif", 18));
        frame.margin(10).x_label_area_size(38).y_label_area_size(64);
        frame
    }

    fn fill<'c, X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>>(
        &self,
        chart: &mut ChartContext<'c, SVGBackend<'c>, Cartesian2d<X, plotters::coord::types::RangedCoordf64>>,
        label: &dyn Fn(&f64) -> String,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        SVGBackend<'c>: 'c,
    {
        let y_range = self.reach(|point| point.1);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&label)
            .draw()?;
        if self.diagonal {
            let x = self.reach(|point| point.0);
            let ends = [x.0.min(y_range.0), x.1.max(y_range.1)].map(|end| (end, end));
            chart.draw_series(LineSeries::new(ends, BLACK.stroke_width(1)))?;
        }
        for (index, (_, points)) in self.lines.iter().enumerate() {
            let style = COLOURS[index % COLOURS.len()].stroke_width(2);
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, style.color.filled())))?;
        }
        Ok(())
    }
}

/// A range with some room on both sides.
fn margin((low, high): (f64, f64)) -> (f64, f64) {
    let room = ((high - low) * 0.08).max(1e-3);
    (low - room, high + room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_point_and_none_are_no_trouble() {
        let plot = |points: Vec<(f64, f64)>, logarithmic, diagonal| {
            let lines = [("a".to_string(), points.clone()), ("b".to_string(), points)];
            Plot { title: "t", x: "x", y: "y", logarithmic, diagonal, lines: &lines }.svg()
        };
        for (logarithmic, diagonal) in [(false, false), (true, false), (false, true)] {
            assert!(plot(vec![(1.0, 0.5)], logarithmic, diagonal).starts_with("<svg"));
            assert!(plot(vec![(1.0, 0.5), (8.0, 0.7)], logarithmic, diagonal).contains("polyline"));
            assert_eq!(plot(vec![], logarithmic, diagonal), "");
        }
    }
}
