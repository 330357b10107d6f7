//! Files that have no name any more: their chunks go, then they, once no session has them open.

use ff2_proto::{Status, VolumeId, pb};
use futures::{StreamExt, stream};
use pb::ns_request::Op;

use super::{NamespaceGroup, leader::NamespaceLead};
use crate::limits;

/// Orphans are listed in the order of their numbers, which grow. What is gone leaves marks in the store, and a look
/// from the start would pass all of them again, a few times a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gone {
    /// No orphan up to this is left.
    upto: u64,
    /// The newest one that was ever listed.
    newest: u64,
}

impl Gone {
    /// A page of a round; the first one shows what is left behind `upto`.
    fn saw(&mut self, is_first: bool, orphans: &[pb::Orphan]) {
        if is_first {
            self.upto = orphans.first().map_or(self.newest, |first| first.seq - 1);
        }
        self.newest = self.newest.max(orphans.last().map_or(0, |last| last.seq));
    }
}

impl NamespaceGroup {
    pub(super) async fn collect_orphans(&self, lead: &NamespaceLead) -> Result<(), Status> {
        for volume in self.volumes() {
            let begins = lead.gone.lock().entry(volume).or_default().upto;
            let mut after = begins;
            loop {
                let limit = limits::ORPHANS_PAGE;
                let op = Op::ListOrphans(pb::ListOrphansOp { after, limit });
                let reply = self.ask(volume, op).await?;
                let last = reply.orphan_inodes.last().map(|orphan| orphan.seq);
                if let Some(gone) = lead.gone.lock().get_mut(&volume) {
                    gone.saw(after == begins, &reply.orphan_inodes);
                }
                // Asked after the orphans: whoever could have one of them open is on this list. A
                // session that the book did not know would not be waited for.
                lead.learn(volume, &self.sessions(volume).await?);
                let (ready, seen_by_all) = {
                    let mut book = lead.book.lock();
                    if let Some(newest) = last {
                        book.noticed(lead.term.now_ms(), volume, newest);
                    }
                    let ready = book.collectable(volume, reply.orphan_inodes);
                    (ready, book.seen_by_all(volume))
                };
                self.collect(lead, volume, ready).await?;
                match last {
                    // Behind what all have seen, nothing can be collected.
                    Some(last) if !reply.end && last < seen_by_all => after = last,
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Removes the chunks of orphans, then the orphans. One whose chunks cannot be removed now (its
    /// chain is down) stays for a later round and keeps none of the others.
    async fn collect(
        &self,
        lead: &NamespaceLead,
        volume: VolumeId,
        orphans: Vec<pb::Orphan>,
    ) -> Result<(), Status> {
        let removed = stream::iter(orphans.into_iter().map(|orphan| async move {
            let removed = self.chunks.remove(&lead.term, &orphan).await;
            if let Err(status) = &removed {
                tracing::info!(%volume, inode = orphan.inode, %status, "chunks not removed yet");
            }
            removed.is_ok().then_some(orphan.inode)
        }))
        .buffer_unordered(limits::COLLECTED_TOGETHER);
        let inodes: Vec<u64> = removed.filter_map(std::future::ready).collect().await;
        if inodes.is_empty() {
            return Ok(());
        }
        lead.term.check()?;
        tracing::debug!(%volume, count = inodes.len(), "orphans are collected");
        self.command(volume, Op::Collect(pb::CollectOp { inodes })).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_begins_at_the_first_that_is_left() {
        let mut gone = Gone::default();
        let page = |seqs: &[u64]| -> Vec<pb::Orphan> {
            seqs.iter().map(|&seq| pb::Orphan { seq, ..Default::default() }).collect()
        };
        gone.saw(true, &page(&[1, 2]));
        gone.saw(false, &page(&[3, 7]));
        assert_eq!(gone, Gone { upto: 0, newest: 7 });
        gone.saw(true, &page(&[2, 7]));
        assert_eq!(gone, Gone { upto: 1, newest: 7 });
        // All are gone; one that comes later has a higher number.
        gone.saw(true, &[]);
        assert_eq!(gone, Gone { upto: 7, newest: 7 });
        gone.saw(true, &page(&[9]));
        assert_eq!(gone, Gone { upto: 8, newest: 9 });
    }
}
