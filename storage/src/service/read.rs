//! Reads: several parts in one call, each with its own outcome.

use ff2_fabric::{
    Answer, Context,
    buf::{Buf, SharedBuf},
};
use ff2_proto::{ChunkId, Code, Status, limits as shared, pb};
use ff2_storage_core::format::crc32c;
use tokio::sync::oneshot;

use super::StorageService;
use crate::{
    engine::Check,
    limits,
    target_driver::{DiskRead, ReadBytes, TargetHandle, stopping},
    wire,
};

/// A part that may be read here.
struct Checked {
    target: TargetHandle,
    chunk: ChunkId,
}

/// A part that was begun, or why not.
type Begun = Result<oneshot::Receiver<Result<ReadBytes, Status>>, Status>;

impl StorageService {
    pub(super) async fn read_parts(
        &self,
        cx: &Context,
        request: pb::ReadRequest,
    ) -> Result<Answer<pb::ReadReply>, Status> {
        check_size(&request)?;
        let operation = self.operations.begin("read", describe(&request));
        let checked: Vec<_> =
            request.parts.iter().map(|part| self.check_part(cx, &request, part)).collect();
        let wanted = |(part, checked): (&pb::ReadPart, &Result<_, _>)| match checked {
            Ok(_) => part.length as usize,
            Err(_) => 0,
        };
        let lens: Vec<usize> = request.parts.iter().zip(&checked).map(wanted).collect();
        let bufs = tokio::time::timeout(cx.remaining(), self.read_pool.get_all(&lens)).await;
        let bufs = bufs.map_err(|_| {
            operation.failed();
            Status::new(Code::Busy, "no buffers in time")
        })?;
        let check = if request.verify { Check::Here } else { Check::ByReader };
        // All parts are on their way before the first is waited for.
        let begin = |((part, checked), buf): ((&pb::ReadPart, Result<Checked, Status>), Buf)| {
            let Checked { target, chunk } = checked?;
            let (offset, length) = (part.offset, part.length);
            target.read(DiskRead { chunk, offset, length, check, buf })
        };
        let begun: Vec<Begun> = request.parts.iter().zip(checked).zip(bufs).map(begin).collect();
        let mut reply = pb::ReadReply { parts: Vec::with_capacity(begun.len()) };
        let mut bulk = Vec::with_capacity(begun.len());
        let mut bytes_read = 0;
        for (part, begun) in request.parts.iter().zip(begun) {
            match finish_part(cx, part, begun).await {
                Ok((answer, bytes)) => {
                    bytes_read += u64::from(answer.length);
                    reply.parts.push(answer);
                    bulk.push(bytes);
                }
                Err(status) => {
                    operation.failed();
                    let status = Some(status.into());
                    reply.parts.push(pb::ReadPartReply { status, ..Default::default() });
                }
            }
        }
        self.metrics.read(bytes_read);
        Ok(Answer::with_bulk(reply, bulk))
    }

    fn check_part(
        &self,
        cx: &Context,
        request: &pb::ReadRequest,
        part: &pb::ReadPart,
    ) -> Result<Checked, Status> {
        let chunk: ChunkId = wire::chunk(part.chunk)?;
        self.grants.check_read(cx, &request.grant, chunk)?;
        let target = self.target(part.chain, Some(part.target))?;
        let end = u64::from(part.offset) + u64::from(part.length);
        if part.length == 0 || end > u64::from(shared::CHUNK_SIZE_MAX) {
            return Err(wire::invalid("a part lies within a chunk and has bytes"));
        }
        Ok(Checked { target, chunk })
    }
}

async fn finish_part(
    cx: &Context,
    part: &pb::ReadPart,
    begun: Begun,
) -> Result<(pb::ReadPartReply, SharedBuf), Status> {
    let found = match tokio::time::timeout(cx.remaining(), begun?).await {
        Ok(Ok(found)) => found?,
        Ok(Err(_)) => return Err(stopping()),
        Err(_) => return Err(Status::new(Code::Timeout, "the read took too long")),
    };
    let ReadBytes { buf, readout } = found;
    let bytes = match readout {
        None if buf.is_empty() => SharedBuf::from(vec![0; part.length as usize]),
        Some(_) | None => buf.freeze(),
    };
    assert_eq!(bytes.len(), part.length as usize, "a part has all its bytes");
    let answer = pb::ReadPartReply {
        status: None,
        version: readout.map_or(0, |readout| readout.version.0),
        chunk_length: readout.map_or(0, |readout| readout.chunk_length),
        length: readout.map_or(0, |readout| readout.valid),
        crc32c: readout.and_then(|readout| readout.crc32c).unwrap_or_else(|| crc32c(&bytes)),
    };
    Ok((answer, bytes))
}

/// One call's answer fits into one call's bulk bytes.
fn check_size(request: &pb::ReadRequest) -> Result<(), Status> {
    let bytes: u64 = request.parts.iter().map(|part| u64::from(part.length)).sum();
    if request.parts.len() > limits::READ_PARTS || bytes > shared::BULK_BYTES_MAX as u64 {
        let detail = format!("{} parts with {bytes} bytes are too many", request.parts.len());
        return Err(wire::invalid(detail));
    }
    Ok(())
}

fn describe(request: &pb::ReadRequest) -> String {
    let first = request.parts.first().and_then(|part| part.chunk).map(ChunkId::from);
    match first {
        Some(chunk) => format!("{} parts, first {chunk}", request.parts.len()),
        None => "nothing".into(),
    }
}
