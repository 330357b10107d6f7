//! A picture of a replay.

use std::fmt::Write;

use crate::report::Report;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 160.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 30.0;
const GAP: f64 = 50.0;

/// An SVG document: used GPUs above, waiting jobs below, over days.
pub fn plot(report: &Report, title: &str) -> String {
    let mut svg = String::new();
    let height = 2.0 * (HEIGHT + GAP) + TOP;
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">{}</text>\n",
        WIDTH + LEFT + 20.0,
        escape(title)
    );
    let used = report.moments.iter().map(|moment| (moment.at_ms, moment.used_gpus as f64));
    panel(&mut svg, TOP, "GPUs in use", report.gpus as f64, used.collect(), "#2a6f97");
    let waiting: Vec<_> =
        report.moments.iter().map(|moment| (moment.at_ms, moment.waiting_jobs as f64)).collect();
    let most = waiting.iter().map(|(_, jobs)| *jobs).fold(1.0, f64::max);
    panel(&mut svg, TOP + HEIGHT + GAP, "jobs waiting", most, waiting, "#bc4749");
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, top: f64, name: &str, most: f64, points: Vec<(u64, f64)>, colour: &str) {
    let last = points.last().map_or(1, |(at, _)| *at).max(1) as f64;
    let bottom = top + HEIGHT;
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#999\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most:.0}</text>\n\
         <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\">0</text>\n\
         <text x=\"{}\" y=\"{}\">{name}, over {:.0} days</text>",
        LEFT - 6.0,
        top + 10.0,
        LEFT - 6.0,
        LEFT + 6.0,
        bottom + 18.0,
        last / 86_400_000.0
    );
    let mut path = String::new();
    for (at, value) in points {
        let x = LEFT + WIDTH * at as f64 / last;
        let y = bottom - HEIGHT * value / most.max(1.0);
        let _ = write!(path, "{x:.1},{y:.1} ");
    }
    let _ = writeln!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\"/>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
