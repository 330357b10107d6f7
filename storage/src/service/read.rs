//! Reads: all parts of a call at once, each into a buffer of its own that goes out as it is.

use ff2_fabric::{Answer, Context, SharedBuf};
use ff2_proto::{Code, Status, limits::BULK_BYTES_MAX, pb};
use ff2_storage_core::format::crc32c;
use tokio::task::JoinSet;

use super::{Access, StorageService, named};
use crate::{limits, target::Found};

impl StorageService {
    pub(super) async fn read_parts(
        &self,
        cx: &Context,
        request: pb::ReadRequest,
    ) -> Result<Answer<pb::ReadReply>, Status> {
        if request.parts.len() > limits::READ_PARTS_MAX {
            let detail = format!("a read has at most {} parts", limits::READ_PARTS_MAX);
            return Err(Status::new(Code::InvalidArgument, detail));
        }
        let wanted: u64 = request.parts.iter().map(|part| u64::from(part.length)).sum();
        if wanted > BULK_BYTES_MAX as u64 {
            let detail = format!("a read answers at most {BULK_BYTES_MAX} bytes, not {wanted}");
            return Err(Status::new(Code::InvalidArgument, detail));
        }
        let mut checked = None;
        for part in &request.parts {
            let inode = named(part.chunk)?.inode;
            // All parts of a call are mostly of one file: its grant is checked once.
            if checked != Some(inode) {
                self.may(&cx.peer, &request.grant, inode, Access::Read)?;
                checked = Some(inode);
            }
        }
        let outcomes = self.read_all(request.parts).await;
        let mut answer = Answer::from(pb::ReadReply::default());
        for outcome in outcomes {
            let part = match outcome {
                Ok(found) => {
                    self.node.traffic.read(found.bytes.len() as u64);
                    describe(&found, &mut answer.bulk)
                }
                Err(status) => {
                    pb::ReadPartReply { status: Some(status.into()), ..Default::default() }
                }
            };
            answer.message.parts.push(part);
        }
        Ok(answer)
    }

    async fn read_all(&self, mut parts: Vec<pb::ReadPart>) -> Vec<Result<Found, Status>> {
        if parts.len() == 1
            && let Some(part) = parts.pop()
        {
            return vec![self.read_part(part).await];
        }
        let mut outcomes: Vec<Result<Found, Status>> = Vec::with_capacity(parts.len());
        let mut running = JoinSet::new();
        for (place, part) in parts.into_iter().enumerate() {
            outcomes.push(Err(Code::Internal.into()));
            let service = self.clone();
            running.spawn(async move { (place, service.read_part(part).await) });
        }
        while let Some(joined) = running.join_next().await {
            match joined {
                Ok((place, outcome)) => outcomes[place] = outcome,
                Err(error) => tracing::error!(%error, "a read failed"),
            }
        }
        outcomes
    }

    async fn read_part(&self, part: pb::ReadPart) -> Result<Found, Status> {
        let chunk = named(part.chunk)?;
        let target = self.target(part.target)?;
        let buffer =
            tokio::time::timeout(limits::BUFFER_WAIT, self.node.pool.get(part.length as usize));
        let buffer = buffer.await.map_err(|_| Status::new(Code::Busy, "no buffer for a read"))?;
        target.read(chunk, part.offset, part.length, buffer).await
    }
}

/// The message of a part; its bytes join the bulk.
fn describe(found: &Found, bulk: &mut Vec<SharedBuf>) -> pb::ReadPartReply {
    let reply = pb::ReadPartReply {
        status: None,
        version: found.readout.map_or(0, |readout| readout.version.0),
        chunk_length: found.readout.map_or(0, |readout| readout.chunk_length),
        length: found.readout.map_or(0, |readout| readout.valid),
        crc32c: crc32c(&found.bytes),
    };
    bulk.push(found.bytes.clone());
    reply
}
