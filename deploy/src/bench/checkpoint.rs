//! Checkpoints, as training jobs make them: each program writes a file and waits until it is safe; later
//! other programs, which have nothing of it cached, read it.

use std::{
    fs::File,
    io::{Read, Write},
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, fadvise};

use super::{Figure, Mounted, Place, at_least_a_mib, at_least_one, fs::Aligned, on_threads, tell};
use crate::bytes::ByteSize;

const BLOCK_BYTES: usize = 4 << 20;

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Programs that write, then as many that read.
    #[arg(long, default_value_t = 4, value_parser = at_least_one())]
    programs: usize,
    /// Bytes of each one's checkpoint.
    #[arg(long, default_value = "256MiB", value_parser = at_least_a_mib)]
    checkpoint_size: ByteSize,
}

pub(super) fn run(mounted: &Mounted, args: &Args) -> Result<Vec<Figure>> {
    on(&mounted.place()?, args)
}

/// Both steps in this place.
pub(super) fn on(place: &Place, args: &Args) -> Result<Vec<Figure>> {
    let bytes = args.checkpoint_size.0 * args.programs as u64;
    let path = |program: usize| -> PathBuf { place.scratch.path.join(format!("part-{program}")) };
    let name =
        |what: &str| format!("checkpoint, {} {what} of {}", args.programs, args.checkpoint_size);
    tell(&name("writers"));
    let wrote = place.measure(|| {
        on_threads(args.programs, |program| {
            let mut file = File::create(path(program)).context("create a checkpoint")?;
            let mut block = Aligned::new(BLOCK_BYTES);
            let mut left = args.checkpoint_size.0;
            while left > 0 {
                place.stop.check()?;
                block.get()[..8].copy_from_slice(&left.to_le_bytes());
                let part = left.min(BLOCK_BYTES as u64);
                file.write_all(&block.get()[..part as usize]).context("write a checkpoint")?;
                left -= part;
            }
            file.sync_all().context("sync a checkpoint")?;
            fadvise(&file, 0, None, Advice::DontNeed).context("empty the page cache")
        })
    })?;
    tell(&name("cold readers"));
    let read = place.measure(|| {
        on_threads(args.programs, |program| {
            // Somebody else's: what a job reads that starts again on other nodes.
            let mut file = File::open(path((program + 1) % args.programs)).context("open")?;
            let mut block = Aligned::new(BLOCK_BYTES);
            let mut got = 0;
            loop {
                place.stop.check()?;
                match file.read(block.get()).context("read a checkpoint")? {
                    0 => break,
                    part => got += part as u64,
                }
            }
            ensure!(got == args.checkpoint_size.0, "a checkpoint has {got} bytes");
            Ok(())
        })
    })?;
    Ok(vec![
        Figure::moved("checkpoint-write", name("writers"), bytes, &wrote),
        Figure::moved("checkpoint-read", name("cold readers"), bytes, &read),
    ])
}
