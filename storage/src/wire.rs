//! Between the messages of the data plane and the words of the target machine.
//!
//! Everything that comes from the network becomes a domain type here, or a refusal.

use ff2_fabric::buf::{Buf, SharedBuf};
use ff2_proto::{ChunkId, Code, Status, limits, pb};
use ff2_storage_core::{
    tags::Tags,
    target::{Change, Forward, Keeping, Outcome, PageRequest, Standing, Update, UpdateId},
};
use pb::UpdateKind;

use crate::payload::Payload;

pub fn chunk(key: Option<pb::ChunkKey>) -> Result<ChunkId, Status> {
    key.map(ChunkId::from).ok_or_else(|| invalid("the call names no chunk"))
}

/// A client's update with its payload, which is checked before anything else is looked at.
pub fn update(request: &pb::UpdateRequest, bulk: Buf) -> Result<Update<Payload>, Status> {
    let kind = request.kind();
    let payload = checked_payload(request, bulk)?;
    let change = match kind {
        UpdateKind::Write => {
            Change::Write { offset: request.offset, length: request.length, payload }
        }
        UpdateKind::Truncate => Change::Truncate { length: request.offset },
        UpdateKind::Remove => Change::Remove,
        UpdateKind::Replace => {
            return Err(Status::new(Code::Forbidden, "replacements are between targets"));
        }
        UpdateKind::UpdateUnknown => return Err(invalid("an update of no known kind")),
    };
    Ok(Update {
        chain_version: request.chain_version.into(),
        chunk: chunk(request.chunk)?,
        change,
        chunk_size: request.chunk_size,
        tag: request.tag.filter(|tag| *tag != pb::UpdateTag::default()),
    })
}

fn checked_payload(request: &pb::UpdateRequest, bulk: Buf) -> Result<Payload, Status> {
    if bulk.len() != request.length as usize {
        let detail = format!("{} bytes came, {} were announced", bulk.len(), request.length);
        return Err(invalid(detail));
    }
    let carries = matches!(request.kind(), UpdateKind::Write | UpdateKind::Replace);
    if !carries && !bulk.is_empty() {
        return Err(invalid("only writes carry bytes"));
    }
    if bulk.is_empty() {
        return Ok(Payload::default());
    }
    let offset = if request.kind() == UpdateKind::Write { request.offset } else { 0 };
    let payload = Payload::at(offset, bulk.freeze());
    let computed = payload.crc32c();
    if computed != request.crc32c {
        let detail = format!("crc {computed:08x}, the sender computed {:08x}", request.crc32c);
        return Err(Status::new(Code::ChecksumMismatch, detail));
    }
    Ok(payload)
}

/// A forward with its payload.
pub fn forward(request: pb::ForwardRequest, bulk: Buf) -> Result<Forward<Payload>, Status> {
    let inner = request.update.as_ref().ok_or_else(|| invalid("a forward without an update"))?;
    let payload = checked_payload(inner, bulk)?;
    let change = match inner.kind() {
        UpdateKind::Write => Change::Write { offset: inner.offset, length: inner.length, payload },
        UpdateKind::Truncate => Change::Truncate { length: inner.offset },
        UpdateKind::Remove => Change::Remove,
        UpdateKind::Replace if request.removed => Change::Remove,
        UpdateKind::Replace if request.chunk_length < inner.length => {
            return Err(invalid("a replacement longer than its chunk"));
        }
        UpdateKind::Replace => Change::Replace { length: request.chunk_length, payload },
        UpdateKind::UpdateUnknown => return Err(invalid("a forward of no known kind")),
    };
    if request.version == 0 {
        return Err(invalid("a forward without a version"));
    }
    Ok(Forward {
        chain_version: inner.chain_version.into(),
        from: request.from_target.into(),
        to: request.to_target.into(),
        chunk: chunk(inner.chunk)?,
        id: UpdateId { made_under: request.made_under.into(), version: request.version.into() },
        base: update_id(request.base_made_under, request.base_version),
        change,
        chunk_size: inner.chunk_size,
        tag: inner.tag.filter(|tag| *tag != pb::UpdateTag::default()),
        tags: Tags::from_entries(request.tags),
        keeping: Keeping { since: request.since, keep: request.keep },
        resync: request.resync,
    })
}

/// The message of a forward, and the bytes that travel beside it.
pub fn forward_request(
    chain: u32,
    forward: &Forward<Payload>,
) -> (pb::ForwardRequest, Vec<SharedBuf>) {
    let (kind, offset, chunk_length, payload) = match &forward.change {
        Change::Write { offset, payload, .. } => (UpdateKind::Write, *offset, 0, Some(payload)),
        Change::Truncate { length } => (UpdateKind::Truncate, *length, 0, None),
        Change::Remove if forward.resync => (UpdateKind::Replace, 0, 0, None),
        Change::Remove => (UpdateKind::Remove, 0, 0, None),
        Change::Replace { length, payload } => (UpdateKind::Replace, 0, *length, Some(payload)),
    };
    let payload = payload.filter(|payload| !payload.is_empty());
    let update = pb::UpdateRequest {
        chain,
        chain_version: forward.chain_version.0,
        chunk: Some(forward.chunk.into()),
        kind: kind.into(),
        offset,
        length: payload.map_or(0, |payload| payload.len() as u32),
        crc32c: payload.map_or(0, |payload| payload.crc32c()),
        tag: forward.tag,
        chunk_size: forward.chunk_size,
        grant: Default::default(),
    };
    let request = pb::ForwardRequest {
        update: Some(update),
        from_target: forward.from.0,
        to_target: forward.to.0,
        version: forward.id.version.0,
        base_version: forward.base.map_or(0, |base| base.version.0),
        tags: forward.tags.to_entries(),
        resync: forward.resync,
        removed: forward.resync && forward.change.removes(),
        made_under: forward.id.made_under.0,
        base_made_under: forward.base.map_or(0, |base| base.made_under.0),
        chunk_length,
        since: forward.keeping.since,
        keep: forward.keeping.keep,
    };
    (request, payload.map(|payload| payload.bytes().clone()).into_iter().collect())
}

fn update_id(made_under: u64, version: u64) -> Option<UpdateId> {
    let id = UpdateId { made_under: made_under.into(), version: version.into() };
    (version != 0).then_some(id)
}

pub fn standing(reply: &pb::QueryVersionReply) -> Standing {
    Standing {
        committed: update_id(reply.committed_made_under, reply.committed_version),
        pending: update_id(reply.pending_made_under, reply.pending_version),
    }
}

pub fn query_reply(standing: Standing) -> pb::QueryVersionReply {
    let parts = |id: Option<UpdateId>| id.map_or((0, 0), |id| (id.version.0, id.made_under.0));
    let (committed_version, committed_made_under) = parts(standing.committed);
    let (pending_version, pending_made_under) = parts(standing.pending);
    pb::QueryVersionReply {
        status: None,
        committed_version,
        committed_made_under,
        pending_version,
        pending_made_under,
    }
}

pub fn page_request(request: &pb::SyncPageRequest) -> PageRequest {
    PageRequest {
        chain_version: request.chain_version.into(),
        after: request.after.map(ChunkId::from),
        limit: request.limit,
        done_chunks: request.done_chunks,
        total_chunks: request.total_chunks,
        gives_way: request.gives_way,
    }
}

pub fn outcomes(request: &pb::SettleRequest) -> Result<Vec<Outcome>, Status> {
    let outcome = |update: &pb::SettledUpdate| {
        let id = update_id(update.made_under, update.version);
        Ok(Outcome {
            chunk: chunk(update.chunk)?,
            id: id.ok_or_else(|| invalid("an outcome without a version"))?,
            committed: update.committed,
        })
    };
    request.updates.iter().map(outcome).collect()
}

pub fn settled(outcome: &Outcome) -> pb::SettledUpdate {
    pb::SettledUpdate {
        chunk: Some(outcome.chunk.into()),
        version: outcome.id.version.0,
        made_under: outcome.id.made_under.0,
        committed: outcome.committed,
    }
}

pub fn invalid(detail: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, detail)
}

const _: () = assert!(limits::CHUNK_SIZE_MAX as usize <= limits::BULK_BYTES_MAX);

#[cfg(test)]
mod tests {
    use ff2_proto::{ChainVersion, InodeId, TargetId};
    use prost::Message;

    use super::*;

    fn sample(change: Change<Payload>, resync: bool) -> Forward<Payload> {
        let id = |version| UpdateId { made_under: ChainVersion(4), version: version_of(version) };
        let tag = pb::UpdateTag { session: 1, channel: 2, seq: 3, ack_below: 2 };
        Forward {
            chain_version: ChainVersion(5),
            from: TargetId(1),
            to: TargetId(2),
            chunk: ChunkId::new(InodeId(7), 9),
            id: id(8),
            base: Some(id(7)),
            change,
            chunk_size: 1 << 16,
            tag: Some(tag),
            tags: Tags::from_entries([pb::AppliedTag { tag: Some(tag), version: 8 }]),
            keeping: Keeping { since: 4, keep: 3 },
            resync,
        }
    }

    fn version_of(version: u64) -> ff2_proto::ChunkVersion {
        version.into()
    }

    fn changes() -> [Change<Payload>; 5] {
        let payload = || Payload::from(SharedBuf::from(b"some bytes".to_vec()));
        [
            Change::Write { offset: 3, length: 10, payload: payload() },
            Change::Truncate { length: 77 },
            Change::Remove,
            Change::Replace { length: 99, payload: payload() },
            Change::Replace { length: 0, payload: Payload::default() },
        ]
    }

    #[test]
    fn forwards_survive_the_wire() {
        for change in changes() {
            for resync in [false, true] {
                let sent = sample(change.clone(), resync);
                assert_eq!(format!("{:?}", sent_again(&sent)), format!("{sent:?}"));
            }
        }
    }

    #[test]
    fn bytes_that_changed_on_the_way_are_refused() {
        let payload = SharedBuf::from(b"some bytes".to_vec()).into();
        let sent = sample(Change::Write { offset: 0, length: 10, payload }, false);
        let (request, bulk) = forward_request(1, &sent);
        let mut buf = Buf::unpooled(10);
        buf.copy_from_slice(&bulk[0]);
        buf[3] ^= 1;
        assert_eq!(forward(request.clone(), buf).unwrap_err().code, Code::ChecksumMismatch);
        let short = Buf::unpooled(9);
        assert_eq!(forward(request, short).unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn clients_cannot_replace_or_send_bytes_with_a_removal() {
        for (kind, length, code) in [
            (UpdateKind::Replace, 0, Code::Forbidden),
            (UpdateKind::UpdateUnknown, 0, Code::InvalidArgument),
            (UpdateKind::Remove, 4, Code::InvalidArgument),
        ] {
            let request = pb::UpdateRequest {
                kind: kind.into(),
                length,
                chunk: Some(pb::ChunkKey::default()),
                ..Default::default()
            };
            let refusal = update(&request, Buf::unpooled(length as usize)).unwrap_err();
            assert_eq!(refusal.code, code, "{kind:?}");
        }
    }

    fn forwards() -> Vec<Vec<u8>> {
        let sent = changes().into_iter().flat_map(|change| {
            [false, true].map(|resync| forward_request(1, &sample(change.clone(), resync)).0)
        });
        sent.map(|request| request.encode_to_vec()).collect()
    }

    /// An update, sent and received.
    fn sent_again(came: &Forward<Payload>) -> Forward<Payload> {
        let (request, bulk) = forward_request(1, came);
        let mut buf = Buf::unpooled(bulk.iter().map(|part| part.len()).sum());
        bulk.iter().for_each(|part| buf.copy_from_slice(part));
        forward(request, buf).unwrap()
    }

    #[test]
    fn damaged_forwards() {
        ff2_fuzz::target!(10_000, forwards(), |bytes| {
            let Ok(mut request) = pb::ForwardRequest::decode(bytes) else { return };
            let Some(update) = &mut request.update else {
                return assert!(forward(request, Buf::unpooled(0)).is_err());
            };
            // As many bulk bytes as the message says, if these are few.
            let length = if update.length > 64 { 10 } else { update.length };
            let bulk = || {
                let mut bulk = Buf::unpooled(length as usize);
                bulk.fill(7);
                bulk
            };
            assert!(forward(request_of(update), bulk()).is_err(), "no version");
            update.crc32c = Payload::from(bulk().freeze()).crc32c();
            let _ = super::update(update, bulk());
            if let Ok(came) = forward(request, bulk()) {
                assert_eq!(format!("{:?}", sent_again(&came)), format!("{came:?}"));
            }
        });
    }

    fn request_of(update: &pb::UpdateRequest) -> pb::ForwardRequest {
        pb::ForwardRequest { update: Some(update.clone()), ..Default::default() }
    }

    fn settlements() -> Vec<Vec<u8>> {
        let id = UpdateId { made_under: ChainVersion(4), version: version_of(8) };
        let chunk = ChunkId::new(InodeId(7), 9);
        let outcome = Outcome { chunk, id, committed: true };
        let updates = vec![settled(&outcome); 3];
        vec![pb::SettleRequest { updates, ..Default::default() }.encode_to_vec()]
    }

    #[test]
    fn damaged_settlements() {
        ff2_fuzz::target!(settlements(), |bytes| {
            let Ok(request) = pb::SettleRequest::decode(bytes) else { return };
            if let Ok(outcomes) = ff2_fuzz::bounded(bytes, || outcomes(&request)) {
                let again: Vec<_> = outcomes.iter().map(settled).collect();
                assert_eq!(again, request.updates);
            }
        });
    }
}
