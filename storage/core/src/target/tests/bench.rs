//! One machine that is driven by hand, and what its outputs say.

use std::time::Duration;

use bytes::Bytes;
use ff2_proto::{ChainId, Code, TargetId, limits as shared, pb};
use pb::PublicState::{Offline, Serving};

use super::{chain, chunk, cv, payload};
use crate::{
    tags::Tags,
    target::{
        Attempt, CallId, Change, Forward, Input, Loaded, Now, Output, Reply, StoreOp, Target,
        Update, UpdateId,
    },
};

/// One machine that is driven by hand.
pub(super) struct Bench {
    pub(super) target: Target<Bytes>,
    pub(super) at: Duration,
    pub(super) lease: bool,
    pub(super) calls: u64,
}

impl Bench {
    pub(super) fn new(id: u64, chain: pb::Chain) -> Self {
        Self::with(id, chain, 0, [])
    }

    pub(super) fn with(
        id: u64,
        chain: pb::Chain,
        serve_after: u64,
        loaded: impl IntoIterator<Item = Loaded>,
    ) -> Self {
        let target = Target::new(TargetId(id), ChainId(1), cv(serve_after), loaded);
        let mut bench = Self { target, at: Duration::from_secs(1), lease: true, calls: 0 };
        bench.step(Input::Chain(chain));
        bench
    }

    pub(super) fn step(&mut self, input: Input<Bytes>) -> Vec<Output<Bytes>> {
        let mut out = Vec::new();
        self.target.step(Now { at: self.at, lease: self.lease }, input, &mut out);
        self.target.check();
        out
    }

    pub(super) fn later(&mut self, by: Duration) -> Vec<Output<Bytes>> {
        self.at += by;
        let mut out = Vec::new();
        self.target.tick(Now { at: self.at, lease: self.lease }, &mut out);
        self.target.check();
        out
    }

    pub(super) fn call(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    pub(super) fn update(&mut self, seq: u64, change: Change<Bytes>) -> Vec<Output<Bytes>> {
        let tag = Some(pb::UpdateTag { session: 1, channel: 0, seq, ack_below: seq });
        let chain_version = cv(self.target.chain().version);
        let update = Update { chain_version, chunk: place(), change, chunk_size: SIZE, tag };
        let call = self.call();
        self.step(Input::Update { call, update })
    }

    pub(super) fn write(&mut self, seq: u64) -> Vec<Output<Bytes>> {
        self.update(seq, write(seq as u8))
    }

    pub(super) fn forward(
        &mut self,
        from: u64,
        id: UpdateId,
        base: Option<UpdateId>,
    ) -> Vec<Output<Bytes>> {
        let forward = self.forward_of(from, id, base, write(9));
        let call = self.call();
        self.step(Input::Forward { call, forward })
    }

    pub(super) fn forward_of(
        &self,
        from: u64,
        id: UpdateId,
        base: Option<UpdateId>,
        change: Change<Bytes>,
    ) -> Forward<Bytes> {
        Forward {
            chain_version: cv(self.target.chain().version),
            from: from.into(),
            to: self.target.id(),
            chunk: place(),
            id,
            base,
            change,
            chunk_size: SIZE,
            tag: None,
            tags: Tags::default(),
            keeping: Default::default(),
            resync: false,
        }
    }

    pub(super) fn read(&mut self) -> Vec<Output<Bytes>> {
        let call = self.call();
        self.step(Input::Read { call, chunk: place() })
    }

    /// The store did what it was asked.
    pub(super) fn stored(&mut self) -> Vec<Output<Bytes>> {
        self.step(Input::Stored { chunk: place(), result: Ok(()) })
    }

    pub(super) fn forwarded(
        &mut self,
        attempt: Attempt,
        result: Result<(), Code>,
    ) -> Vec<Output<Bytes>> {
        let result = result.map_err(Into::into);
        self.step(Input::Forwarded { chunk: place(), attempt, result })
    }

    /// A head that has committed one write.
    pub(super) fn with_one_write(mut self) -> Self {
        let out = self.write(1);
        let attempt = sent(&out);
        self.stored();
        if let Some(attempt) = attempt {
            self.forwarded(attempt, Ok(()));
        }
        self.stored();
        self
    }
}

pub(super) const SIZE: u32 = shared::CHUNK_SIZE_MIN;

pub(super) fn place() -> ff2_proto::ChunkId {
    chunk(7, 0)
}

pub(super) fn write(byte: u8) -> Change<Bytes> {
    Change::Write { offset: 0, length: 1, payload: payload(&[byte]) }
}

pub(super) fn id(made_under: u64, version: u64) -> UpdateId {
    UpdateId { made_under: made_under.into(), version: version.into() }
}

pub(super) fn head_of_two() -> Bench {
    Bench::new(1, chain(2, &[(1, Serving), (2, Serving)]))
}

pub(super) fn tail_of_two() -> Bench {
    Bench::new(2, chain(2, &[(1, Serving), (2, Serving)]))
}

pub(super) fn alone() -> Bench {
    Bench::new(1, chain(2, &[(1, Serving), (2, Offline)]))
}

pub(super) fn sent(out: &[Output<Bytes>]) -> Option<Attempt> {
    out.iter().find_map(|output| match output {
        Output::Forward { attempt, .. } | Output::ForwardFull { attempt, .. } => Some(*attempt),
        _ => None,
    })
}

pub(super) fn refusals(out: &[Output<Bytes>]) -> Vec<Code> {
    let codes = out.iter().filter_map(|output| match output {
        Output::Reply { reply, .. } => match reply {
            Reply::Update(Err(status)) | Reply::Read(Err(status)) | Reply::Query(Err(status)) => {
                Some(status.code)
            }
            Reply::SyncDone(Err(status)) => Some(status.code),
            _ => None,
        },
        _ => None,
    });
    codes.collect()
}

pub(super) fn versions_done(out: &[Output<Bytes>]) -> Vec<u64> {
    let done = out.iter().filter_map(|output| match output {
        Output::Reply { reply: Reply::Update(Ok(done)), .. } => Some(done.version.0),
        _ => None,
    });
    done.collect()
}

pub(super) fn stores(out: &[Output<Bytes>]) -> Vec<&'static str> {
    let ops = out.iter().filter_map(|output| match output {
        Output::Store { op: StoreOp::Prepare { .. }, .. } => Some("prepare"),
        Output::Store { op: StoreOp::Commit { .. }, .. } => Some("commit"),
        Output::Store { op: StoreOp::Abort { .. }, .. } => Some("abort"),
        _ => None,
    });
    ops.collect()
}

pub(super) fn reads_disk(out: &[Output<Bytes>]) -> bool {
    out.iter().any(|output| matches!(output, Output::Read { .. }))
}

pub(super) fn settled(out: &[Output<Bytes>]) -> Option<bool> {
    out.iter().find_map(|output| match output {
        Output::Settle { outcome, .. } => Some(outcome.committed),
        _ => None,
    })
}

/// A look at what the successor has.
pub(super) fn page_asked(out: &[Output<Bytes>]) -> Option<Attempt> {
    out.iter().find_map(|output| match output {
        Output::SyncPage { attempt, .. } => Some(*attempt),
        _ => None,
    })
}
