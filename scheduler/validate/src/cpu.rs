//! Do all cores compute the same, and equally fast?
//!
//! Each core does the same piece of work again and again, all at once: products of matrices in double precision and
//! a chain of integer multiplications, whose result is the same to the bit on every machine (IEEE 754 defines each
//! step, and nothing is fused or reordered), so it is known beforehand. Rates are per second of a
//! core's own time, so neighbours that share it do not count, and a clock that is held down does.

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use crate::{
    Check, Verdict, judge::Measured, limits, pattern::mix, report::median, threads,
    validate::Course,
};

/// Rows and columns: three matrices of it fit into the first cache.
const SIZE: usize = 32;
/// Products of one piece of work: some hundred microseconds.
const PRODUCTS: usize = 8;
/// What a piece comes to. A program in another language (Python) comes to the same.
const RESULT: u64 = 252_250_006_147_585_505;

pub(crate) fn check(course: &Course) -> Vec<Check> {
    let cores = measure(&course.hardware.cores, course.budget.cpu, |_| piece());
    judge(course, &cores)
}

/// What a core did.
#[derive(Clone, Debug, PartialEq)]
struct Core {
    number: u32,
    /// Pieces in a second of its own time.
    rate: f64,
    /// How often it came to which result.
    results: BTreeMap<u64, u64>,
}

fn measure(cores: &[u32], time: Duration, piece: impl Fn(u32) -> u64 + Sync) -> Vec<Core> {
    let work = |number, ()| {
        let (until, begun) = (Instant::now() + time, threads::own_time());
        let (mut results, mut pieces) = (BTreeMap::new(), 0u64);
        while pieces == 0 || Instant::now() < until {
            let result = piece(number);
            if results.len() < limits::CHECKSUMS_MAX || results.contains_key(&result) {
                *results.entry(result).or_insert(0) += 1;
            }
            pieces += 1;
        }
        let own = (threads::own_time() - begun).as_secs_f64().max(1e-9);
        Core { number, rate: pieces as f64 / own, results }
    };
    threads::on_cores(cores, |_| (), work)
}

fn judge(course: &Course, cores: &[Core]) -> Vec<Check> {
    let is_wrong = |core: &&Core| core.results.keys().any(|result| *result != RESULT);
    let wrong: Vec<u32> = cores.iter().filter(is_wrong).map(|core| core.number).collect();
    let what = if wrong.is_empty() {
        "cores that compute wrongly".to_owned()
    } else {
        format!("cores that compute wrongly ({wrong:?})")
    };
    let measured =
        Measured { name: "cpu.wrong_cores", figure: wrong.len() as f64, unit: "", what: &what };
    let mut checks = vec![course.judge.none_of(measured, Verdict::Failed)];

    let slowest = cores.iter().min_by(|one, other| one.rate.total_cmp(&other.rate));
    let middle = median(cores.iter().map(|core| core.rate).collect());
    if let (Some(slowest), Some(middle)) = (slowest, middle) {
        let what = format!("the slowest core ({}) as a part of the median one", slowest.number);
        let figure = slowest.rate / middle;
        let measured = Measured { name: "cpu.slowest_core", figure, unit: "", what: &what };
        checks.push(course.judge.at_least(measured, Some(course.judge.limits.slowest_core)));
        let what = "the median core computes";
        let measured = Measured { name: "cpu.rate", figure: middle, unit: "1/s", what };
        checks.push(course.judge.at_least(measured, None));
    }
    checks
}

/// The same work each time; the result is a checksum of all of it.
fn piece() -> u64 {
    type Matrix = [[f64; SIZE]; SIZE];
    let entry = |seed: u64| (mix(seed) >> 12) as f64 / (1u64 << 52) as f64 - 0.5;
    let factor: Matrix = std::array::from_fn(|row| {
        std::array::from_fn(|column| entry((row * SIZE + column) as u64))
    });
    let mut product = black_box(factor);
    let mut sum = 0u64;
    for _ in 0..PRODUCTS {
        let mut next: Matrix = [[0.0; SIZE]; SIZE];
        for (left, out) in product.iter().zip(&mut next) {
            for (weight, right) in left.iter().zip(&factor) {
                for (value, other) in out.iter_mut().zip(right) {
                    *value += weight * other;
                }
            }
        }
        for value in next.iter_mut().flatten() {
            sum = mix(sum ^ value.to_bits());
            // Neither overflow nor vanish, however often it is multiplied.
            *value = value.rem_euclid(1.0) - 0.5;
        }
        product = next;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Plan, budget::Budget, judge::tests::judge as judge_of};

    fn course() -> Course {
        Course {
            plan: Plan::default(),
            judge: judge_of(&[]),
            budget: Budget::of(crate::Depth::Quick),
            hardware: ff2_node::Hardware::look().unwrap(),
        }
    }

    fn core(number: u32, rate: f64, results: &[(u64, u64)]) -> Core {
        Core { number, rate, results: results.iter().copied().collect() }
    }

    #[test]
    fn this_machine_computes_what_all_do() {
        let course = course();
        let cores = measure(&course.hardware.cores, Duration::from_millis(50), |_| piece());
        assert!(cores.iter().all(|core| core.rate > 0.0 && core.results.len() == 1), "{cores:?}");
        assert_eq!(judge(&course, &cores)[0].verdict, Verdict::Ok);
    }

    #[test]
    fn a_core_that_computes_wrongly_is_named() {
        let course = course();
        let broken = |core| if core == 1 { 666 } else { RESULT };
        let cores: Vec<Core> = [0, 1, 2]
            .map(|number| Core {
                number,
                ..measure(&[0], Duration::ZERO, |_| broken(number))[0].clone()
            })
            .into();
        let check = &judge(&course, &cores)[0];
        assert_eq!((check.verdict, check.figure), (Verdict::Failed, Some(1.0)));
        assert!(check.why.contains("[1]"), "{}", check.why);
    }

    #[test]
    fn a_core_that_is_wrong_now_and_then_is_wrong() {
        let cores = [core(0, 10.0, &[(RESULT, 1_000)]), core(1, 10.0, &[(RESULT, 999), (43, 1)])];
        assert_eq!(judge(&course(), &cores)[0].verdict, Verdict::Failed);
    }

    #[test]
    fn a_core_that_is_held_down_is_found() {
        let cores = [100.0, 101.0, 99.0, 45.0].map(|rate| core(rate as u32, rate, &[(RESULT, 1)]));
        let check = &judge(&course(), &cores)[1];
        assert_eq!((check.name.as_str(), check.verdict), ("cpu.slowest_core", Verdict::Failed));
        assert!(check.why.contains("(45)"), "{}", check.why);
    }
}
