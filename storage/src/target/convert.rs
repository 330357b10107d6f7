//! Between wire messages and the machine's values. What arrives is checked here, once.

use ff2_fabric::SharedBuf;
use ff2_proto::{ChainVersion, ChunkVersion, Code, Status, TargetId, limits, pb};
use ff2_storage_core::{
    format::crc32c,
    tags::Tags,
    target::{Change, Forward, Update, UpdateId},
};

/// A client's update, from its message and payload.
pub(crate) fn update_from(
    request: &pb::UpdateRequest,
    payload: SharedBuf,
) -> Result<Update<SharedBuf>, Status> {
    let length_after_replace = payload.len() as u32;
    Ok(Update {
        chain_version: ChainVersion(request.chain_version),
        chunk: request.chunk.ok_or_else(|| bad("no chunk is named"))?.into(),
        change: change_from(request, payload, length_after_replace)?,
        chunk_size: request.chunk_size,
        tag: request.tag,
    })
}

/// A predecessor's forward.
pub(crate) fn forward_from(
    request: pb::ForwardRequest,
    payload: SharedBuf,
) -> Result<Forward<SharedBuf>, Status> {
    let update = request.update.ok_or_else(|| bad("a forward without its update"))?;
    let id = |made_under, version| UpdateId {
        made_under: ChainVersion(made_under),
        version: ChunkVersion(version),
    };
    Ok(Forward {
        chain_version: ChainVersion(update.chain_version),
        from: TargetId(request.from_target),
        to: TargetId(request.to_target),
        chunk: update.chunk.ok_or_else(|| bad("no chunk is named"))?.into(),
        id: id(request.made_under, request.version),
        base: (request.base_version != 0)
            .then(|| id(request.base_made_under, request.base_version)),
        change: change_from(&update, payload, request.chunk_length)?,
        chunk_size: update.chunk_size,
        tag: update.tag,
        tags: Tags::from_entries(request.tags),
        resync: request.resync,
    })
}

fn change_from(
    request: &pb::UpdateRequest,
    payload: SharedBuf,
    replaced_length: u32,
) -> Result<Change<SharedBuf>, Status> {
    let size = request.chunk_size;
    if !size.is_power_of_two() || !(limits::CHUNK_SIZE_MIN..=limits::CHUNK_SIZE_MAX).contains(&size)
    {
        return Err(bad(format!("{size} is no chunk size")));
    }
    if payload.len() != request.length as usize {
        let sent = payload.len();
        return Err(bad(format!("{sent} bytes were sent for an update of {}", request.length)));
    }
    if crc32c(&payload) != request.crc32c {
        return Err(Status::new(Code::ChecksumMismatch, "the payload changed on its way"));
    }
    let end = request.offset.checked_add(request.length).filter(|end| *end <= size);
    match request.kind() {
        pb::UpdateKind::Write => {
            end.ok_or_else(|| bad("the write ends beyond the chunk"))?;
            if payload.is_empty() {
                return Err(bad("a write without bytes"));
            }
            Ok(Change::Write { offset: request.offset, length: request.length, payload })
        }
        pb::UpdateKind::Truncate if request.offset <= size => {
            Ok(Change::Truncate { length: request.offset })
        }
        pb::UpdateKind::Truncate => Err(bad("the truncation is beyond the chunk")),
        pb::UpdateKind::Remove => Ok(Change::Remove),
        pb::UpdateKind::Replace if replaced_length <= size && request.length <= replaced_length => {
            Ok(Change::Replace { length: replaced_length, payload })
        }
        pb::UpdateKind::Replace => Err(bad("the replacement is longer than the chunk")),
        pb::UpdateKind::UpdateUnknown => Err(bad("an update of an unknown kind")),
    }
}

/// The message and payload of a forward.
pub(super) fn forward_to(
    chain: u32,
    forward: Forward<SharedBuf>,
) -> (pb::ForwardRequest, Option<SharedBuf>) {
    let (kind, offset, payload, chunk_length) = match forward.change {
        Change::Write { offset, payload, .. } => (pb::UpdateKind::Write, offset, Some(payload), 0),
        Change::Truncate { length } => (pb::UpdateKind::Truncate, length, None, 0),
        Change::Remove => (pb::UpdateKind::Remove, 0, None, 0),
        Change::Replace { length, payload } => (pb::UpdateKind::Replace, 0, Some(payload), length),
    };
    let bytes = payload.as_deref().unwrap_or_default();
    let update = pb::UpdateRequest {
        chain,
        chain_version: forward.chain_version.0,
        chunk: Some(forward.chunk.into()),
        kind: kind.into(),
        offset,
        length: bytes.len() as u32,
        crc32c: crc32c(bytes),
        tag: forward.tag,
        chunk_size: forward.chunk_size,
        ..Default::default()
    };
    let base = forward.base;
    let request = pb::ForwardRequest {
        update: Some(update),
        from_target: forward.from.0,
        to_target: forward.to.0,
        version: forward.id.version.0,
        made_under: forward.id.made_under.0,
        base_version: base.map_or(0, |base| base.version.0),
        base_made_under: base.map_or(0, |base| base.made_under.0),
        tags: forward.tags.to_entries(),
        resync: forward.resync,
        removed: kind == pb::UpdateKind::Remove && forward.resync,
        chunk_length,
    };
    (request, payload.filter(|payload| !payload.is_empty()))
}

fn bad(detail: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, detail)
}

#[cfg(test)]
mod tests {
    use ff2_proto::{ChunkId, InodeId};

    use super::*;

    fn payload(bytes: &[u8]) -> SharedBuf {
        SharedBuf::from(bytes::Bytes::copy_from_slice(bytes))
    }

    fn write(offset: u32, bytes: &[u8]) -> pb::UpdateRequest {
        pb::UpdateRequest {
            chunk: Some(pb::ChunkKey { inode: 7, index: 1 }),
            kind: pb::UpdateKind::Write.into(),
            offset,
            length: bytes.len() as u32,
            crc32c: crc32c(bytes),
            chunk_size: limits::CHUNK_SIZE_MIN,
            ..Default::default()
        }
    }

    #[test]
    fn a_forward_survives_the_wire() {
        let chunk = ChunkId { inode: InodeId(7), index: 1 };
        let changes = [
            Change::Write { offset: 5, length: 3, payload: payload(b"abc") },
            Change::Truncate { length: 9 },
            Change::Remove,
            Change::Replace { length: 100, payload: payload(b"xyz") },
        ];
        for change in changes {
            let forward = Forward {
                chain_version: ChainVersion(4),
                from: TargetId(1),
                to: TargetId(2),
                chunk,
                id: UpdateId { made_under: ChainVersion(4), version: ChunkVersion(9) },
                base: Some(UpdateId { made_under: ChainVersion(3), version: ChunkVersion(8) }),
                change,
                chunk_size: limits::CHUNK_SIZE_MIN,
                tag: Some(pb::UpdateTag { session: 1, channel: 2, seq: 3 }),
                tags: Tags::default(),
                resync: false,
            };
            let (request, bytes) = forward_to(11, forward.clone());
            let back = forward_from(request, bytes.unwrap_or_default()).unwrap();
            assert_eq!(format!("{back:?}"), format!("{forward:?}"));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let code = |request: pb::UpdateRequest, bytes: &[u8]| {
            update_from(&request, payload(bytes)).unwrap_err().code
        };
        assert!(update_from(&write(5, b"abc"), payload(b"abc")).is_ok());
        assert_eq!(code(write(5, b"abc"), b"abd"), Code::ChecksumMismatch);
        assert_eq!(code(write(5, b"abc"), b"ab"), Code::InvalidArgument);
        assert_eq!(code(write(u32::MAX, b"abc"), b"abc"), Code::InvalidArgument);
        assert_eq!(code(write(limits::CHUNK_SIZE_MIN - 2, b"abc"), b"abc"), Code::InvalidArgument);
        assert_eq!(code(write(0, b""), b""), Code::InvalidArgument);
        let odd = pb::UpdateRequest { chunk_size: 100_000, ..write(0, b"abc") };
        assert_eq!(code(odd, b"abc"), Code::InvalidArgument);
        let unnamed = pb::UpdateRequest { chunk: None, ..write(0, b"abc") };
        assert_eq!(code(unnamed, b"abc"), Code::InvalidArgument);
    }
}
