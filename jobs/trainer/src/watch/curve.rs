//! `loss.svg`: how the loss fell. Follows the reader's light or dark theme.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use super::Record;

const FILE: &str = "loss.svg";
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 48.0;
/// Points of a line, at most: a screen has no more.
const POINTS_MAX: usize = 900;

const STYLE: &str = "\
svg{--paper:#fff;--ink:#1f2328;--faint:#656d76;--grid:#e6e8eb;--line:#0a66c2;--held:#c2410c}\
@media(prefers-color-scheme:dark){svg{--paper:#0d1117;--ink:#e6edf3;--faint:#8d96a0;--grid:#21262d;--line:#58a6ff;\
--held:#ff9d5c}}\
text{font:13px system-ui,sans-serif;fill:var(--faint)}\
.title{font-size:17px;font-weight:600;fill:var(--ink)}\
.grid{stroke:var(--grid)}.raw{stroke:var(--line);opacity:.25}.mean{stroke:var(--line);stroke-width:2.5}\
.held{stroke:var(--held);stroke-width:2}.dot{fill:var(--held)}path{fill:none;stroke-linejoin:round}";

/// Writes the picture of these steps; of none there is no picture.
pub(super) fn draw(folder: &Path, records: &[Record]) -> Result<()> {
    let Some(picture) = picture(records) else { return Ok(()) };
    let (path, draft) = (folder.join(FILE), folder.join(format!(".{FILE}")));
    // Who looks at it while the run goes on sees a whole one.
    fs::write(&draft, picture)
        .and_then(|()| fs::rename(&draft, &path))
        .with_context(|| format!("write {}", path.display()))
}

fn picture(records: &[Record]) -> Option<String> {
    let (raw, heldout) = losses(records);
    let last = records.last()?;
    let (raw, mean) = (thin(&raw, POINTS_MAX), thin(&smooth(&raw), POINTS_MAX));
    let losses = || raw.iter().chain(&heldout).map(|point| point.1);
    let (low, high) = (losses().fold(f64::MAX, f64::min), losses().fold(f64::MIN, f64::max));
    let (x_ticks, y_ticks) = (ticks(0.0, last.step as f64), ticks(low, high.max(low + 1e-3)));
    let (y_low, y_high) = (*y_ticks.first()?, *y_ticks.last()?);
    let x = |step: f64| LEFT + step / last.step as f64 * (WIDTH - LEFT - RIGHT);
    let y =
        |loss: f64| HEIGHT - BOTTOM - (loss - y_low) / (y_high - y_low) * (HEIGHT - BOTTOM - TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <title>Loss by step</title>\n<style>{STYLE}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" style=\"fill:var(--paper)\"/>\n"
    );
    let mut put = |text: String| svg.push_str(&(text + "\n"));
    for tick in y_ticks {
        let at = y(tick);
        put(format!("<path class=\"grid\" d=\"M{LEFT} {at:.1}H{}\"/>", WIDTH - RIGHT));
        put(format!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            decimal(tick)
        ));
    }
    for tick in x_ticks.into_iter().filter(|tick| *tick <= last.step as f64) {
        put(format!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            x(tick),
            HEIGHT - BOTTOM + 22.0
        ));
    }
    let line = |points: &[(f64, f64)]| {
        points.iter().enumerate().fold(String::new(), |mut path, (number, point)| {
            let to = if number == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{to}{:.1} {:.1}", x(point.0), y(point.1));
            path
        })
    };
    for (class, points) in [("raw", &raw), ("mean", &mean), ("held", &heldout)] {
        put(format!("<path class=\"{class}\" d=\"{}\"/>", line(points)));
    }
    for point in thin(&heldout, POINTS_MAX) {
        put(format!(
            "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
            x(point.0),
            y(point.1)
        ));
    }
    put(format!("<text class=\"title\" x=\"{LEFT}\" y=\"32\">{}</text>", title(records, &mean)));
    put(legend(!heldout.is_empty()));
    put(format!(
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">step</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0
    ));
    Some(svg + "</svg>\n")
}

fn title(records: &[Record], mean: &[(f64, f64)]) -> String {
    let mut title = format!("Loss {:.3}", mean.last().map_or(f64::NAN, |point| point.1));
    if let Some(score) = records.iter().rev().find_map(|record| record.heldout) {
        let _ =
            write!(title, ", held out {:.3} ({:.3} bits/byte)", score.loss, score.bits_per_byte);
    }
    if let Some(last) = records.last() {
        let _ = write!(title, " after {} steps, {} tokens", last.step, last.tokens);
    }
    title
}

fn legend(with_heldout: bool) -> String {
    let entry = |x: f64, class: &str, text: &str| {
        format!(
            "<path class=\"{class}\" d=\"M{x} {}h22\"/><text x=\"{}\" y=\"{}\">{text}</text>",
            HEIGHT - 12.0,
            x + 28.0,
            HEIGHT - 8.0
        )
    };
    let heldout =
        if with_heldout { entry(WIDTH - 110.0, "held", "held out") } else { String::new() };
    entry(WIDTH - 220.0, "mean", "training") + &heldout
}

/// Mean of the newest steps, about a fiftieth of all, without the lag that a mean has at its start.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 50.0).max(4.0);
    let (mut mean, mut weight) = (0.0, 0.0);
    let of = |&(step, loss): &(f64, f64)| {
        mean = keep * mean + (1.0 - keep) * loss;
        weight = keep * weight + (1.0 - keep);
        (step, mean / weight)
    };
    points.iter().map(of).collect()
}

/// Steps, and what was measured at each.
pub(super) type Points = Vec<(f64, f64)>;

/// Losses: of training, and of the held-out text.
pub(super) fn losses(records: &[Record]) -> (Points, Points) {
    let training = records.iter().filter_map(|r| r.loss.map(|loss| (r.step as f64, loss)));
    let heldout = records.iter().filter_map(|r| r.heldout.map(|s| (r.step as f64, s.loss)));
    (training.collect(), heldout.collect())
}

/// Means of neighbours, so that no more than `most` points are left.
pub(super) fn thin(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let mean = |group: &[(f64, f64)]| {
        let sum = group.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / group.len() as f64, sum.1 / group.len() as f64)
    };
    points.chunks(points.len().div_ceil(most).max(1)).map(mean).collect()
}

/// Round numbers around a range: 1, 2 or 5 times a power of ten apart, four to ten of them.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let apart = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let apart = apart.into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let (first, last) = ((low / apart).floor() as i64, (high / apart).ceil() as i64);
    (first..=last).map(|tick| tick as f64 * apart).collect()
}

/// Without what floats leave behind the last digit.
fn decimal(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::{run::Score, watch::record::example};

    #[test]
    fn the_picture_shows_both_losses_and_stays_small() {
        let mut records: Vec<_> = (1..=20_000).map(example).collect();
        let score = Score { loss: 1.5, bits_per_byte: 0.75 };
        records.iter_mut().step_by(1000).for_each(|record| record.heldout = Some(score));
        records[500].loss = None;
        let picture = picture(&records).unwrap();
        assert_eq!(picture.matches("<circle").count(), 20);
        assert!(picture.len() < 60_000, "{}", picture.len());
        assert!(
            picture.contains("held out 1.500 (0.750 bits/byte) after 20000 steps"),
            "{picture}"
        );
        assert!(picture.contains("prefers-color-scheme:dark") && !picture.contains("NaN"));
        let lines = picture.split("class=\"mean\" d=\"M").nth(1).unwrap();
        assert!(lines.split('"').next().unwrap().matches('L').count() > 800);
    }

    #[test]
    fn one_step_is_a_picture_and_none_is_not() {
        assert!(picture(&[]).is_none());
        let one = picture(&[example(1)]).unwrap();
        assert!(!one.contains("NaN") && !one.contains("inf"), "{one}");
        let folder = tempfile::tempdir().unwrap();
        draw(folder.path(), &[]).unwrap();
        draw(folder.path(), &[example(1)]).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), one);
    }

    #[test]
    fn ticks_are_round_and_around() {
        assert_eq!(ticks(0.0, 1000.0), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert_eq!(ticks(1.31, 5.8), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
