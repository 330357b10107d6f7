//! Rotary position embedding (Su et al. 2021), with YaRN's frequencies (Peng et al. 2023).

use crate::config::{Rope, Yarn};

/// Frequencies of one model's rotary dimensions.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    /// Radians a position, one a pair.
    frequencies: Vec<f32>,
    /// YaRN's factor on cosine and sine.
    magnitude: f32,
    interleaved: bool,
}

/// Positions turn forwards; gradients turn back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Turn {
    Forward,
    Back,
}

impl Rotary {
    pub(crate) fn new(rope: &Rope, dim: usize) -> Self {
        let base = |pair: usize| 1.0 / rope.theta.powf((2 * pair) as f64 / dim as f64);
        let frequencies = (0..dim / 2)
            .map(|pair| match &rope.yarn {
                None => base(pair) as f32,
                Some(yarn) => yarn_frequency(yarn, rope.theta, dim, pair, base(pair)) as f32,
            })
            .collect();
        let magnitude = rope.yarn.as_ref().map_or(1.0, magnitude) as f32;
        Self { frequencies, magnitude, interleaved: rope.interleaved }
    }

    /// Cosines and sines of `len` positions from `from` on.
    pub(crate) fn angles(&self, from: usize, len: usize) -> Angles {
        self.angles_at(from..from + len)
    }

    /// The same of any positions.
    pub(crate) fn angles_at(&self, positions: impl Iterator<Item = usize>) -> Angles {
        let turned = |position: usize| {
            self.frequencies.iter().map(move |frequency| {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                (cos * self.magnitude, sin * self.magnitude)
            })
        };
        let cos_sin = positions.flat_map(turned).collect();
        Angles { cos_sin, pairs: self.frequencies.len(), interleaved: self.interleaved }
    }
}

/// How far each pair turns at each position of a pass.
#[derive(Debug)]
pub(crate) struct Angles {
    cos_sin: Vec<(f32, f32)>,
    pairs: usize,
    interleaved: bool,
}

impl Angles {
    /// Turns the rotary dimensions of one head in place, `at` positions behind the first.
    pub(crate) fn turn(&self, x: &mut [f32], at: usize, turn: Turn) {
        for (pair, &(cos, sin)) in self.cos_sin[at * self.pairs..][..self.pairs].iter().enumerate()
        {
            let sin = if turn == Turn::Forward { sin } else { -sin };
            let (first, second) = match self.interleaved {
                true => (2 * pair, 2 * pair + 1),
                false => (pair, pair + self.pairs),
            };
            let (a, b) = (x[first], x[second]);
            x[first] = a * cos - b * sin;
            x[second] = b * cos + a * sin;
        }
    }
}

/// YaRN's growth of attention with a context `factor` times longer: 0.1 m ln(factor) + 1 (equation 22).
pub(crate) fn mscale(factor: f64, m: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 }
}

fn magnitude(yarn: &Yarn) -> f64 {
    match (yarn.attention_factor, yarn.mscale, yarn.mscale_all_dim) {
        (Some(given), _, _) => given,
        (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => {
            mscale(yarn.factor, m) / mscale(yarn.factor, all)
        }
        _ => mscale(yarn.factor, 1.0),
    }
}

/// Fast pairs keep their frequency, slow ones are stretched by the factor, a ramp lies between.
fn yarn_frequency(yarn: &Yarn, theta: f64, dim: usize, pair: usize, base: f64) -> f64 {
    // The dimension that turns so many times within the original context.
    let dimension = |turns: f64| {
        let context = yarn.original_context as f64;
        dim as f64 * (context / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
    };
    let (mut low, mut high) = (dimension(yarn.beta_fast), dimension(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(dim as f64 - 1.0));
    if low == high {
        high += 0.001;
    }
    let slow = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
    base / yarn.factor * slow + base * (1.0 - slow)
}
