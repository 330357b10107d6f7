//! A proof on both sides that they know the token, which is not sent.
//!
//! The client sends [`MAGIC`] and 32 random bytes, the server 32 of its own. Each then sends the HMAC-SHA256 under
//! the token of its role and both nonces; the client first, so that a server gives strangers nothing to try tokens
//! on. A role's proof is of no use in the other one.

use std::io;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::wire::Wire;
use crate::random::random;

const MAGIC: [u8; 8] = *b"FF2PAIR1";

type Nonce = [u8; 32];

/// # Errors
/// [`io::ErrorKind::PermissionDenied`]: the other side does not know the token. Others: it is not heard, or is no pair.
pub(super) fn of_client(wire: &mut Wire, token: &[u8]) -> io::Result<()> {
    let own: Nonce = random()?;
    wire.send(&MAGIC)?;
    wire.send(&own)?;
    let theirs: Nonce = wire.receive()?;
    wire.send(&prove(token, b"client", &own, &theirs).finalize().into_bytes())?;
    let proof: [u8; 32] = wire.receive().map_err(|error| match error.kind() {
        // It closes without a word.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => denied(),
        _ => error,
    })?;
    check(prove(token, b"server", &own, &theirs), &proof)
}

/// # Errors
/// As [`of_client`].
pub(super) fn of_server(wire: &mut Wire, token: &[u8]) -> io::Result<()> {
    if wire.receive()? != MAGIC {
        return Err(denied());
    }
    let theirs: Nonce = wire.receive()?;
    let own: Nonce = random()?;
    wire.send(&own)?;
    let proof: [u8; 32] = wire.receive()?;
    check(prove(token, b"client", &theirs, &own), &proof)?;
    wire.send(&prove(token, b"server", &theirs, &own).finalize().into_bytes())
}

fn prove(token: &[u8], role: &[u8], of_client: &Nonce, of_server: &Nonce) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(token).expect("an HMAC takes keys of any length");
    mac.update(role);
    mac.update(of_client);
    mac.update(of_server);
    mac
}

/// In a time that does not depend on where they differ.
fn check(expected: Hmac<Sha256>, proof: &[u8; 32]) -> io::Result<()> {
    expected.verify_slice(proof).map_err(|_| denied())
}

fn denied() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the other side does not know the token")
}
