//! What the fuzz targets of all decoders have in common: damaged bytes to decode, and a bound on the memory
//! that they may cost.
//!
//! A target lies beside its decoder, among the tests of that crate, and is one call of [`target!`]. The
//! generator and the loop are bolero's: a plain test run tries a fixed number of inputs, and
//! `BOLERO_RANDOM_ITERATIONS` says how many instead (docs/FUZZING.md).

mod damage;
mod memory;

#[doc(hidden)]
pub use bolero;

pub use damage::damaged;
pub use memory::bounded;

/// Inputs of a target in a plain test run, unless it says otherwise.
pub const ITERATIONS: usize = 20_000;

/// Runs a check on damaged copies of valid encodings: `target!(seeds, |bytes| check)`, or with the number
/// of inputs of a plain run in front, where each costs more. Belongs in a `#[test]` without a value.
///
/// `seeds` is a `Vec<Vec<u8>>`; `bytes` a `&[u8]`: a seed as it is, a damaged one, or noise.
#[macro_export]
macro_rules! target {
    ($seeds:expr, $check:expr) => {
        $crate::target!($crate::ITERATIONS, $seeds, $check)
    };
    ($iterations:expr, $seeds:expr, $check:expr) => {
        $crate::bolero::check!()
            .with_iterations($iterations)
            // The count is the bound: a time would make it depend on the machine.
            .with_test_time(::std::time::Duration::MAX)
            .with_generator($crate::damaged($seeds))
            .for_each(|bytes: &Vec<u8>| {
                let check: fn(&[u8]) = $check;
                check(bytes);
            })
    };
}
