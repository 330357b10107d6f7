//! How fast memory is, with one core, two, four, and so on to all.
//!
//! The triad of McCalpin's STREAM (`a[i] = b[i] + s * c[i]`, 24 bytes a step, as STREAM counts them) over arrays
//! that each core has filled itself, so that they lie in the memory nearest to it. A missing module or channel shows
//! with all cores, a slow link between processors in the steps to it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use crate::{Check, judge::Measured, limits, threads, validate::Course};

/// Of the free memory, the part that the arrays may have.
const MEMORY_PART: u64 = 4;

pub(crate) fn check(course: &Course) -> Vec<Check> {
    let cores = &course.hardware.cores;
    let steps = steps(cores.len());
    let time = course.budget.triad / steps.len() as u32;
    let free = (course.hardware.memory_available_mib << 20) / MEMORY_PART;
    let array = limits::TRIAD_ARRAY.min(free / (3 * cores.len() as u64)) as usize;
    let length = array / size_of::<f64>();
    if length == 0 {
        return vec![Check::not_tried("memory.bandwidth", "no memory is free to measure with")];
    }
    let judged = steps.iter().map(|count| {
        let mib_s = measure(&spread(cores, *count), length, time);
        let is_all = *count == cores.len();
        let all = "memory.bandwidth".to_owned();
        let name = if is_all { all } else { format!("memory.bandwidth.{count}") };
        let what = format!("memory with {count} of {} cores", cores.len());
        let measured = Measured { name: &name, figure: mib_s, unit: "MiB/s", what: &what };
        let bound = is_all.then_some(course.judge.limits.memory_mib_s);
        course.judge.at_least(measured, bound)
    });
    judged.collect()
}

/// Powers of two, and all.
fn steps(cores: usize) -> Vec<usize> {
    let powers = (0..).map(|power| 1 << power);
    powers.take_while(|count| *count < cores).chain([cores]).collect()
}

/// So many of the cores, as far apart as their numbers go.
fn spread(cores: &[u32], count: usize) -> Vec<u32> {
    (0..count).map(|place| cores[place * cores.len() / count]).collect()
}

/// MiB/s of all these cores together.
fn measure(cores: &[u32], length: usize, time: Duration) -> f64 {
    // Written by the core itself: the kernel gives memory at the first touch.
    let prepare = |core: u32| [0.0, 1.0, 2.0].map(|value| vec![value + f64::from(core); length]);
    let work = |_, [mut target, left, right]: [Vec<f64>; 3]| {
        let (begun, mut passes) = (Instant::now(), 0u32);
        while passes == 0 || begun.elapsed() < time {
            triad(&mut target, &left, &right, black_box(3.0));
            black_box(&mut target);
            passes += 1;
        }
        let bytes = f64::from(passes) * (3 * size_of::<f64>() * length) as f64;
        bytes / begun.elapsed().as_secs_f64()
    };
    threads::on_cores(cores, prepare, work).into_iter().sum::<f64>() / (1u64 << 20) as f64
}

fn triad(target: &mut [f64], left: &[f64], right: &[f64], scale: f64) {
    for ((value, one), other) in target.iter_mut().zip(left).zip(right) {
        *value = one + scale * other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_with_all_cores() {
        assert_eq!(steps(1), [1]);
        assert_eq!(steps(2), [1, 2]);
        assert_eq!(steps(96), [1, 2, 4, 8, 16, 32, 64, 96]);
        assert_eq!(spread(&[0, 1, 2, 3, 4, 5, 6, 7], 2), [0, 4]);
        assert_eq!(spread(&[4, 9], 2), [4, 9]);
    }

    #[test]
    fn the_triad_is_computed() {
        let mut target = [0.0; 3];
        triad(&mut target, &[1.0, 2.0, 3.0], &[10.0, 20.0, 30.0], 3.0);
        assert_eq!(target, [31.0, 62.0, 93.0]);
        assert!(measure(&[0], 1 << 10, Duration::from_millis(5)) > 0.0);
    }
}
