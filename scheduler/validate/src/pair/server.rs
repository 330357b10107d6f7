//! The side that waits.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    admission,
    wire::{DOWNLOAD, END, TRIP, UPLOAD, Wire},
};
use crate::limits;

/// Between two looks whether the pair is done.
const LOOK: Duration = Duration::from_millis(20);

/// Listens from the moment it is made.
pub struct Server {
    listener: TcpListener,
    token: Vec<u8>,
}

/// What a server did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Connections that knew the token.
    pub admitted: u64,
    /// Connections that did not, or came when there were too many.
    pub refused: u64,
    /// In both directions.
    pub bytes: u64,
    /// A client said that it has all it wanted.
    pub is_done: bool,
}

/// Without the token.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Counts {
    admitted: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
    open: AtomicUsize,
    is_done: AtomicBool,
}

impl Server {
    /// The token is for this pair and this time; port 0 takes a free one.
    ///
    /// # Errors
    /// The token is shorter than [`limits::TOKEN_MIN`], or the address cannot be listened on.
    pub fn bind(address: SocketAddr, token: &[u8]) -> io::Result<Self> {
        if token.len() < limits::TOKEN_MIN {
            let why = format!("a token of {} bytes can be guessed", token.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, token: token.to_vec() })
    }

    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until a client says that it is done, but at most so long.
    ///
    /// # Errors
    /// The socket is gone, or there are no threads.
    pub fn serve(self, lifetime: Duration) -> io::Result<Served> {
        let deadline = Instant::now() + lifetime;
        let counts = Counts::default();
        thread::scope(|scope| {
            while Instant::now() < deadline && !counts.is_done.load(Ordering::Acquire) {
                match self.listener.accept() {
                    Ok((stream, _))
                        if counts.open.load(Ordering::Acquire) < limits::PAIR_SESSIONS =>
                    {
                        let (counts, token) = (&counts, &self.token[..]);
                        let serve = move || {
                            // It went, or was too slow: what it got so far is counted.
                            let _ = session(stream, token, deadline, counts);
                            counts.open.fetch_sub(1, Ordering::AcqRel);
                        };
                        counts.open.fetch_add(1, Ordering::AcqRel);
                        thread::Builder::new().name("pair".into()).spawn_scoped(scope, serve)?;
                    }
                    Ok(_) => drop(counts.refused.fetch_add(1, Ordering::Relaxed)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(LOOK),
                    // Who came went at once, or there are too many files: later, perhaps.
                    Err(error) if error.kind() != io::ErrorKind::InvalidInput => {
                        thread::sleep(LOOK)
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })?;
        Ok(Served {
            admitted: counts.admitted.into_inner(),
            refused: counts.refused.into_inner(),
            bytes: counts.bytes.into_inner(),
            is_done: counts.is_done.into_inner(),
        })
    }
}

fn session(stream: TcpStream, token: &[u8], deadline: Instant, counts: &Counts) -> io::Result<()> {
    let admission_deadline = deadline.min(Instant::now() + limits::PAIR_ADMISSION);
    let mut wire = Wire::new(stream, admission_deadline)?;
    if let Err(error) = admission::of_server(&mut wire, token) {
        counts.refused.fetch_add(1, Ordering::Relaxed);
        return Err(error);
    }
    counts.admitted.fetch_add(1, Ordering::Relaxed);
    wire.extend(deadline);
    loop {
        match wire.receive()? {
            [TRIP] => {
                let number: [u8; 8] = wire.receive()?;
                wire.send(&number)?;
            }
            [UPLOAD] => {
                let received = wire.receive_chunks(limits::PAIR_BYTES)?;
                counts.bytes.fetch_add(received.bytes, Ordering::Relaxed);
                wire.send(&received.bytes.to_le_bytes())?;
                wire.send(&received.wrong_chunks.to_le_bytes())?;
            }
            [DOWNLOAD] => {
                let bytes = wire.receive_number()?.min(limits::PAIR_BYTES);
                let time = Duration::from_millis(wire.receive_number()?);
                let sent = wire.send_chunks(bytes, time.min(limits::FULL_MAX))?;
                counts.bytes.fetch_add(sent, Ordering::Relaxed);
            }
            [END] => {
                counts.is_done.store(true, Ordering::Release);
                return Ok(());
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
