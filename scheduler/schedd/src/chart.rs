//! The chart that a running job gives of itself beside its status line (docs/JOBS.md). It comes from the job's user
//! and is shown to anybody, so it is taken apart here and only what a page can draw goes on.

use serde::{Deserialize, Serialize};

/// Lines of a chart, and points of a line: more than a small picture shows.
const LINES_MAX: usize = 4;
const POINTS_MAX: usize = 400;
/// Characters of a name.
const NAME_MAX: usize = 24;

/// Some figures over one that rises, such as losses over steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chart {
    /// What the points lie over.
    x: String,
    /// Where that ends; 0: nobody knows.
    #[serde(default)]
    until: f64,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    name: String,
    points: Vec<[f64; 2]>,
}

impl Chart {
    /// None: it is none, or none that can be drawn.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut chart: Self = serde_json::from_str(text).ok()?;
        let is_bounded = chart.lines.len() <= LINES_MAX
            && chart.lines.iter().all(|line| line.points.len() <= POINTS_MAX);
        chart.lines.retain(|line| !line.points.is_empty());
        let names = chart.lines.iter_mut().map(|line| &mut line.name).chain([&mut chart.x]);
        for name in names {
            *name = name.chars().take(NAME_MAX).collect();
        }
        (is_bounded && !chart.lines.is_empty()).then_some(chart)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn what_can_be_drawn_is_taken() {
        let text = "{\"x\":\"step\",\"until\":9,\"lines\":[{\"name\":\"loss\",\"points\":[[1,5.5],[2,5]]},\
                    {\"name\":\"held out\",\"points\":[]}]}";
        let chart = Chart::parse(text).unwrap();
        assert_eq!((chart.until, chart.lines.len()), (9.0, 1));
        assert_eq!(chart.lines[0].points, [[1.0, 5.5], [2.0, 5.0]]);
        let points = |count: usize| vec!["[1,2]"; count].join(",");
        let of = |count| {
            format!(r#"{{"x":"step","lines":[{{"name":"a","points":[{}]}}]}}"#, points(count))
        };
        assert!(Chart::parse(&of(POINTS_MAX)).is_some());
        let long =
            format!(r#"{{"x":"{}","lines":[{{"name":"a","points":[[1,2]]}}]}}"#, "é".repeat(100));
        assert_eq!(Chart::parse(&long).unwrap().x.chars().count(), NAME_MAX);
        for bad in [
            "",
            "more",
            "{}",
            &of(POINTS_MAX + 1),
            &of(0),
            &text[..60],
            // No number in JSON.
            r#"{"x":"step","lines":[{"name":"loss","points":[[1,NaN]]}]}"#,
            r#"{"x":"step","lines":[{"name":"loss","points":[[1,1e999]]}]}"#,
        ] {
            assert_eq!(Chart::parse(bad), None, "{bad}");
        }
    }
}
