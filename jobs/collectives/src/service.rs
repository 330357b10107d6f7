//! What a rank answers to the others.

use std::sync::Arc;

use crc_fast::{CrcAlgorithm, checksum};
use ff2_fabric::{Answer, Buf, Context, Ranks};
use ff2_proto::{Code, Status, pb};
use tokio::sync::oneshot;

use crate::{
    fate::{Fate, Verdict},
    mailbox::{Key, Mailbox, Piece, Unwanted},
    meet::Meeting,
    run::other_kind,
};

#[derive(Debug)]
pub(crate) struct RankService {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) verdict: Arc<Verdict>,
    /// Of rank 0 alone.
    pub(crate) meeting: Option<Arc<Meeting>>,
}

impl Ranks for RankService {
    async fn meet(
        &self,
        _cx: Context,
        request: pb::RankMeetRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::RankMeetReply>, Status> {
        let Some(meeting) = &self.meeting else {
            let detail = "this is not rank 0: check MASTER_ADDR and MASTER_PORT";
            return Err(Status::new(Code::InvalidArgument, detail));
        };
        meeting.come(&request)?;
        Ok(match meeting.all().await {
            Ok(addresses) => pb::RankMeetReply { addresses, missing: Vec::new() }.into(),
            Err(missing) => {
                let missing = missing.into_iter().map(|rank| rank as u32).collect();
                pb::RankMeetReply { addresses: Vec::new(), missing }.into()
            }
        })
    }

    async fn push(
        &self,
        _cx: Context,
        request: pb::RankPushRequest,
        bulk: Buf,
    ) -> Result<Answer<pb::RankPushReply>, Status> {
        if crc(&bulk) != request.bulk_crc {
            let detail =
                "a piece was damaged on its way: is the sender's or this host's memory faulty?";
            return Err(Status::new(Code::BadFrame, detail));
        }
        let key = Key {
            from: request.from as usize,
            stream: request.stream,
            operation: request.operation,
            tag: request.tag,
            piece: request.piece,
        };
        let (held, released) = oneshot::channel();
        let (kind, total_bytes) = (request.kind, request.total_bytes);
        let piece = Piece { kind, total_bytes, bytes: bulk, _held: held };
        match self.mailbox.put(key, piece) {
            Ok(()) => {
                // Nothing is ever sent: the piece's drop is the news.
                let _dropped = released.await;
                Ok(pb::RankPushReply {}.into())
            }
            Err(Unwanted::Closed) => {
                Err(Status::new(Code::ShuttingDown, "this rank takes part no more"))
            }
            Err(Unwanted::OtherKind(ours)) => {
                let detail = other_kind(key.operation, key.stream, kind, ours);
                self.verdict.fail(key.from, detail.clone());
                Err(Status::new(Code::InvalidArgument, detail))
            }
            Err(Unwanted::Twice) => {
                let detail = format!("two pieces {key:?}: are two processes the same rank?");
                Err(Status::new(Code::InvalidArgument, detail))
            }
        }
    }

    async fn watch(
        &self,
        _cx: Context,
        _request: pb::RankWatchRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::RankWatchReply>, Status> {
        self.verdict.note_asked();
        Ok(match self.verdict.decided().await {
            Fate::Running | Fate::Left => pb::RankWatchReply::default().into(),
            Fate::Failed { rank, reason } => {
                pb::RankWatchReply { failed: true, rank: rank as u32, reason }.into()
            }
        })
    }
}

/// CRC-32C of a piece.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    // The algorithm has 32 bits.
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
