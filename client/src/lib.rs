//! The ff2 client library: a file system as async functions, without a mount.
//!
//! A [`Client`] connects to one volume of a cluster, holds a session with its namespace, and hands
//! out [`File`]s. Data goes straight between this process and the storage nodes; the namespace is
//! asked for names, attributes and lengths only. A server that fails is a pause, not an error: an
//! operation waits for the cluster to heal, up to [`ClientOptions::patience`].
//!
//! What holds: a write that returned is durable on every replica. After [`File::fsync`] or
//! [`File::close`] its length is known to everybody. Who opens a file after another client closed it
//! sees all that was written. Operations of the namespace happen exactly once, also when a leader
//! dies in the middle.
//!
//! ```no_run
//! use ff2_client::{Client, ClientOptions, OpenHow, UserToken};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let token = UserToken::load("/etc/ff2/alice.token".as_ref())?;
//! let metads = vec!["10.0.0.1:7001".into(), "10.0.0.2:7001".into()];
//! let client = Client::connect(ClientOptions::new(metads, token, "prod")).await?;
//!
//! client.create_dir_all("/runs/42").await?;
//! let file = client.open("/runs/42/log", OpenHow::write().create(0o644)).await?;
//! file.write_at(0, b"step 1\n").await?;
//! file.close().await?;
//!
//! let file = client.open("/runs/42/log", OpenHow::read()).await?;
//! let text = file.read_at(0, 4096).await?;
//! assert_eq!(&text[..], b"step 1\n");
//! for entry in client.read_dir("/runs/42").await? {
//!     println!("{}", String::from_utf8_lossy(&entry.name));
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! What a client knows of attributes counts for [`ClientOptions::cache`]. One that was connected by
//! [`Client::connect_coherent`] is told before another client changes what it caches, and lets others cache.
//!
//! [`Caller`] is the same by inode number and on behalf of one user: what a mount needs.

mod accesses;
mod caller;
mod client;
mod coherence;
mod file;
mod inodes;
mod journal;
pub mod limits;
mod locks;
mod options;
mod path;
mod session;
mod shares;
mod transfer;
mod turn;

pub use caller::{
    AttrChange, Caller, LockRange, LockWait, NodeKind, OpenHow, RenameHow, TimeChange, XattrHow,
};
pub use client::Client;
pub use coherence::{Invalidation, Invalidations, Trust};
pub use ff2_fabric::{BufPool, Rdma, SharedBuf, UserToken, chain::Totals, tls::ClientTls};
pub use ff2_proto::{Code, InodeId, ROOT_INODE, Status, extras, pb};
pub use file::File;
pub use options::ClientOptions;
pub use transfer::Progress;

/// The result of each operation: a failure has a code, an errno and a sentence.
pub type Result<T> = std::result::Result<T, Status>;
