//! A year of failures under a job of 1,200 nodes of 1,250: `sched_year [--worse N] [--seeds N] [--days N] [--quick]`.
//! Quick is without a look at all that must hold after each step.

use anyhow::{Context, Result, bail};
use ff2_sched_replay::{
    cluster,
    failures::{Trial, simulate},
};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut worse, mut seeds, mut days, mut checks) = (1, 3, 365, true);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .with_context(|| format!("{argument} needs a number"))?
                .parse()
                .context("read it")
        };
        match argument.as_str() {
            "--worse" => worse = value()?,
            "--quick" => checks = false,
            "--days" => days = value()?,
            "--seeds" => seeds = value()?,
            other => bail!("there is no option {other}"),
        }
    }
    let topology = cluster(10_000, 15);
    for seed in 1..=seeds {
        let year = simulate(&topology, &Trial { seed, worse, days, checks, ..Trial::default() });
        println!("seed={seed} {}", serde_json::to_string(&year)?);
    }
    Ok(())
}
