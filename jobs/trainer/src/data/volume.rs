//! A volume of a cluster, read without a mount. Its calls block.

use std::{io, ops::Range, path::Path, sync::Arc};

use ff2_client::{Client, ClientOptions, Code, OpenHow, Status};
use ff2_daemon::config::{MountConfig, load};
use tokio::runtime::Runtime;

use super::DataError;

/// One session, for all files of a dataset.
#[derive(Debug)]
pub(crate) struct Volume {
    name: String,
    client: Client,
    runtime: Runtime,
}

impl Volume {
    /// `mount_config` is that of a mount: where the cluster is, and as whom it is read.
    ///
    /// # Errors
    /// A configuration that cannot be used, and a cluster that does not answer.
    pub(super) fn connect(name: &str, mount_config: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError::Volume { name: name.to_owned(), source };
        if mount_config == Path::new("") {
            let detail = "data.mount_config is empty, expected a mount's configuration, which tells where the \
                          cluster is";
            return Err(failed(detail.into()));
        }
        let options = options(name, mount_config).map_err(|error| failed(error.into()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| failed(error.into()))?;
        let client = runtime.block_on(Client::connect(options));
        let client = client.map_err(|error| failed(error.into()))?;
        Ok(Self { name: name.to_owned(), client, runtime })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn open(self: &Arc<Self>, path: &str) -> io::Result<VolumeFile> {
        let file = self.runtime.block_on(self.client.open(path, OpenHow::read())).map_err(io)?;
        Ok(VolumeFile { volume: Arc::clone(self), file })
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.runtime.block_on(self.client.close());
    }
}

fn options(name: &str, mount_config: &Path) -> anyhow::Result<ClientOptions> {
    let config: MountConfig = load(mount_config)?;
    let (token, tls) = (config.token()?, config.tls()?);
    Ok(ClientOptions::new(config.metads, token, config.cluster_id)
        .volume(name)
        .description(format!("ff2-train, process {}", std::process::id()))
        .encrypted(tls))
}

#[derive(Debug)]
pub(super) struct VolumeFile {
    // Goes before the session that it is of.
    file: ff2_client::File,
    volume: Arc<Volume>,
}

impl VolumeFile {
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.volume.runtime.block_on(self.file.attr()).map_err(io)?.size)
    }

    pub(super) fn read_all(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Vec<u8>>> {
        let found = self.volume.runtime.block_on(self.file.read_ranges(ranges)).map_err(io)?;
        let whole = |(range, pieces): (&Range<u64>, Vec<ff2_client::SharedBuf>)| {
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            match bytes.len() as u64 == range.end - range.start {
                true => Ok(bytes),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        ranges.iter().zip(found).map(whole).collect()
    }
}

fn io(status: Status) -> io::Error {
    let kind = match status.code {
        Code::NotFound => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, status)
}
