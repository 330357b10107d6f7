//! Reads: from any serving replica, several at a time, each piece checked.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use ff2_client_core::{ReadBatch, ReadSpan, plan_read};
use ff2_proto::{
    ChainId, ChunkVersion, Code, NodeId, Retry, Routing, Status, TargetId, pb, routing::ChainExt,
    status::check,
};
use futures::{StreamExt, stream};

use super::{ChainClient, READ_ATTEMPT, ReadPiece, attempt::Pursuit, crc32c};
use crate::{BufPool, Call, SharedBuf, StorageClient};

/// Calls of one read in flight: enough for every node of a small cluster, few enough that one
/// reader does not take the whole pool.
const READ_CALLS_MAX: usize = 8;

/// How one batch is asked for.
#[derive(Clone, Copy)]
struct How<'a> {
    /// Where its bytes land.
    pool: &'a Arc<BufPool>,
    grant: &'a Bytes,
    /// The server looks whether its disk is damaged.
    verify: bool,
}

/// Who gets the piece of a span, by its place, when it is there.
pub type Came<'a> = &'a mut (dyn FnMut(usize, ReadPiece) + Send);

/// What became of one span of a batch.
type Outcome = (usize, Result<ReadPiece, Status>);

impl ChainClient {
    /// Reads every span; the pieces are in their order. Bytes that no chunk has are zeros.
    ///
    /// Spans that one node serves share a call, and their pieces share one buffer.
    pub async fn read(
        &self,
        spans: &[ReadSpan],
        grant: &Bytes,
        deadline: Instant,
    ) -> Result<Vec<ReadPiece>, Status> {
        self.read_into(&self.pool, spans, grant, deadline).await
    }

    /// As [`ChainClient::read`], with a buffer from this pool for each call.
    pub async fn read_into(
        &self,
        pool: &Arc<BufPool>,
        spans: &[ReadSpan],
        grant: &Bytes,
        deadline: Instant,
    ) -> Result<Vec<ReadPiece>, Status> {
        let mut pieces: Vec<Option<ReadPiece>> = vec![None; spans.len()];
        let mut came = |place: usize, piece| pieces[place] = Some(piece);
        self.read_each(pool, spans, grant, deadline, &mut came).await?;
        let pieces: Option<Vec<_>> = pieces.into_iter().collect();
        Ok(pieces.expect("without a failure every span has its piece"))
    }

    /// As [`ChainClient::read_into`], and each piece is given away when it is there, with the place of its span:
    /// what a fast server answers does not wait for a slow one. If it fails some may have been given.
    pub async fn read_each(
        &self,
        pool: &Arc<BufPool>,
        spans: &[ReadSpan],
        grant: &Bytes,
        deadline: Instant,
        came: Came<'_>,
    ) -> Result<(), Status> {
        let mut is_there = vec![false; spans.len()];
        let mut wanted: Vec<usize> = (0..spans.len()).collect();
        let mut pursuit = Pursuit::new(self, deadline);
        while !wanted.is_empty() {
            let before = wanted.len();
            let mut came = |place: usize, piece| {
                is_there[place] = true;
                came(place, piece);
            };
            let round = self.read_round(pool, spans, &wanted, grant, &pursuit, &mut came);
            let failure = round.await;
            wanted.retain(|place| !is_there[*place]);
            if wanted.len() < before {
                pursuit.progressed();
            }
            if let Some(failure) = failure {
                if failure.code == Code::Corrupt && !self.has_replicas(spans, &wanted) {
                    // Nobody else has these bytes or will have: waiting changes nothing.
                    return Err(failure);
                }
                let alternatives = self.has_alternatives(spans, &wanted);
                pursuit.failed(failure, alternatives).await?;
            }
        }
        Ok(())
    }

    /// Asks once for everything that is wanted. Returns the failure to act upon, if any span has no
    /// piece after it.
    async fn read_round(
        &self,
        pool: &Arc<BufPool>,
        spans: &[ReadSpan],
        wanted: &[usize],
        grant: &Bytes,
        pursuit: &Pursuit<'_>,
        came: Came<'_>,
    ) -> Option<Status> {
        let routing = self.routing.get();
        let plan = {
            let health = self.health.lock();
            plan_read(&routing, spans, wanted, &health, self.now(), self.next_salt())
        };
        let mut worst: Option<Status> = None;
        if let Some(place) = plan.unserved.first() {
            let why = format!("chain {} has no serving member", spans[*place].chain);
            worst = Some(Status::new(Code::NotServing, why));
        }
        let mut take = |outcomes: Vec<Outcome>| {
            for (place, outcome) in outcomes {
                match outcome {
                    Ok(piece) => came(place, piece),
                    Err(failure) => {
                        self.learn(&failure);
                        worst = Some(more_telling(worst.take(), failure));
                    }
                }
            }
        };
        if let [batch] = &plan.batches[..] {
            // The most frequent case by far needs no set of calls.
            take(self.read_batch(pool, &routing, spans, batch, grant, pursuit).await);
            return worst;
        }
        // Not by an iterator's closure: the compiler cannot see that such futures are `Send`.
        let mut calls = Vec::with_capacity(plan.batches.len());
        for batch in &plan.batches {
            calls.push(self.read_batch(pool, &routing, spans, batch, grant, pursuit));
        }
        let mut calls = stream::iter(calls).buffer_unordered(READ_CALLS_MAX);
        while let Some(outcomes) = calls.next().await {
            take(outcomes);
        }
        worst
    }

    async fn read_batch(
        &self,
        pool: &Arc<BufPool>,
        routing: &Routing,
        spans: &[ReadSpan],
        batch: &ReadBatch,
        grant: &Bytes,
        pursuit: &Pursuit<'_>,
    ) -> Vec<Outcome> {
        let mut how = How { pool, grant, verify: false };
        let mut outcomes = self.ask(how, routing, spans, batch, pursuit).await;
        if outcomes.iter().any(|(_, outcome)| is_mismatch(outcome)) {
            // On the way or on the disk: the server looks, and repairs what is damaged there. First the
            // buffer goes back, or everybody who finds a difference could wait for one more.
            outcomes.clear();
            how.verify = true;
            outcomes = self.ask(how, routing, spans, batch, pursuit).await;
        }
        self.judge(batch, &outcomes);
        self.counters.read_calls.fetch_add(1, Ordering::Relaxed);
        outcomes
    }

    async fn ask(
        &self,
        how: How<'_>,
        routing: &Routing,
        spans: &[ReadSpan],
        batch: &ReadBatch,
        pursuit: &Pursuit<'_>,
    ) -> Vec<Outcome> {
        match self.call_read(how, routing, spans, batch, pursuit).await {
            Ok((reply, bytes)) => take_apart(spans, batch, &reply, &bytes),
            Err(failure) => {
                batch.parts.iter().map(|part| (part.span, Err(failure.clone()))).collect()
            }
        }
    }

    async fn call_read(
        &self,
        how: How<'_>,
        routing: &Routing,
        spans: &[ReadSpan],
        batch: &ReadBatch,
        pursuit: &Pursuit<'_>,
    ) -> Result<(pb::ReadReply, SharedBuf), Status> {
        let address = routing
            .address(batch.node)
            .ok_or_else(|| Status::new(Code::NotServing, "the node's address is not known"))?;
        let request = pb::ReadRequest {
            parts: batch
                .parts
                .iter()
                .map(|part| {
                    let span = &spans[part.span];
                    pb::ReadPart {
                        chain: span.chain.0,
                        chain_version: part.chain_version.0,
                        target: part.target.0,
                        chunk: Some(span.chunk.into()),
                        offset: span.offset,
                        length: span.length,
                    }
                })
                .collect(),
            grant: how.grant.clone(),
            verify: how.verify,
        };
        let length = usize::try_from(batch.bytes).unwrap_or(usize::MAX);
        let Some(into) = pursuit.before_deadline(how.pool.get(length)).await else {
            let detail = "all buffers of this client are in use: drop results of earlier reads";
            return Err(Status::new(Code::Busy, detail));
        };
        let into = Some(into);
        let call = Call { timeout: pursuit.limit(READ_ATTEMPT), into, ..Call::default() };
        let client = StorageClient::new(self.peers.channel(address));
        let targets: Vec<_> =
            batch.parts.iter().map(|part| (spans[part.span].chain, part.target)).collect();
        let asked = std::pin::pin!(client.read(&request, call));
        let stopped = std::pin::pin!(self.stopped_serving(&targets));
        match futures::future::select(asked, stopped).await {
            futures::future::Either::Left((answer, _)) => {
                let (reply, bytes) = answer?;
                Ok((reply, bytes.freeze()))
            }
            futures::future::Either::Right(((), _)) => {
                Err(Status::new(Code::Unreachable, "the replica stopped serving"))
            }
        }
    }

    /// Remembers which targets to prefer and which to avoid.
    fn judge(&self, batch: &ReadBatch, outcomes: &[Outcome]) {
        let now = self.now();
        let mut health = self.health.lock();
        for (place, outcome) in outcomes {
            let Some(part) = batch.parts.iter().find(|part| part.span == *place) else { continue };
            match outcome {
                Ok(piece) => {
                    let bytes = piece.bytes.len() as u64;
                    self.counters.read_bytes.fetch_add(bytes, Ordering::Relaxed);
                    if !health.is_empty() {
                        health.succeeded(part.target);
                    }
                }
                Err(failure) if tells_of_target(failure) => health.failed(now, part.target),
                Err(_) => {}
            }
        }
    }

    /// Whether a span that is still wanted lies on more than one target.
    fn has_replicas(&self, spans: &[ReadSpan], wanted: &[usize]) -> bool {
        let routing = self.routing.get();
        wanted.iter().any(|place| {
            let chain = routing.chains.get(&spans[*place].chain);
            chain.is_none_or(|chain| chain.members.len() > 1)
        })
    }

    /// Whether a replica that did not fail lately serves some span that is still wanted.
    fn has_alternatives(&self, spans: &[ReadSpan], wanted: &[usize]) -> bool {
        let routing = self.routing.get();
        let health = self.health.lock();
        let now = self.now();
        let fresh = |chain: ChainId| {
            let chain = routing.chains.get(&chain);
            chain.is_some_and(|chain| {
                chain.serving().any(|member| {
                    routing.nodes.get(&NodeId(member.node)).is_some_and(|node| node.alive)
                        && !health.is_avoided(now, TargetId(member.target))
                })
            })
        };
        wanted.iter().any(|place| fresh(spans[*place].chain))
    }
}

fn is_mismatch(outcome: &Result<ReadPiece, Status>) -> bool {
    outcome.as_ref().is_err_and(|failure| failure.code == Code::ChecksumMismatch)
}

/// Whether a failure speaks against the target, rather than against the question or the moment.
fn tells_of_target(failure: &Status) -> bool {
    match failure.code {
        Code::PendingVersion => false,
        Code::NotServing | Code::NoSuchTarget => true,
        _ => failure.retry() == Retry::OtherTarget,
    }
}

/// Of two failures the one to act upon: a final one, else one that carries a hint, else the first.
fn more_telling(before: Option<Status>, now: Status) -> Status {
    match before {
        None => now,
        Some(before) if before.retry() == Retry::Never => before,
        Some(_) if now.retry() == Retry::Never || now.chain.is_some() => now,
        Some(before) => before,
    }
}

/// Cuts a reply into the pieces of its spans and checks each. A part that failed has its place in
/// the payload, or the payload holds only the parts that succeeded.
fn take_apart(
    spans: &[ReadSpan],
    batch: &ReadBatch,
    reply: &pb::ReadReply,
    bytes: &SharedBuf,
) -> Vec<Outcome> {
    let length = |span: usize| spans[span].length as usize;
    let answered = batch.parts.iter().zip(&reply.parts);
    let present: usize = answered
        .clone()
        .filter(|(_, answer)| check(answer.status.clone()).is_ok())
        .map(|(part, _)| length(part.span))
        .sum();
    let padded = bytes.len() as u64 == batch.bytes;
    if reply.parts.len() != batch.parts.len() || !(padded || bytes.len() == present) {
        let why = format!(
            "{} parts and {} bytes for a read of {} and {}",
            reply.parts.len(),
            bytes.len(),
            batch.parts.len(),
            batch.bytes
        );
        let failure = Status::new(Code::BadFrame, why);
        return batch.parts.iter().map(|part| (part.span, Err(failure.clone()))).collect();
    }
    let mut at = 0;
    let mut outcomes = Vec::with_capacity(batch.parts.len());
    for (part, answer) in answered {
        let outcome = match check(answer.status.clone()) {
            Ok(()) => {
                let piece = bytes.slice(at..at + length(part.span));
                at += length(part.span);
                check_piece(answer, piece)
            }
            Err(failure) => {
                at += if padded { length(part.span) } else { 0 };
                Err(failure)
            }
        };
        outcomes.push((part.span, outcome));
    }
    outcomes
}

fn check_piece(answer: &pb::ReadPartReply, bytes: SharedBuf) -> Result<ReadPiece, Status> {
    let computed = crc32c(&bytes);
    if computed != answer.crc32c {
        let why = format!("crc {computed:08x}, the server computed {:08x}", answer.crc32c);
        return Err(Status::new(Code::ChecksumMismatch, why));
    }
    Ok(ReadPiece {
        bytes,
        version: ChunkVersion(answer.version),
        chunk_length: answer.chunk_length,
    })
}
