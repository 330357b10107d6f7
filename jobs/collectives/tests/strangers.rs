#![allow(clippy::unwrap_used, reason = "a test may panic")]

//! Who does not know the secret of the job's ranks: neither takes part nor disturbs, and learns nothing where ranks
//! encrypt.

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Barrier, Mutex},
    thread,
    time::Duration,
};

use common::{port, ranks_of, rendezvous};
use ff2_collectives::{Communicator, Network, Rendezvous};
use ff2_fabric::{
    BufPool, Call, ClusterKey, Identity, Peers, PeersConfig, RanksClient, RoutingCache,
    tls::ClientTls,
};
use ff2_proto::{Code, Status, pb};

#[test]
fn a_stranger_is_not_let_in() {
    let (folder, port) = (tempfile::tempdir().unwrap(), port());
    let strange = tempfile::tempdir().unwrap();
    ClusterKey::generate().unwrap().save(&strange.path().join("ranks.key")).unwrap();
    thread::scope(|scope| {
        let start = |rank| {
            let mine = rendezvous(folder.path(), port, rank, 2);
            scope.spawn(move || {
                let all = Communicator::meet(mine).unwrap();
                all.barrier().wait().unwrap();
                all.close().unwrap();
            })
        };
        let host = start(0);
        let timeout = Duration::from_millis(500);
        let mine = Rendezvous { timeout, ..rendezvous(strange.path(), port, 1, 2) };
        let error = Communicator::meet(mine).unwrap_err().to_string();
        assert!(error.contains("did not let rank 1 in"), "{error}");
        assert!(error.contains("key"), "{error}");
        // Its own rank is let in then.
        start(1).join().unwrap();
        host.join().unwrap();
    });
}

/// To rank 0 by a loopback address that is not the rank's own, so that nothing goes by shared memory.
fn afar(folder: &Path, port: u16, rank: usize, encrypt: bool) -> Rendezvous {
    Rendezvous {
        master: format!("127.0.0.2:{port}"),
        network: Network { encrypt, ..Network::default() },
        ..rendezvous(folder, port, rank, 2)
    }
}

/// What rank 0 answers to a piece from a process with another secret, which knows all else.
fn inject(address: &str, encrypt: bool) -> Status {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let peers = Peers::new(PeersConfig {
            cluster_id: "job 1 attempt 1".into(),
            identity: Identity::Daemon(ClusterKey::generate().unwrap()),
            pool: BufPool::new(1 << 20),
            routing: RoutingCache::new(),
            tls: encrypt.then(|| ClientTls::by_key().unwrap()),
            rdma: None,
            zone: String::new(),
        });
        let piece = pb::RankPushRequest { from: 1, total_bytes: 4, ..Default::default() };
        let ranks = RanksClient::new(peers.channel(address));
        ranks.push(&piece, Call::within(Duration::from_secs(5))).await.unwrap_err()
    })
}

#[test]
fn a_stranger_does_not_disturb_ranks_that_have_met() {
    for encrypt in [false, true] {
        let (folder, port) = (tempfile::tempdir().unwrap(), port());
        let [met, left_alone] = [(); 2].map(|()| Barrier::new(3));
        thread::scope(|scope| {
            let job = scope.spawn(|| {
                let own = |rank| afar(folder.path(), port, rank, encrypt);
                ranks_of(2, own, |all| {
                    all.barrier().wait().unwrap();
                    met.wait();
                    left_alone.wait();
                    let sum = all.all_reduce(vec![1.5; 100_000]).wait().unwrap();
                    all.close().unwrap();
                    sum
                })
            });
            met.wait();
            let address = format!("127.0.0.2:{port}");
            let refusal = inject(&address, encrypt);
            assert_eq!(refusal.code, Code::Unauthenticated, "{refusal}");
            assert!(refusal.detail.contains("do not belong together"), "{refusal}");
            let mut garbage = TcpStream::connect(&address).unwrap();
            garbage.write_all(&[0x16; 4096]).unwrap();
            left_alone.wait();
            assert_eq!(job.join().unwrap(), [vec![3.0; 100_000], vec![3.0; 100_000]]);
        });
    }
}

#[test]
fn a_rank_in_clear_is_told_that_the_others_encrypt() {
    let (folder, port) = (tempfile::tempdir().unwrap(), port());
    let meet = |rank, encrypt| {
        let timeout = Duration::from_millis(700);
        let own = Rendezvous { timeout, ..afar(folder.path(), port, rank, encrypt) };
        Communicator::meet(own).unwrap_err().to_string()
    };
    for (host, guest, expected) in [
        (true, false, "start each with the same `encrypt`"),
        (false, true, "does the server encrypt, as this process does?"),
    ] {
        thread::scope(|scope| {
            let host = scope.spawn(move || meet(0, host));
            let told = meet(1, guest);
            assert!(told.contains(expected), "{told}");
            let missed = host.join().unwrap();
            assert!(missed.contains("ranks [1] of 2 did not come"), "{missed}");
        });
    }
}

/// Passes on what comes at `listener`, and keeps what goes to the ranks.
fn pass_on(listener: TcpListener, to: String, heard: Arc<Mutex<Vec<u8>>>) {
    thread::spawn(move || {
        for client in listener.incoming() {
            // Rank 0 may not be there yet: rank 1 comes again.
            let (mut client, Ok(mut server)) = (client.unwrap(), TcpStream::connect(&to)) else {
                continue;
            };
            let (mut back, mut from) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut back));
            let heard = heard.clone();
            thread::spawn(move || {
                let mut part = [0; 1 << 12];
                while let Ok(count @ 1..) = client.read(&mut part) {
                    heard.lock().unwrap().extend_from_slice(&part[..count]);
                    let _gone = server.write_all(&part[..count]);
                }
                let _gone = server.shutdown(Shutdown::Write);
            });
        }
    });
}

#[test]
fn who_listens_learns_nothing_where_ranks_encrypt() {
    for encrypt in [false, true] {
        let (folder, port) = (tempfile::tempdir().unwrap(), port());
        let between = TcpListener::bind("127.0.0.2:0").unwrap();
        let by = between.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        pass_on(between, format!("127.0.0.1:{port}"), heard.clone());
        // Rank 1 meets rank 0 by way of the listener.
        let own = |rank| match rank {
            0 => Rendezvous {
                master: format!("127.0.0.1:{port}"),
                ..afar(folder.path(), port, rank, encrypt)
            },
            _ => afar(folder.path(), by, rank, encrypt),
        };
        ranks_of(2, own, |all| all.close().unwrap());
        let heard = heard.lock().unwrap();
        let job = b"job 1 attempt 1";
        let readable = heard.windows(job.len()).any(|part| part == job);
        assert!(!heard.is_empty() && readable != encrypt, "readable: {readable}");
    }
}
