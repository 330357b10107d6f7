//! Random updates of a few chunks against byte arrays, with reopening in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Write { chunk: u32, offset: u32, len: u32, seed: u64, aligned: bool, abort: bool },
    Truncate { chunk: u32, length: u32, abort: bool },
    Replace { chunk: u32, length: u32, payload: u32, seed: u64, abort: bool },
    Remove { chunk: u32, abort: bool },
    Read { chunk: u32, offset: u32, len: u32 },
    WriteBack,
    Reopen { clean: bool, pending: Option<u32> },
}

const CHUNKS: u32 = 3;

/// Positions that matter: around sectors, pieces and ends.
fn position() -> impl Strategy<Value = u32> {
    let edge = prop_oneof![Just(4096u32), Just(65_536), Just(262_144), Just(524_288)];
    prop_oneof![
        3 => 0..CHUNK,
        2 => (0u32..256).prop_map(|sector| sector * 4096),
        2 => (edge, 0u32..200).prop_map(|(edge, near)| edge + near - 100),
        1 => 0u32..5000,
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => 1u32..9000,
        2 => (1u32..12).prop_map(|sectors| sectors * 4096),
        2 => 1u32..CHUNK,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let abort = prop::bool::weighted(0.15);
    prop_oneof![
        10 => (0..CHUNKS, position(), length(), any::<u64>(), any::<bool>(), abort).prop_map(
            |(chunk, offset, len, seed, aligned, abort)| {
                Op::Write { chunk, offset, len, seed, aligned, abort }
            }
        ),
        3 => (0..CHUNKS, position(), abort)
            .prop_map(|(chunk, length, abort)| Op::Truncate { chunk, length, abort }),
        1 => (0..CHUNKS, position(), position(), any::<u64>(), abort).prop_map(
            |(chunk, one, two, seed, abort)| {
                let (length, payload) = (one.max(two), one.min(two));
                Op::Replace { chunk, length, payload, seed, abort }
            }
        ),
        1 => (0..CHUNKS, abort).prop_map(|(chunk, abort)| Op::Remove { chunk, abort }),
        6 => (0..CHUNKS, position(), length())
            .prop_map(|(chunk, offset, len)| Op::Read { chunk, offset, len }),
        2 => Just(Op::WriteBack),
        1 => (any::<bool>(), prop::option::of(0..CHUNKS))
            .prop_map(|(clean, pending)| Op::Reopen { clean, pending }),
    ]
}

/// The chunks as byte arrays, and the versions that were used.
#[derive(Default)]
struct Model {
    chunks: BTreeMap<u32, (u64, Vec<u8>)>,
    versions: u64,
}

impl Model {
    /// The content after an update; `None` for no chunk.
    fn after(&self, chunk: u32, pending: &Pending) -> Option<Vec<u8>> {
        let mut content =
            self.chunks.get(&chunk).map_or(Vec::new(), |(_, content)| content.clone());
        match pending.kind {
            PendingKind::Write => {
                let (from, to) =
                    (pending.offset as usize, pending.offset as usize + pending.payload.len());
                if content.len() < to {
                    content.resize(to, 0);
                }
                content[from..to].copy_from_slice(&pending.payload);
            }
            PendingKind::Truncate => content.resize(pending.length as usize, 0),
            PendingKind::Remove => return None,
            PendingKind::Replace => {
                content = pending.payload.to_vec();
                content.resize(pending.length as usize, 0);
            }
        }
        Some(content)
    }
}

async fn check(engine: &Engine, model: &Model) {
    for index in 0..CHUNKS {
        match model.chunks.get(&index) {
            Some((version, content)) => {
                let (found, readout) = whole(engine, chunk(index), Which::Committed).await;
                assert_eq!(readout.version.0, *version);
                assert!(found == *content, "{}", difference(&found, content));
            }
            None => {
                let buf = Buf::unpooled(1);
                let read = engine
                    .read(TARGET, chunk(index), Which::Committed, 0, 1, Check::Here, buf)
                    .await;
                assert_eq!(read.unwrap_err().code, Code::NotFound);
            }
        }
    }
}

fn difference(found: &[u8], expected: &[u8]) -> String {
    let at = found.iter().zip(expected).position(|(one, two)| one != two);
    format!("{} bytes for {}, first difference at {at:?}", found.len(), expected.len())
}

async fn run_update(engine: &Engine, model: &mut Model, index: u32, pending: Pending, abort: bool) {
    let after = model.after(index, &pending);
    let version = pending.version;
    let prepared = engine.prepare(TARGET, chunk(index), pending).await.unwrap();
    assert_eq!(prepared.length as usize, after.as_ref().map_or(0, Vec::len));
    if let Some(after) = &after {
        let (found, _) = whole(engine, chunk(index), Which::Pending).await;
        assert!(found == *after, "pending: {}", difference(&found, after));
    }
    if abort {
        engine.abort(TARGET, chunk(index)).await.unwrap();
        return;
    }
    engine.commit(TARGET, chunk(index), version, ChainVersion(1)).await.unwrap();
    match after {
        Some(content) => model.chunks.insert(index, (version.0, content)),
        None => model.chunks.remove(&index),
    };
}

fn unaligned(seed: u64, len: usize) -> SharedBuf {
    pattern(seed, len + 1).slice(1..)
}

async fn run(dir: &Path, ops: Vec<Op>) {
    let mut engine = fresh(dir, 32 << 20).await;
    let mut model = Model::default();
    for op in ops {
        model.versions += 1;
        let version = model.versions;
        match op {
            Op::Write { chunk, offset, len, seed, aligned, abort } => {
                let len = len.min(CHUNK - offset) as usize;
                let payload = if aligned { pattern(seed, len) } else { unaligned(seed, len) };
                run_update(&engine, &mut model, chunk, write(version, offset, payload), abort)
                    .await;
            }
            Op::Truncate { chunk, length, abort } => {
                run_update(&engine, &mut model, chunk, truncate(version, length), abort).await;
            }
            Op::Replace { chunk, length, payload, seed, abort } => {
                let payload = unaligned(seed, payload as usize);
                let payload = Payload::from(payload);
                let pending = Pending { payload, length, ..update(version, PendingKind::Replace) };
                run_update(&engine, &mut model, chunk, pending, abort).await;
            }
            Op::Remove { chunk, abort } => {
                let pending = update(version, PendingKind::Remove);
                run_update(&engine, &mut model, chunk, pending, abort).await;
            }
            Op::Read { chunk: index, offset, len } => {
                let Some((_, content)) = model.chunks.get(&index) else { continue };
                let buf = Buf::unpooled(len as usize);
                let which = Which::Committed;
                let check = if version % 2 == 0 { Check::Here } else { Check::ByReader };
                let read = engine.read(TARGET, chunk(index), which, offset, len, check, buf).await;
                let mut expected = content.get(offset as usize..).unwrap_or_default().to_vec();
                expected.resize(len as usize, 0);
                let (read, readout) = read.unwrap();
                assert!(read[..] == expected[..], "a read of {len} at {offset}");
                let whole_sectors = offset % SECTOR == 0 && len % SECTOR == 0;
                assert_eq!(readout.crc32c, whole_sectors.then(|| crc32c(&expected)));
            }
            Op::WriteBack => while engine.core().write_back().await.unwrap() > 0 {},
            Op::Reopen { clean, pending } => {
                let mut expected = None;
                if let Some(index) = pending {
                    let pending = write(version, 5000, pattern(version, 20_000));
                    expected = model.after(index, &pending).map(|content| (index, content));
                    engine.prepare(TARGET, chunk(index), pending).await.unwrap();
                }
                let used = engine.space().used_bytes;
                if clean {
                    engine.shutdown().await;
                }
                drop_without_stop(engine).await;
                engine = open(dir);
                assert!(engine.space().used_bytes <= used, "nothing leaks");
                if let Some((index, content)) = expected {
                    let (found, _) = whole(&engine, chunk(index), Which::Pending).await;
                    assert!(found == content, "reopened: {}", difference(&found, &content));
                    let version = ChunkVersion(version);
                    engine.commit(TARGET, chunk(index), version, ChainVersion(1)).await.unwrap();
                    model.chunks.insert(index, (version.0, content));
                }
                check(&engine, &model).await;
            }
        }
    }
    check(&engine, &model).await;
    let used = used_by(&engine).await;
    engine.core().sync_index().await.unwrap();
    assert_eq!(engine.space().used_bytes, used, "every used block belongs to a piece");
    engine.shutdown().await;
}

/// Bytes of the blocks that the index names.
async fn used_by(engine: &Engine) -> u64 {
    let mut used = 0;
    let bounds = ff2_storage_core::format::target_bounds(None);
    let scan = engine.core().index.scan(bounds, |key, value| {
        if let ff2_storage_core::format::Key::Piece(..) = key {
            let record: ff2_proto::pb::PieceRecord = index::parse(&key, value)?;
            used += u64::from(record.block_size);
        }
        Ok(std::ops::ControlFlow::Continue(()))
    });
    scan.unwrap();
    used
}

/// Few by default, each opens several disks; `PROPTEST_CASES` for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..Default::default() })]
    #[test]
    fn behaves_as_byte_arrays(ops in proptest::collection::vec(op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(run(dir.path(), ops));
    }
}
