//! Files through the cores of client, namespace and storage: what the client library and the namespace's
//! leader do between them, one call after the other.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ff2_client_core::{InlineWrites, Lengths, read_spans, write_spans};
use ff2_meta_core::{MemKv, StateMachine, namespace};
use ff2_proto::{
    ChainId, Code, InodeId, layout, limits,
    pb::{self, ns_request::Op},
    status,
};
use ff2_storage_core::target::Change;
use namespace::{Class, Namespace};
use prost::Message;

use crate::store::Chain;

/// Two pieces of the planner.
pub(crate) const CHUNK_SIZE: u32 = 8 * limits::CHUNK_SIZE_MIN;
const LAYOUT: pb::Layout =
    pb::Layout { table: 1, table_version: 1, chunk_size: CHUNK_SIZE, stripe: 2, seed: 7 };

pub(crate) struct Cluster {
    kv: MemKv,
    index: u64,
    chains: BTreeMap<ChainId, Chain>,
    pub(crate) clients: Vec<Client>,
    /// Of the next choice that only a disk's moment decides.
    pub(crate) luck: bool,
}

#[derive(Debug)]
pub(crate) struct Client {
    session: u64,
    seq: u64,
    lengths: Lengths,
    inline: BTreeMap<u64, InlineWrites>,
}

impl Cluster {
    pub(crate) fn new(clients: u64) -> Self {
        let mut kv = MemKv::new();
        Namespace::format(&mut kv, 5, 0);
        let chains = (1..=3).map(|id| (ChainId(id), Chain::new(ChainId(id)))).collect();
        let mut cluster = Self { kv, index: 0, chains, clients: Vec::new(), luck: false };
        for nonce in 1..=clients {
            let client = cluster.open_session(nonce);
            cluster.clients.push(client);
        }
        cluster
    }

    fn open_session(&mut self, nonce: u64) -> Client {
        let open = pb::OpenSessionOp { nonce, ..Default::default() };
        let session = self.lead(Op::OpenSession(open)).session;
        Client { session, seq: 0, lengths: Lengths::new(), inline: BTreeMap::new() }
    }

    /// A file that all clients have open for writing.
    pub(crate) fn create(&mut self, name: String) -> u64 {
        let name = Bytes::from(name);
        let op = pb::CreateOp {
            parent: 1,
            name,
            write: true,
            inline: true,
            mode: 0o644,
            ..Default::default()
        };
        let inode = self.ask(0, Op::Create(op)).expect("a file").attr.expect("an attr").inode;
        for client in 1..self.clients.len() {
            self.open(client, inode);
        }
        inode
    }

    fn open(&mut self, client: usize, inode: u64) {
        let op = Op::Open(pb::OpenOp { inode, read: true, write: true, ..Default::default() });
        self.ask(client, op).expect("an open");
    }

    pub(crate) fn is_inline(&self, inode: u64) -> bool {
        self.attr(inode).inline
    }

    /// What the client sees as the file's end.
    pub(crate) fn size(&mut self, client: usize, inode: u64) -> u64 {
        let told = self.attr(inode).size;
        let own = &self.clients[client];
        let pending = own.inline.get(&inode).map_or(0, |writes| {
            writes.pieces().map(|(at, bytes)| u64::from(at) + bytes.len() as u64).max().unwrap_or(0)
        });
        own.lengths.size(InodeId(inode), told).max(pending)
    }

    pub(crate) fn write(&mut self, client: usize, inode: u64, offset: u64, bytes: &[u8]) {
        if self.attr(inode).inline {
            if offset + bytes.len() as u64 <= u64::from(limits::INLINE_BYTES_MAX) {
                let writes = self.clients[client].inline.entry(inode).or_default();
                return writes.write(offset as u32, bytes);
            }
            // The namespace has all bytes before it gives them to the first chunk.
            self.report(client, inode);
            self.ask(client, Op::Spill(pb::SpillOp { inode })).expect("a spill");
        }
        let (file, chains) = (InodeId(inode), self.stripe());
        for span in write_spans(file, &LAYOUT, &chains, offset, bytes.len() as u64) {
            let from = span.payload_offset;
            let payload = Bytes::copy_from_slice(&bytes[from..from + span.length as usize]);
            let change = Change::Write { offset: span.offset, length: span.length, payload };
            self.update(span.chain, span.chunk, change);
        }
        let end = offset + bytes.len() as u64;
        self.clients[client].lengths.wrote(Duration::ZERO, file, end);
    }

    /// What fsync tells the namespace.
    pub(crate) fn report(&mut self, client: usize, inode: u64) {
        let report = self.clients[client].lengths.report(InodeId(inode));
        let pieces: Vec<(u32, Vec<u8>)> = match self.clients[client].inline.get(&inode) {
            Some(writes) => writes.pieces().map(|(at, bytes)| (at, bytes.to_vec())).collect(),
            None => Vec::new(),
        };
        if report.is_none() && pieces.is_empty() {
            return;
        }
        let piece = |(at, bytes): &(u32, Vec<u8>)| pb::InlineWrite {
            offset: *at,
            bytes: bytes.clone().into(),
        };
        let op = pb::ReportLengthOp {
            inode,
            length_at_least: report.map_or(0, |report| report.length_at_least),
            inline_writes: pieces.iter().map(piece).collect(),
            ..Default::default()
        };
        let told = self.ask(client, Op::ReportLength(op));
        if let Some(writes) = self.clients[client].inline.get_mut(&inode) {
            writes.clear();
        }
        match told {
            Ok(_) => {
                report.into_iter().for_each(|report| self.clients[client].lengths.reported(report))
            }
            // Somebody else moved the file to chunks.
            Err(Code::NotInline) => {
                pieces
                    .iter()
                    .for_each(|(at, bytes)| self.write(client, inode, (*at).into(), bytes));
                self.report(client, inode);
            }
            Err(code) => panic!("a report: {code:?}"),
        }
    }

    pub(crate) fn truncate(&mut self, client: usize, inode: u64, size: u64) {
        self.report(client, inode);
        let set = pb::SetAttrOp { inode, size: Some(size), by_handle: true, ..Default::default() };
        self.ask(client, Op::SetAttr(set)).expect("a truncation");
        self.clients[client].lengths.truncated(InodeId(inode), size);
    }

    /// Up to the end of the file.
    pub(crate) fn read(&mut self, client: usize, inode: u64, offset: u64, length: u64) -> Vec<u8> {
        let size = self.size(client, inode);
        let end = offset.saturating_add(length).min(size).max(offset);
        if self.attr(inode).inline {
            let op = Op::ReadInline(pb::ReadInlineOp { inode, ..Default::default() });
            let mut bytes = self.ask(client, op).expect("inline bytes").inline_data.to_vec();
            if let Some(writes) = self.clients[client].inline.get(&inode) {
                writes.over(&mut bytes);
            }
            bytes.resize(size as usize, 0);
            return bytes.get(offset as usize..end as usize).unwrap_or_default().to_vec();
        }
        let mut found = Vec::new();
        for span in read_spans(InodeId(inode), &LAYOUT, &self.stripe(), offset, end - offset) {
            let mut chunk = self.chains.get_mut(&span.chain).expect("a chain").read(span.chunk);
            chunk.resize(CHUNK_SIZE as usize, 0);
            found.extend(&chunk[span.offset as usize..(span.offset + span.length) as usize]);
        }
        found
    }

    /// The client dies without a word: its session expires, the chains are asked how far it wrote, and it is
    /// mounted anew.
    pub(crate) fn expire(&mut self, client: usize, files: &[u64], nonce: u64) {
        let sessions = vec![self.clients[client].session];
        self.lead(Op::ExpireSessions(pb::ExpireSessionsOp { sessions }));
        self.ask_chains();
        self.clients[client] = self.open_session(nonce);
        files.iter().for_each(|inode| self.open(client, *inode));
    }

    /// About the lengths that only they know.
    fn ask_chains(&mut self) {
        let all = Op::ListLengthDoubts(pb::ListLengthDoubtsOp::default());
        for pb::LengthDoubt { inode, doubt, .. } in self.look(all).length_doubts {
            let length = self.length_of_chunks(inode);
            self.lead(Op::RecoverLength(pb::RecoverLengthOp { inode, doubt, length }));
        }
    }

    fn length_of_chunks(&self, inode: u64) -> u64 {
        let chunks = self.chains.values().flat_map(|chain| chain.list(inode));
        let end = |(chunk, length): (ff2_proto::ChunkId, u32)| {
            u64::from(chunk.index) * u64::from(CHUNK_SIZE) + u64::from(length)
        };
        chunks.filter(|(_, length)| *length > 0).map(end).max().unwrap_or(0)
    }

    fn stripe(&self) -> Vec<ChainId> {
        let all: Vec<ChainId> = self.chains.keys().copied().collect();
        layout::stripe_chains(&all, LAYOUT.stripe, LAYOUT.seed)
    }

    fn update(&mut self, chain: ChainId, chunk: ff2_proto::ChunkId, change: Change<Bytes>) {
        let chain = self.chains.get_mut(&chain).expect("a chain");
        chain.update(chunk, change, CHUNK_SIZE, self.luck);
    }

    fn attr(&self, inode: u64) -> pb::Attr {
        self.look(Op::GetAttr(pb::GetAttrOp { inode })).attr.expect("an attr")
    }

    fn look(&self, op: Op) -> pb::NsReply {
        let cred = Some(pb::Credentials::default());
        let request = pb::NsRequest { volume: 1, cred, op: Some(op), ..Default::default() };
        let reply = namespace::query(&self.kv, &request);
        assert_eq!(reply.status, None, "{request:?}");
        reply
    }

    fn lead(&mut self, op: Op) -> pb::NsReply {
        let request = pb::NsRequest { volume: 1, op: Some(op), ..Default::default() };
        self.log(request).expect("the leader's command")
    }

    fn ask(&mut self, client: usize, op: Op) -> Result<pb::NsReply, Code> {
        let own = &mut self.clients[client];
        let mut request = pb::NsRequest {
            volume: 1,
            session: own.session,
            cred: Some(pb::Credentials::default()),
            op: Some(op),
            ..Default::default()
        };
        if namespace::class(&request) == Some(Class::Read) {
            let reply = namespace::query(&self.kv, &request);
            return status::check(reply.status.clone())
                .map_err(|status| status.code)
                .map(|()| reply);
        }
        own.seq += 1;
        (request.seq, request.ack_below) = (own.seq, own.seq);
        self.log(request)
    }

    fn log(&mut self, request: pb::NsRequest) -> Result<pb::NsReply, Code> {
        self.index += 1;
        // Nobody caches anything: all that it changes may change.
        let touched = namespace::touched(&self.kv, &request);
        let command = namespace::stamp(request, self.index as i64, self.index, Some(LAYOUT));
        let level = ff2_proto::LEVEL;
        let command = pb::NsCommand { level, told: true, touched, ..command };
        let answer = Namespace::new().apply(self.index, &command.encode_to_vec(), &mut self.kv);
        let reply = pb::NsReply::decode(&answer[..]).expect("a reply");
        status::check(reply.status.clone()).map_err(|status| status.code)?;
        if let Some(cut) = &reply.truncation {
            self.finish(cut);
        }
        if reply.length_in_doubt {
            self.ask_chains();
        }
        Ok(reply)
    }

    /// What the leader does with chunks that a command left to be cut, or to be made of inline bytes.
    fn finish(&mut self, cut: &pb::Truncation) {
        let chains = self.stripe();
        if cut.spill.is_empty() {
            let listed: Vec<_> = self
                .chains
                .iter()
                .flat_map(|(id, chain)| {
                    chain.list(cut.inode).into_iter().map(|(chunk, length)| (*id, chunk, length))
                })
                .collect();
            for (chain, chunk, length) in listed {
                let start = u64::from(chunk.index) * u64::from(CHUNK_SIZE);
                let is_known = start + u64::from(length) <= cut.length_bound;
                assert!(cut.uncertain || is_known, "{chunk} lies above {}", cut.length_bound);
                let kept = cut.size.saturating_sub(start).min(u64::from(CHUNK_SIZE)) as u32;
                if kept < length {
                    self.update(chain, chunk, Change::Truncate { length: kept });
                }
            }
        } else {
            let (length, payload) = (cut.spill.len() as u32, cut.spill.clone());
            let chunk = ff2_proto::ChunkId::new(InodeId(cut.inode), 0);
            self.update(chains[0], chunk, Change::Write { offset: 0, length, payload });
        }
        let op = pb::FinishTruncateOp { inode: cut.inode, truncate_version: cut.truncate_version };
        self.lead(Op::FinishTruncate(op));
    }
}
