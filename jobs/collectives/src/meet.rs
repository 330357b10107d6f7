//! The beginning: all ranks tell rank 0 where they are, and learn where all are.
//!
//! Who knows the key may come in, nobody else. Rank 0 makes one for each attempt, in a file that the ranks of the job
//! share, and removes it when all are there; a rank that read an old one is refused, reads it anew, and tries again
//! while there is time.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ff2_fabric::{Call, ClusterKey, auth::AuthError};
use ff2_proto::{Code, Status, pb};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    CollectiveError, Rendezvous,
    limits::{ANSWER_TIME, MEET_PAUSE},
    seat::Seat,
    service::RankService,
};

/// Rank 0's list of who is there.
#[derive(Debug)]
pub(crate) struct Meeting {
    world: usize,
    here: Mutex<BTreeMap<usize, String>>,
    outcome: watch::Sender<Outcome>,
}

#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Open,
    All(Vec<String>),
    Missing(Vec<usize>),
}

impl Meeting {
    pub(crate) fn new(world: usize, own: String) -> Arc<Self> {
        let here = Mutex::new(BTreeMap::from([(0, own)]));
        let meeting = Self { world, here, outcome: watch::Sender::new(Outcome::Open) };
        meeting.look();
        Arc::new(meeting)
    }

    /// A rank is there. The same one may say so twice, if an answer was lost.
    pub(crate) fn come(&self, request: &pb::RankMeetRequest) -> Result<(), Status> {
        let refuse = |detail: String| Err(Status::new(Code::InvalidArgument, detail));
        let (rank, world) = (request.rank as usize, request.world as usize);
        if world != self.world || rank >= world {
            return refuse(format!(
                "rank {rank} of {world} came to a job of {} ranks: check WORLD_SIZE and RANK",
                self.world
            ));
        }
        let mut here = self.here.lock();
        let known = here.entry(rank).or_insert_with(|| request.address.clone());
        if *known != request.address {
            return refuse(format!("rank {rank} is there already, at {known}: check RANK"));
        }
        drop(here);
        self.look();
        Ok(())
    }

    fn look(&self) {
        let here = self.here.lock();
        if here.len() == self.world {
            self.decide(Outcome::All(here.values().cloned().collect()));
        }
    }

    /// Time is over.
    pub(crate) fn close(&self) {
        let here = self.here.lock();
        let missing = (0..self.world).filter(|rank| !here.contains_key(rank)).collect();
        self.decide(Outcome::Missing(missing));
    }

    fn decide(&self, outcome: Outcome) {
        self.outcome.send_if_modified(|known| {
            let first = *known == Outcome::Open;
            if first {
                *known = outcome;
            }
            first
        });
    }

    /// The addresses of all once they are there, or who was missing when time was over.
    pub(crate) async fn all(&self) -> Result<Vec<String>, Vec<usize>> {
        let mut outcome = self.outcome.subscribe();
        let found = outcome.wait_for(|outcome| *outcome != Outcome::Open).await;
        match found.as_deref() {
            Ok(Outcome::All(addresses)) => Ok(addresses.clone()),
            Ok(Outcome::Missing(missing)) => Err(missing.clone()),
            Ok(Outcome::Open) | Err(_) => Err(Vec::new()),
        }
    }
}

/// Takes a seat and waits until all have one. Returns it with the addresses of all, in order of ranks.
pub(crate) async fn meet(
    rendezvous: &Rendezvous,
    service: RankService,
) -> Result<(Seat, Vec<String>), CollectiveError> {
    match &service.meeting {
        Some(meeting) => host(rendezvous, meeting.clone(), service).await,
        None => come(rendezvous, Arc::new(service)).await,
    }
}

async fn host(
    rendezvous: &Rendezvous,
    meeting: Arc<Meeting>,
    service: RankService,
) -> Result<(Seat, Vec<String>), CollectiveError> {
    let key = make_key(&rendezvous.key)?;
    let seat =
        Seat::take(rendezvous, key, &listening(&rendezvous.master), Arc::new(service)).await?;
    let all = tokio::time::timeout(rendezvous.timeout, meeting.all()).await;
    if all.is_err() {
        meeting.close();
    }
    match meeting.all().await {
        Ok(addresses) => {
            // All are in, so nobody needs the key any more. One that is left lets nobody in elsewhere.
            let _left = fs::remove_file(&rendezvous.key);
            Ok((seat, addresses))
        }
        Err(ranks) => {
            // Those that wait are told.
            seat.leave().await;
            let (world, waited) = (rendezvous.world, rendezvous.timeout);
            Err(CollectiveError::Missing { ranks, world, waited })
        }
    }
}

/// A name may be another address here than elsewhere, so rank 0 then serves on all of its host's.
fn listening(master: &str) -> String {
    match (master.parse::<SocketAddr>(), master.rsplit_once(':')) {
        (Err(_), Some((_, port))) => format!("0.0.0.0:{port}"),
        _ => master.into(),
    }
}

async fn come(
    rendezvous: &Rendezvous,
    service: Arc<RankService>,
) -> Result<(Seat, Vec<String>), CollectiveError> {
    let Rendezvous { rank, world, ref master, ref key, timeout, .. } = *rendezvous;
    let begun = Instant::now();
    let not_admitted = |status: Status| CollectiveError::NotAdmitted {
        rank,
        master: master.clone(),
        waited: begun.elapsed(),
        detail: status.to_string(),
    };
    let mut seat = None;
    loop {
        let problem = match sit(rendezvous, &service, seat.take()).await {
            Err(problem) => problem,
            Ok(taken) => {
                // Rank 0 says by itself who is missing, a little later.
                let left = (timeout + ANSWER_TIME).saturating_sub(begun.elapsed());
                match ask(&taken, rendezvous, left).await {
                    Ok(reply) if reply.missing.is_empty() && reply.addresses.len() == world => {
                        return Ok((taken, reply.addresses));
                    }
                    Ok(reply) => {
                        taken.leave().await;
                        let ranks = reply.missing.iter().map(|&rank| rank as usize).collect();
                        let waited = begun.elapsed();
                        return Err(CollectiveError::Missing { ranks, world, waited });
                    }
                    Err(status) if status.code == Code::InvalidArgument => {
                        taken.leave().await;
                        return Err(not_admitted(status));
                    }
                    Err(status) => {
                        if matches!(status.code, Code::Unauthenticated | Code::WrongCluster) {
                            // The key is of another attempt, or one of these is.
                            taken.leave().await;
                        } else {
                            seat = Some(taken);
                        }
                        not_admitted(status)
                    }
                }
            }
        };
        if begun.elapsed() + MEET_PAUSE >= timeout {
            if let Some(seat) = seat {
                seat.leave().await;
            }
            tracing::debug!(key = %key.display(), "gave up meeting the other ranks");
            return Err(problem);
        }
        tokio::time::sleep(MEET_PAUSE).await;
    }
}

/// The seat, with the key as it is now if there was none.
async fn sit(
    rendezvous: &Rendezvous,
    service: &Arc<RankService>,
    seat: Option<Seat>,
) -> Result<Seat, CollectiveError> {
    if let Some(seat) = seat {
        return Ok(seat);
    }
    let (path, master) = (&rendezvous.key, &rendezvous.master);
    let key = ClusterKey::load(path)
        .map_err(|source| CollectiveError::Key { path: path.clone(), source })?;
    let address = own_address(master)
        .map_err(|source| CollectiveError::Serve { address: master.clone(), source })?;
    Seat::take(rendezvous, key, &address, service.clone()).await
}

async fn ask(
    seat: &Seat,
    rendezvous: &Rendezvous,
    left: Duration,
) -> Result<pb::RankMeetReply, Status> {
    let (rank, world) = (rendezvous.rank as u32, rendezvous.world as u32);
    let request = pb::RankMeetRequest { rank, world, address: seat.address.clone() };
    let call = Call::within(left);
    seat.client(&rendezvous.master).meet(&request, call).await.map(|(reply, _)| reply)
}

/// A new key for this attempt, in the file where the other ranks look for it.
fn make_key(path: &Path) -> Result<ClusterKey, CollectiveError> {
    let make = || {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let failed = |source| AuthError::Write { path: folder.into(), source };
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let key = ClusterKey::generate()?;
        key.save(path)?;
        Ok(key)
    };
    make().map_err(|source| CollectiveError::Key { path: path.into(), source })
}

/// This host's address on the way to rank 0, with port 0: no byte is sent.
fn own_address(master: &str) -> std::io::Result<String> {
    let loopback = "127.0.0.1:0";
    let wildcard = if master.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(wildcard).or_else(|_| UdpSocket::bind(loopback))?;
    socket.connect(master)?;
    let mut address = socket.local_addr()?;
    address.set_port(0);
    Ok(address.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn request(rank: u32, world: u32, address: &str) -> pb::RankMeetRequest {
        pb::RankMeetRequest { rank, world, address: address.into() }
    }

    #[tokio::test]
    async fn all_learn_where_all_are() {
        let meeting = Meeting::new(3, "a:1".into());
        meeting.come(&request(2, 3, "c:1")).unwrap();
        meeting.come(&request(1, 3, "b:1")).unwrap();
        // An answer was lost.
        meeting.come(&request(1, 3, "b:1")).unwrap();
        assert_eq!(meeting.all().await.unwrap(), ["a:1", "b:1", "c:1"]);
    }

    #[tokio::test]
    async fn who_is_missing_is_named_and_strange_ranks_are_refused() {
        let meeting = Meeting::new(4, "a:1".into());
        meeting.come(&request(2, 4, "c:1")).unwrap();
        for (strange, expected) in [
            (request(2, 4, "d:1"), "rank 2 is there already, at c:1"),
            (request(0, 4, "d:1"), "rank 0 is there already"),
            (request(1, 3, "d:1"), "rank 1 of 3 came to a job of 4 ranks"),
            (request(4, 4, "d:1"), "rank 4 of 4"),
        ] {
            let status = meeting.come(&strange).unwrap_err();
            assert!(status.detail.contains(expected), "{status}");
        }
        meeting.close();
        assert_eq!(meeting.all().await.unwrap_err(), [1, 3]);
    }
}
