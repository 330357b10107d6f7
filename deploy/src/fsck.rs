//! `ff2ctl fsck`: do names, inodes and chunks agree with each other?

use anyhow::{Result, ensure};
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{bytes::ByteSize, cli::Surroundings, connect::Admin, output::Progress, show::Picture};

/// Chunks that are listed one by one; the others are only counted.
const SHOWN: usize = 1_000;

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Mend what is wrong between names and inodes, and remove the chunks of files that are gone; without this it is
    /// only told what would be done.
    #[arg(long)]
    repair: bool,
}

#[derive(Debug, Default)]
struct Found {
    names: pb::CheckNamespaceReply,
    chains: u64,
    chunks: u64,
    orphaned: Strays,
    /// Behind the end of their files.
    beyond: Strays,
    /// The first of both.
    shown: Vec<(u32, pb::StrayChunk)>,
}

#[derive(Debug, Default)]
struct Strays {
    count: u64,
    bytes: u64,
    removed: u64,
}

pub(crate) async fn run(around: &Surroundings, args: Args) -> Result<()> {
    let admin = around.access.connect()?;
    let progress = around.output.progress();
    let mut found =
        Found { names: names(&admin, &progress, args.repair).await?, ..Found::default() };
    let removes = args.repair && found.are_names_good();
    let picture = Picture::of(admin.status().await?);
    let all = picture.chains.len();
    for (place, chain) in picture.chains.keys().enumerate() {
        let mut from = None;
        loop {
            let at = format!("chain {} of {all}, {} chunks", place + 1, found.chunks);
            progress.now(at);
            let ask = pb::CheckChunksRequest { chain: *chain, from, repair: removes };
            let page = admin.check_chunks(ask).await?;
            from = page.next;
            found.add(*chain, page);
            if from.is_none() {
                break;
            }
        }
        found.chains += 1;
    }
    progress.finish();
    around.output.print(&found.value(), || found.text(args.repair))?;
    let left = found.left();
    ensure!(left == 0, "{left} problems are left; the lines above say which");
    Ok(())
}

async fn names(
    admin: &Admin,
    progress: &Progress,
    repair: bool,
) -> Result<pb::CheckNamespaceReply> {
    let mut check = 0;
    loop {
        progress.now("names and inodes");
        let ask = pb::CheckNamespaceRequest { check, repair };
        let reply = admin.check_namespace(ask).await?;
        if reply.done {
            return Ok(reply);
        }
        check = reply.check;
    }
}

impl Found {
    fn add(&mut self, chain: u32, page: pb::CheckChunksReply) {
        self.chunks += page.chunks;
        for stray in page.strays {
            let of = if stray.orphaned { &mut self.orphaned } else { &mut self.beyond };
            of.count += 1;
            of.bytes += u64::from(stray.length);
            of.removed += u64::from(stray.removed);
            if self.shown.len() < SHOWN {
                self.shown.push((chain, stray));
            }
        }
    }

    /// Else a chunk of no file may be what is left of one whose inode was lost: it is told of, and removed by a
    /// later run that finds the names in order.
    fn are_names_good(&self) -> bool {
        self.names.problems == 0 && self.names.mends == 0
    }

    /// Problems that are still there.
    fn left(&self) -> u64 {
        let strays = self.orphaned.count - self.orphaned.removed + self.beyond.count;
        self.names.problems + strays
    }

    fn text(&self, repair: bool) -> String {
        let mut text = String::new();
        for problem in &self.names.first_problems {
            text += &format!("namespace: {problem}\n");
        }
        let mended = if repair { "mended" } else { "would be mended" };
        for mend in &self.names.first_mends {
            text += &format!("{mended}: {mend}\n");
        }
        for (chain, stray) in &self.shown {
            let chunk = stray.chunk.unwrap_or_default();
            let what = match (stray.orphaned, stray.removed) {
                (true, true) => "belonged to no file: removed",
                (true, false) => "belongs to no file",
                (false, _) => "lies behind the end of its file",
            };
            let (inode, index) = (chunk.inode, chunk.index);
            text += &format!("chain {chain}: chunk {index} of inode {inode} {what}\n");
        }
        text += &format!(
            "{} inodes, {} problems between them; {} chunks on {} chains, {} of no file ({}), {} behind \
             the end of theirs\n",
            self.names.inodes,
            self.names.problems,
            self.chunks,
            self.chains,
            self.orphaned.count,
            ByteSize(self.orphaned.bytes),
            self.beyond.count,
        );
        if self.orphaned.count > self.orphaned.removed {
            text += if self.are_names_good() {
                "`ff2ctl fsck --repair` removes what belongs to no file\n"
            } else {
                "names were wrong, so what belongs to no file may be the bytes of one that was lost: look for it in a \
                 backup; `ff2ctl fsck --repair` removes it once it finds the names in order\n"
            };
        }
        if self.names.mends > 0 && !repair {
            text += "`ff2ctl fsck --repair` mends what can be mended of the namespace; what has no name comes to \
                     /lost+found\n";
        }
        if self.names.problems > 0 {
            text += "such problems are faults of ff2 or of disks: keep a backup (`ff2ctl backup create`), and report \
                     them\n";
        }
        text
    }

    fn value(&self) -> Value {
        let strays = |strays: &Strays| {
            json!({
                "chunks": strays.count, "bytes": strays.bytes, "removed": strays.removed,
            })
        };
        let shown = self.shown.iter().map(|(chain, stray)| {
            let chunk = stray.chunk.unwrap_or_default();
            json!({
                "chain": chain, "inode": chunk.inode, "index": chunk.index, "length": stray.length,
                "orphaned": stray.orphaned, "removed": stray.removed,
            })
        });
        json!({
            "inodes": self.names.inodes, "namespace_problems": self.names.problems,
            "namespace": self.names.first_problems, "mends": self.names.mends,
            "first_mends": self.names.first_mends, "chains": self.chains, "chunks": self.chunks,
            "orphaned": strays(&self.orphaned), "beyond_the_end": strays(&self.beyond),
            "strays": shown.collect::<Vec<_>>(), "left": self.left(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_counted_and_said() {
        let mut found = Found { chains: 1, ..Found::default() };
        assert!(found.text(false).contains("0 problems"));
        let stray = |orphaned, removed| pb::StrayChunk {
            chunk: Some(pb::ChunkKey { inode: 9, index: 2, snapshot: 0 }),
            length: 4096,
            orphaned,
            removed,
        };
        let strays = vec![stray(true, true), stray(true, false), stray(false, false)];
        found.add(7, pb::CheckChunksReply { chunks: 10, strays, next: None });
        assert_eq!(found.left(), 2);
        let text = found.text(false);
        assert!(
            text.contains("chain 7: chunk 2 of inode 9 belonged to no file: removed"),
            "{text}"
        );
        assert!(text.contains("2 of no file (8 KiB), 1 behind"), "{text}");
        assert!(text.contains("--repair"), "{text}");
        assert_eq!(found.value()["orphaned"]["removed"], 1);
        assert!(found.are_names_good());
        found.names = pb::CheckNamespaceReply {
            problems: 2,
            first_problems: vec!["inode 3: has no kind".into()],
            ..Default::default()
        };
        assert_eq!(found.left(), 4);
        assert!(found.text(true).contains("namespace: inode 3: has no kind"));
        assert!(!found.are_names_good(), "chunks of no file stay");
        assert!(found.text(true).contains("may be the bytes of one that was lost"));
        found.names.mends = 1;
        found.names.first_mends = vec!["inode 4 had no name".into()];
        assert!(found.text(true).contains("\nmended: inode 4 had no name"));
        assert!(found.text(false).contains("would be mended: inode 4 had no name"));
    }
}
