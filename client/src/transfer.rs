//! Whole files in and out, several pieces in flight.

use std::{io, os::unix::fs::FileExt, path::Path, sync::Arc};

use ff2_proto::{Code, Status};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{Client, OpenHow, Result, limits};

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub done_bytes: u64,
    pub total_bytes: u64,
}

impl Client {
    /// Copies a local file into the file system and reports each piece. Returns its length.
    pub async fn put(
        &self,
        local: &Path,
        path: impl AsRef<[u8]>,
        mode: u32,
        mut progress: impl FnMut(Progress),
    ) -> Result<u64> {
        let local = Arc::new(std::fs::File::open(local).map_err(|e| local_failure(local, &e))?);
        let total_bytes = local.metadata().map_err(|e| local_failure("its length", &e))?.len();
        let how = OpenHow::write().create(mode).truncate();
        let file = self.open(path, how).await?;
        let pieces = offsets(total_bytes).map(|offset| {
            let (file, local) = (&file, local.clone());
            async move {
                let length = (total_bytes - offset).min(limits::TRANSFER_PIECE as u64) as usize;
                let mut piece = self.pool().get(length).await;
                let piece =
                    blocking(move || local.read_exact_at(&mut piece, offset).map(|()| piece));
                let piece = piece.await.map_err(|e| local_failure("a piece", &e))?.freeze();
                let mut at = 0;
                while at < length {
                    at += file.write_buf(offset + at as u64, piece.slice(at..)).await?;
                }
                Ok::<_, Status>(length as u64)
            }
        });
        let done = flow(pieces, total_bytes, &mut progress).await?;
        file.close().await?;
        Ok(done)
    }

    /// Copies a file of the file system to a local one and reports each piece. Returns its length.
    pub async fn get(
        &self,
        path: impl AsRef<[u8]>,
        local: &Path,
        mut progress: impl FnMut(Progress),
    ) -> Result<u64> {
        let file = self.open(path, OpenHow::read()).await?;
        let total_bytes = file.known_attr().size;
        let local = std::fs::File::create(local).map_err(|e| local_failure(local, &e))?;
        let local = Arc::new(local);
        let pieces = offsets(total_bytes).map(|offset| {
            let (file, local) = (&file, local.clone());
            async move {
                let piece = file.read_pieces(offset, limits::TRANSFER_PIECE as u64).await?;
                let written = blocking(move || {
                    let mut at = offset;
                    for bytes in &piece {
                        local.write_all_at(bytes, at)?;
                        at += bytes.len() as u64;
                    }
                    Ok(at - offset)
                });
                written.await.map_err(|e| local_failure("a piece", &e))
            }
        });
        let done = flow(pieces, total_bytes, &mut progress).await?;
        file.close().await?;
        Ok(done)
    }
}

fn offsets(total: u64) -> impl Iterator<Item = u64> {
    (0..total).step_by(limits::TRANSFER_PIECE)
}

/// Runs the pieces, a few at a time, and reports each that is done.
async fn flow<F>(
    pieces: impl Iterator<Item = F>,
    total_bytes: u64,
    progress: &mut impl FnMut(Progress),
) -> Result<u64>
where
    F: Future<Output = Result<u64>>,
{
    let mut done_bytes = 0;
    progress(Progress { done_bytes, total_bytes });
    let mut pieces = stream::iter(pieces).buffer_unordered(limits::TRANSFER_PIECES);
    while let Some(bytes) = pieces.try_next().await? {
        done_bytes += bytes;
        progress(Progress { done_bytes, total_bytes });
    }
    Ok(done_bytes)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn local_failure(what: impl AsRef<Path>, error: &io::Error) -> Status {
    let code = match error.kind() {
        io::ErrorKind::NotFound => Code::NotFound,
        io::ErrorKind::PermissionDenied => Code::AccessDenied,
        io::ErrorKind::StorageFull => Code::NoSpace,
        _ => Code::Internal,
    };
    Status::new(code, format!("local file, {}: {error}", what.as_ref().display()))
}
