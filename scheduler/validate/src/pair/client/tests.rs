use std::{io::Write, net::SocketAddr, thread::JoinHandle};

use super::*;
use crate::pair::{Served, Server};

const TOKEN: &[u8] = b"of this pair and this time";
const LIFETIME: Duration = Duration::from_secs(600);
const TIME: Duration = Duration::from_secs(60);
const BYTES: u64 = 32 << 20;

fn serve(lifetime: Duration) -> (Peer, JoinHandle<Served>) {
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), TOKEN).unwrap();
    let address = server.address().unwrap();
    let serving = thread::spawn(move || server.serve(lifetime).unwrap());
    (Peer { address, token: TOKEN.into() }, serving)
}

#[test]
fn a_pair_measures_both_directions() {
    let (peer, serving) = serve(LIFETIME);
    let found = measure(&peer, BYTES, TIME).unwrap();
    assert!(found.send_mib_s > 0.0 && found.receive_mib_s > 0.0, "{found:?}");
    assert!(found.trip_us > 0.0 && found.trip_us < 1e6, "{found:?}");
    assert_eq!(found.wrong_chunks, 0);
    let served = serving.join().unwrap();
    let admitted = limits::PAIR_STREAMS as u64;
    assert_eq!(served, Served { admitted, refused: 0, bytes: 2 * BYTES, is_done: true });
}

#[test]
fn a_wrong_token_is_refused_and_the_right_one_still_serves() {
    let (peer, serving) = serve(LIFETIME);
    let stranger = Peer { token: b"of another pair or time".into(), ..peer.clone() };
    let error = measure(&stranger, BYTES, TIME).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    measure(&peer, 1 << 20, TIME).unwrap();
    let served = serving.join().unwrap();
    assert_eq!((served.refused, served.is_done), (1, true));
}

/// A server that knows no token can pretend nothing either.
#[test]
fn a_client_wants_a_proof_too() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let impostor = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // A nonce, and a proof out of thin air.
        stream.write_all(&[7; 64]).unwrap();
        stream
    });
    let error = measure(&Peer { address, token: TOKEN.into() }, BYTES, TIME).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    drop(impostor.join().unwrap());
}

#[test]
fn strangers_who_say_nothing_or_nonsense_do_not_hold_it() {
    let (peer, serving) = serve(Duration::from_secs(4));
    let silent = TcpStream::connect(peer.address).unwrap();
    let mut loud = TcpStream::connect(peer.address).unwrap();
    loud.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let begun = Instant::now();
    let served = serving.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(40));
    assert_eq!(served, Served { refused: 2, ..Served::default() });
    drop((silent, loud));
}

#[test]
fn bytes_that_were_changed_on_the_way_are_counted() {
    let (peer, serving) = serve(LIFETIME);
    let mut wire = connect(&peer, Instant::now() + TIME).unwrap();
    wire.damage();
    wire.send(&[UPLOAD]).unwrap();
    wire.send_chunks(2 * limits::PAIR_CHUNK as u64, TIME).unwrap();
    let bytes = wire.receive_number().unwrap();
    assert_eq!((bytes, wire.receive_number().unwrap()), (2 * limits::PAIR_CHUNK as u64, 2));
    wire.send(&[END]).unwrap();
    serving.join().unwrap();
}

#[test]
fn a_token_that_can_be_guessed_is_not_taken() {
    let error = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), b"short").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
