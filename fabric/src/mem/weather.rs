//! What a simulation does to in-process connections: the seam between the transport, which asks, and
//! a [`Weather`], which answers.
//!
//! A network does four things to a connection: it delays it, it breaks it so that both ends are told,
//! it breaks it within a frame, and it takes bytes that never arrive while nobody is told. Order is
//! kept, as TCP keeps it. Whether a moment is a bad one is the simulation's affair.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::reset;
use crate::transport::LinkError;

/// Decides what the connections to one name go through. Called for each frame, in the order in which
/// they are sent, so it must not block.
pub trait Weather: fmt::Debug + Send + Sync {
    /// A client connects. Held: it waits for ever; cut: there is nobody.
    fn connecting(&self, line: &Line) -> Fate;

    /// A frame sets out, of so many bytes; 0 for the end of the connection.
    fn frame(&self, line: &Line, way: Way, bytes: usize) -> Fate;
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives so much later, behind those that were sent before it.
    Arrives(Duration),
    /// Neither it nor anything behind it arrives, and nobody is told.
    Held,
    /// It is lost, and both ends are told at once that the connection is broken.
    Cut,
    /// Its message arrives, but the connection breaks within its bulk bytes.
    Torn,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// One connection, as a simulation sees it. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Line {
    /// Grows from connection to connection within this process.
    pub number: u64,
    server: Arc<str>,
    client: Arc<str>,
    broken: CancellationToken,
}

impl Line {
    pub(super) fn new(server: &str, client: &str) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self {
            number: LAST.fetch_add(1, Relaxed) + 1,
            server: server.into(),
            client: client.into(),
            broken: CancellationToken::new(),
        }
    }

    /// The name that the server listens as.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What the client put behind the `#` of the address.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// Breaks the connection: what is on its way is lost, and both ends are told.
    pub fn cut(&self) {
        self.broken.cancel();
    }

    pub fn is_cut(&self) -> bool {
        self.broken.is_cancelled()
    }

    pub(super) async fn broken(&self) {
        self.broken.cancelled().await;
    }
}

static WEATHERS: Mutex<BTreeMap<String, Arc<dyn Weather>>> = Mutex::new(BTreeMap::new());

/// Puts the connections that are made to `mem:NAME` from now on under this weather, until the guard
/// is dropped.
pub fn set_weather(name: &str, weather: Arc<dyn Weather>) -> WeatherGuard {
    WEATHERS.lock().insert(name.into(), weather);
    WeatherGuard { name: name.into() }
}

/// From [`set_weather`].
#[derive(Debug)]
#[must_use = "the weather ends when this is dropped"]
pub struct WeatherGuard {
    name: String,
}

impl Drop for WeatherGuard {
    fn drop(&mut self) {
        WEATHERS.lock().remove(&self.name);
    }
}

pub(super) fn over(name: &str) -> Option<Arc<dyn Weather>> {
    WEATHERS.lock().get(name).cloned()
}

/// One direction of a line.
#[derive(Debug)]
pub(super) struct Road {
    pub(super) line: Line,
    weather: Arc<dyn Weather>,
    way: Way,
    /// When the frame before arrives; never, once one is held.
    last: Option<Instant>,
}

impl Road {
    pub(super) fn new((line, weather, way): (Line, Arc<dyn Weather>, Way)) -> Self {
        Self { line, weather, way, last: Some(Instant::now()) }
    }

    /// How the next frame travels.
    pub(super) fn passage(&mut self, bytes: usize) -> Result<Passage, LinkError> {
        if self.line.is_cut() {
            return Err(reset());
        }
        let Some(last) = self.last else { return Ok(Passage { due: Due::Never, torn: false }) };
        let (delay, torn) = match self.weather.frame(&self.line, self.way, bytes) {
            Fate::Arrives(delay) => (delay, false),
            Fate::Torn => (Duration::ZERO, true),
            Fate::Held => {
                self.last = None;
                return Ok(Passage { due: Due::Never, torn: false });
            }
            Fate::Cut => {
                self.line.cut();
                return Err(reset());
            }
        };
        let due = last.max(Instant::now() + delay);
        self.last = Some(due);
        Ok(Passage { due: Due::At(due), torn })
    }
}

/// How one frame travels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passage {
    due: Due,
    /// The connection breaks within its bulk bytes.
    pub(super) torn: bool,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    Now,
    At(Instant),
    Never,
}

impl Passage {
    pub(super) const FREE: Self = Self { due: Due::Now, torn: false };

    /// Returns when the frame has arrived.
    pub(super) async fn over(&self) {
        match self.due {
            Due::Now => {}
            Due::At(due) if due <= Instant::now() => {}
            Due::At(due) => sleep_until(due).await,
            Due::Never => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;
