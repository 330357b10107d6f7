//! A chain of one member: the CRAQ machine, and a store that does what the update planner says, to the
//! letter. What a block holds where nothing was written is garbage.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ff2_proto::{ChainId, ChainVersion, ChunkId, TargetId, pb};
use ff2_storage_core::{
    format::{PIECE_SIZE, SECTOR},
    plan::{self, ChunkState, PieceState, Plan, Step},
    target::{CallId, Change, Done, Input, Now, Output, Reply, StoreOp, Target, Update},
};

const GARBAGE: u8 = 0xee;

#[derive(Clone, Debug, Default)]
struct Piece {
    block: Vec<u8>,
    /// Sectors with content.
    written: u64,
}

#[derive(Clone, Debug, Default)]
struct Chunk {
    length: u32,
    pieces: BTreeMap<u16, Piece>,
}

pub(crate) struct Chain {
    target: Target<Bytes>,
    committed: BTreeMap<ChunkId, Chunk>,
    /// What a prepare made; nothing: the chunk goes.
    pending: BTreeMap<ChunkId, Option<Chunk>>,
    calls: u64,
}

impl Chain {
    pub(crate) fn new(id: ChainId) -> Self {
        let member = pb::ChainMember { target: 1, state: pb::PublicState::Serving.into(), node: 1 };
        let chain = pb::Chain { id: id.0, version: 1, members: vec![member], ..Default::default() };
        let target = Target::new(TargetId(1), id, ChainVersion(0), []);
        let (committed, pending) = (BTreeMap::new(), BTreeMap::new());
        let mut one = Self { target, committed, pending, calls: 0 };
        one.step(Input::Chain(chain));
        one
    }

    /// `luck` decides what depends on the disk's moment.
    pub(crate) fn update(
        &mut self,
        chunk: ChunkId,
        change: Change<Bytes>,
        chunk_size: u32,
        luck: bool,
    ) -> Done {
        self.calls += 1;
        let chain_version = ChainVersion(self.target.chain().version);
        let tag =
            Some(pb::UpdateTag { session: 1, channel: 0, seq: self.calls, ack_below: self.calls });
        let update = Update { chain_version, chunk, change, chunk_size, tag };
        let mut out = self.step(Input::Update { call: CallId(self.calls), update });
        let mut answer = None;
        // The commit comes beside the answer.
        while !out.is_empty() {
            let mut next = Vec::new();
            for output in out {
                match output {
                    Output::Reply { reply: Reply::Update(done), .. } => {
                        answer = Some(done.expect("an update"));
                    }
                    Output::Store { chunk, op } => {
                        self.store(chunk, op, luck);
                        next.extend(self.step(Input::Stored { chunk, result: Ok(()) }));
                    }
                    Output::Changed => {}
                    other => panic!("a chain of one has nobody to ask: {other:?}"),
                }
            }
            out = next;
        }
        answer.expect("an update is answered")
    }

    /// As many bytes as the chunk has.
    pub(crate) fn read(&mut self, chunk: ChunkId) -> Vec<u8> {
        self.calls += 1;
        let call = CallId(self.calls);
        let mut out = self.step(Input::Read { call, chunk });
        if matches!(out[..], [Output::Read { .. }]) {
            out = self.step(Input::ReadDone { call, result: Ok(()) });
        }
        assert!(matches!(out[..], [Output::Reply { reply: Reply::Read(Ok(_)), .. }]), "{out:?}");
        let Some(found) = self.committed.get(&chunk) else { return Vec::new() };
        found.bytes()
    }

    /// Chunks of an inode that are there, with their lengths.
    pub(crate) fn list(&self, inode: u64) -> Vec<(ChunkId, u32)> {
        let of_inode = self.committed.iter().filter(|(chunk, _)| chunk.inode.0 == inode);
        of_inode.map(|(chunk, found)| (*chunk, found.length)).collect()
    }

    fn step(&mut self, input: Input<Bytes>) -> Vec<Output<Bytes>> {
        let mut out = Vec::new();
        self.target.step(Now { at: Duration::from_secs(1), lease: true }, input, &mut out);
        self.target.check();
        out
    }

    fn store(&mut self, chunk: ChunkId, op: StoreOp<Bytes>, luck: bool) {
        match op {
            StoreOp::Prepare { change, chunk_size, .. } => {
                let before = self.committed.get(&chunk).cloned().unwrap_or_default();
                let after = before.changed(&change, chunk_size, luck);
                self.pending.insert(chunk, (!change.removes()).then_some(after));
            }
            StoreOp::Commit { .. } => {
                match self.pending.remove(&chunk).expect("a commit has its prepare") {
                    Some(after) => drop(self.committed.insert(chunk, after)),
                    None => drop(self.committed.remove(&chunk)),
                }
            }
            StoreOp::Abort { .. } => drop(self.pending.remove(&chunk)),
        }
    }
}

impl Chunk {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; (self.length as usize).next_multiple_of(SECTOR as usize)];
        for (at, piece) in &self.pieces {
            for sector in bits(piece.written) {
                let start = u32::from(*at) * PIECE_SIZE + sector * SECTOR;
                let place = start as usize..(start + SECTOR) as usize;
                bytes[place].copy_from_slice(&piece.block[range(sector)]);
            }
        }
        bytes.truncate(self.length as usize);
        bytes
    }

    fn changed(&self, change: &Change<Bytes>, chunk_size: u32, luck: bool) -> Self {
        let states: BTreeMap<u16, PieceState> = self
            .pieces
            .iter()
            .map(|(at, piece)| {
                let (block_size, written) = (piece.block.len() as u32, piece.written);
                (*at, PieceState { block_size, written })
            })
            .collect();
        let state = ChunkState {
            length: self.length,
            chunk_size,
            may_fill: luck,
            grows: !luck,
            keeps: false,
            pieces: &states,
        };
        let plan = plan::plan(&state, planned(change)).expect("a change within the chunk");
        let mut pieces = self.pieces.clone();
        for (at, step) in &plan.steps {
            match *step {
                Step::Drop => drop(pieces.remove(at)),
                Step::Rewrite { block_size, write, keep } => {
                    let mut piece =
                        Piece { block: vec![GARBAGE; block_size as usize], written: write | keep };
                    for sector in bits(keep) {
                        let range = range(sector);
                        piece.block[range.clone()].copy_from_slice(&self.pieces[at].block[range]);
                    }
                    self.put(&plan, *at, write, change, &mut piece);
                    pieces.insert(*at, piece);
                }
                Step::Adjust { fill, patch, clear } => {
                    let mut piece = self.pieces[at].clone();
                    piece.written = (piece.written | fill | patch) & !clear;
                    self.put(&plan, *at, fill | patch, change, &mut piece);
                    pieces.insert(*at, piece);
                }
            }
        }
        Self { length: plan.length, pieces }
    }

    /// Puts the update's bytes into these sectors, over what they held where the plan says so.
    fn put(&self, plan: &Plan, at: u16, sectors: u64, change: &Change<Bytes>, piece: &mut Piece) {
        let merge = plan.merge.get(&at).copied().unwrap_or(0);
        for sector in bits(sectors) {
            let mut bytes = vec![0; SECTOR as usize];
            if merge & 1 << sector != 0 {
                bytes.copy_from_slice(&self.pieces[&at].block[range(sector)]);
            }
            let start = u32::from(at) * PIECE_SIZE + sector * SECTOR;
            for (byte, place) in bytes.iter_mut().zip(start..) {
                *byte = match change {
                    Change::Write { offset, length, payload }
                        if (*offset..offset + length).contains(&place) =>
                    {
                        payload[(place - offset) as usize]
                    }
                    Change::Replace { payload, .. } => {
                        payload.get(place as usize).copied().unwrap_or(0)
                    }
                    Change::Truncate { length } if place >= *length => 0,
                    _ => *byte,
                };
            }
            piece.block[range(sector)].copy_from_slice(&bytes);
        }
    }
}

fn planned(change: &Change<Bytes>) -> plan::Change {
    match change {
        Change::Write { offset, length, .. } => {
            plan::Change::Write { offset: *offset, length: *length }
        }
        Change::Truncate { length } => plan::Change::Truncate { length: *length },
        Change::Remove => plan::Change::Remove,
        Change::Replace { length, payload } => {
            plan::Change::Replace { length: *length, payload: payload.len() as u32 }
        }
    }
}

fn bits(mask: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| mask & 1 << bit != 0)
}

fn range(sector: u32) -> std::ops::Range<usize> {
    let start = (sector * SECTOR) as usize;
    start..start + SECTOR as usize
}
