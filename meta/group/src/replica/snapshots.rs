//! Snapshots: the leader sends only a manifest and holds the state; the follower fetches it page by
//! page into its spare state, and gives the message to raft when the last page is there.

use bytes::Bytes;
use ff2_meta_core::StateMachine;
use ff2_proto::{
    Status,
    marks::{Mark, reached},
    pb, status,
};
use prost::Message as _;
use raft::{ProgressState, SnapshotStatus, eraftpb::Message};

use super::{Output, Replica};
use crate::{limits, store, store::LogStore};

/// A snapshot that a follower of ours fetches.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) snapshot: u64,
    index: u64,
    served: u64,
    idle_ticks: u64,
}

/// A snapshot that we fetch.
#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) manifest: pb::SnapshotManifest,
    /// For raft, once all pages are here.
    message: Message,
    address: String,
    after: Bytes,
    tries: u32,
    complete: bool,
}

impl<St: LogStore, S: StateMachine> Replica<St, S> {
    /// Raft sends this message now.
    pub(super) fn sending_snapshot(&mut self, message: &Message) {
        let data = message.get_snapshot().data.as_slice();
        let manifest = pb::SnapshotManifest::decode(data).expect("made by our own store");
        tracing::info!(group = %self.config.group, to = message.to, index = manifest.index,
            "a follower needs a snapshot");
        let sending = Sending {
            snapshot: manifest.snapshot,
            index: manifest.index,
            served: 0,
            idle_ticks: 0,
        };
        // The store holds one snapshot a follower: the earlier one is gone.
        self.sending.insert(message.to, sending);
    }

    /// Ends transfers that arrived, or that nobody asked about for long.
    pub(super) fn watch_sending(&mut self) {
        let idle_max = limits::PIN_IDLE_ELECTIONS * self.config.election_ticks as u64;
        let mut over = Vec::new();
        for (to, sending) in &mut self.sending {
            let peer = self.raw.raft.prs().get(*to);
            let arrived = peer.is_some_and(|peer| peer.matched >= sending.index);
            let wanted = peer.is_some_and(|peer| peer.state == ProgressState::Snapshot);
            let served = self.raw.raft.store().pages_served(sending.snapshot);
            if served == Some(sending.served) {
                sending.idle_ticks += 1;
            } else {
                sending.idle_ticks = 0;
                sending.served = served.unwrap_or(0);
            }
            let gone = served.is_none() || sending.idle_ticks > idle_max;
            if arrived || !wanted || gone {
                let status =
                    if gone && !arrived { SnapshotStatus::Failure } else { SnapshotStatus::Finish };
                over.push((*to, sending.snapshot, status));
            }
        }
        for (to, snapshot, status) in over {
            self.sending.remove(&to);
            self.raw.mut_store().unpin(snapshot);
            self.report_snapshot(to, status);
        }
    }

    /// The leader offers a snapshot: fetch it, unless the log makes it needless.
    pub(super) fn step_snapshot(&mut self, message: Message, out: &mut Vec<Output>) {
        if self.raw.snap().is_some() {
            return; // One is being installed; its pages must stay.
        }
        let metadata = message.get_snapshot().get_metadata();
        let log = &self.raw.raft.raft_log;
        let matches = log.match_term(metadata.index, metadata.term);
        if metadata.index == log.committed && !matches {
            // Two histories; raft would take this one, without its pages.
            tracing::error!(group = %self.config.group, from = message.from, index = metadata.index,
                "dropped a snapshot that contradicts what is committed");
            return;
        }
        let known = metadata.index <= log.committed || matches || !self.in_snapshot(&message);
        if known {
            // Raft answers by itself that it needs no state, or that this one is not for it.
            if let Err(error) = self.raw.step(message) {
                tracing::debug!(group = %self.config.group, %error, "raft ignored a snapshot");
            }
            return;
        }
        let manifest = match pb::SnapshotManifest::decode(message.get_snapshot().data.as_slice()) {
            Ok(manifest) if manifest.index == metadata.index => manifest,
            _ => {
                tracing::warn!(group = %self.config.group, "dropped a snapshot without manifest");
                return;
            }
        };
        let same = |fetching: &Fetching| fetching.manifest.snapshot == manifest.snapshot;
        if self.fetching.as_ref().is_some_and(same) {
            return;
        }
        tracing::info!(group = %self.config.group, index = manifest.index, keys = manifest.keys,
            from = %manifest.address, "fetching a snapshot");
        self.raw.mut_store().begin_install();
        let address = manifest.address.clone();
        self.fetching = Some(Fetching {
            manifest,
            message,
            address,
            after: Bytes::new(),
            tries: 0,
            complete: false,
        });
        self.fetch(out);
    }

    fn in_snapshot(&self, message: &Message) -> bool {
        let conf = message.get_snapshot().get_metadata().get_conf_state();
        crate::membership::contains(conf, self.raw.raft.id)
    }

    fn fetch(&self, out: &mut Vec<Output>) {
        let Some(fetching) = &self.fetching else { return };
        let request = pb::FetchSnapshotRequest {
            group: self.config.group.0,
            snapshot: fetching.manifest.snapshot,
            after_key: fetching.after.clone(),
            limit_bytes: limits::PAGE_BYTES,
        };
        out.push(Output::Fetch { address: fetching.address.clone(), request });
    }

    /// A page came, or did not.
    pub(super) fn step_page(
        &mut self,
        snapshot: u64,
        page: Result<pb::FetchSnapshotReply, Status>,
        out: &mut Vec<Output>,
    ) {
        let Some(fetching) = &mut self.fetching else { return };
        if fetching.manifest.snapshot != snapshot || fetching.complete {
            return;
        }
        let page = match page.and_then(|page| checked(page, &fetching.after)) {
            Ok(page) => page,
            Err(error) => {
                fetching.tries += 1;
                let hopeless = error.code == pb::Code::NotFound;
                if hopeless || fetching.tries >= limits::PAGE_TRIES {
                    // The leader notices that nobody fetches, and makes another.
                    reached(Mark::SnapshotGivenUp);
                    tracing::info!(group = %self.config.group, %error, "gave a snapshot up");
                    self.fetching = None;
                } else {
                    self.fetch(out);
                }
                return;
            }
        };
        fetching.tries = 0;
        if let Some(last) = page.pairs.last() {
            fetching.after = last.key.clone();
        }
        fetching.complete = page.end;
        let message = page.end.then(|| std::mem::take(&mut fetching.message));
        self.raw.mut_store().install_page(&page.pairs);
        match message {
            Some(message) => self.finish_fetch(message),
            None => self.fetch(out),
        }
    }

    fn finish_fetch(&mut self, message: Message) {
        let index = message.get_snapshot().get_metadata().index;
        if let Err(error) = self.raw.step(message) {
            tracing::debug!(group = %self.config.group, %error, "raft ignored a snapshot");
        }
        // Raft may have learnt meanwhile that it needs none, or that its sender does not lead.
        let taken = self.raw.snap().is_some_and(|snapshot| snapshot.get_metadata().index == index);
        if !taken {
            self.fetching = None;
        }
    }
}

/// The page, if it is whole and goes on behind `after`.
fn checked(page: pb::FetchSnapshotReply, after: &[u8]) -> Result<pb::FetchSnapshotReply, Status> {
    status::check(page.status.clone())?;
    if store::checksum(&page.pairs) != page.crc32c {
        return Err(Status::new(pb::Code::ChecksumMismatch, "a snapshot page changed on the way"));
    }
    let mut last = after;
    for pair in &page.pairs {
        if pair.key.as_ref() <= last {
            return Err(Status::new(pb::Code::BadFrame, "keys of a snapshot page do not ascend"));
        }
        last = &pair.key;
    }
    if page.pairs.is_empty() && !page.end {
        return Err(Status::new(pb::Code::BadFrame, "a snapshot page without keys"));
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Vec<Vec<u8>> {
        let pair = |key: &'static str| pb::KeyValue { key: key.into(), value: "v".into() };
        let pairs = vec![pair("b"), pair("bb"), pair("c")];
        let crc32c = store::checksum(&pairs);
        let end = pb::FetchSnapshotReply { end: true, ..Default::default() };
        let page = pb::FetchSnapshotReply { pairs, crc32c, ..Default::default() };
        vec![page.encode_to_vec(), end.encode_to_vec()]
    }

    /// No page takes the transfer back, or nowhere.
    #[test]
    fn damaged_pages() {
        ff2_fuzz::target!(pages(), |bytes| {
            let Ok(page) = ff2_fuzz::bounded(bytes, || pb::FetchSnapshotReply::decode(bytes))
            else {
                return;
            };
            let sealed =
                pb::FetchSnapshotReply { crc32c: store::checksum(&page.pairs), ..page.clone() };
            for page in [page, sealed] {
                let Ok(page) = ff2_fuzz::bounded(bytes, || checked(page, b"a")) else { continue };
                let keys: Vec<&[u8]> = page.pairs.iter().map(|pair| pair.key.as_ref()).collect();
                assert!(keys.is_sorted_by(|one, next| one < next));
                assert!(keys.first().is_none_or(|first| *first > b"a".as_slice()));
                assert!(page.end || !keys.is_empty());
            }
        });
    }
}
