//! What storage has to write while 1,250 nodes save checkpoints, with slots and without: `sched_checkpoints [--seeds
//! N] [--hours N] [--quick]`. Quick is without a look at all that must hold after each step.

use anyhow::{Context, Result, bail};
use ff2_sched_replay::{
    checkpoints::{Saving, Trial, simulate},
    cluster,
};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut seeds, mut hours, mut checks) = (3, 12, true);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let value = arguments.next().with_context(|| format!("{argument} needs a number"))?;
            value.parse().context("read it")
        };
        match argument.as_str() {
            "--seeds" => seeds = value()?,
            "--hours" => hours = value()?,
            "--quick" => checks = false,
            other => bail!("there is no option {other}"),
        }
    }
    let topology = cluster(10_000, 15);
    let five_minutes = vec![300_000];
    let mixed = [5, 10, 15, 30, 60].map(|minutes| minutes * 60_000).to_vec();
    let kinds = [
        (Saving::Slots, false, &five_minutes, 300),
        (Saving::Slots, true, &five_minutes, 300),
        (Saving::Slots, true, &five_minutes, 60),
        (Saving::Slots, true, &mixed, 300),
        (Saving::AtOnce, false, &five_minutes, 30),
        (Saving::Slowly, false, &five_minutes, 30),
    ];
    for seed in 1..=seeds {
        for (saving, tells_steps, intervals, grace_s) in kinds {
            let intervals_ms = intervals.clone();
            let base = Trial { seed, hours, checks, grace_ms: grace_s * 1_000, ..Trial::default() };
            let outcome = simulate(&topology, &Trial { saving, tells_steps, intervals_ms, ..base });
            let minutes: Vec<u64> = intervals.iter().map(|ms| ms / 60_000).collect();
            let told = serde_json::to_string(&outcome)?;
            println!(
                "seed={seed} {saving:?} minutes={minutes:?} grace_s={grace_s} \
                 tells_steps={tells_steps} {told}"
            );
        }
    }
    Ok(())
}
