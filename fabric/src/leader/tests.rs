use std::cell::{Cell, RefCell};

use super::*;
use crate::{
    ClusterKey,
    membership::fake::{Fake, peers},
};

/// Nobody listens there; it refuses at once.
const DEAD: &str = "127.0.0.1:1";
const A: &str = "127.0.0.1:2";
const B: &str = "127.0.0.1:3";

fn finder(metads: &[&str]) -> LeaderFinder {
    let key = ClusterKey::generate().unwrap();
    let (peers, routing) = peers(&key);
    let metads = metads.iter().map(|address| (*address).to_owned()).collect();
    LeaderFinder::new(GroupId(0), metads, peers, routing)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[tokio::test]
async fn hints_are_followed_and_the_leader_is_remembered() {
    let finder = finder(&[A, B]);
    let asked = RefCell::new(Vec::new());
    let ask = |address: String, _| {
        asked.borrow_mut().push(address.clone());
        async move { if address == B { Ok(1) } else { Err(Status::not_leader(Some(B.into()))) } }
    };
    assert_eq!(finder.seek(soon(), ask).await, Ok(1));
    assert_eq!(finder.known_leader().as_deref(), Some(B));
    asked.borrow_mut().clear();
    assert_eq!(finder.seek(soon(), ask).await, Ok(1));
    assert_eq!(*asked.borrow(), [B], "no detour the second time");
}

#[tokio::test]
async fn final_answers_are_the_callers() {
    let finder = finder(&[A]);
    for code in [Code::NotFound, Code::Forbidden] {
        let calls = Cell::new(0);
        let ask = |_, _| {
            calls.set(calls.get() + 1);
            async move { Err::<(), _>(Status::from(code)) }
        };
        assert_eq!(finder.seek(soon(), ask).await.unwrap_err().code, code);
        assert_eq!(calls.get(), 1);
    }
}

#[tokio::test]
async fn a_leader_that_cannot_answer_yet_is_asked_again_after_a_pause() {
    for code in [Code::Busy, Code::NotServing] {
        let finder = finder(&[A]);
        let calls = Cell::new(0);
        let ask = |address, _| {
            calls.set(calls.get() + 1);
            let not_yet = calls.get() < 3;
            async move {
                assert_eq!(address, A);
                if not_yet { Err(Status::from(code)) } else { Ok(()) }
            }
        };
        finder.seek(soon(), ask).await.unwrap();
    }
}

#[tokio::test]
async fn the_deadline_ends_it_with_the_last_reason() {
    let finder = finder(&[A, B]);
    let deadline = Instant::now() + Duration::from_millis(60);
    let ask = |_, limit: Duration| async move {
        assert!(limit <= Duration::from_millis(60));
        Err::<(), _>(Status::new(Code::Unreachable, "cut off"))
    };
    let failure = finder.seek(deadline, ask).await.unwrap_err();
    assert_eq!(failure.code, Code::Timeout);
    assert!(failure.detail.contains("cut off"), "{failure}");
    assert!(finder.seek(Instant::now(), ask).await.unwrap_err().detail.contains("no time"));
    let nobody = self::finder(&[]).seek(soon(), ask).await.unwrap_err();
    assert_eq!(nobody.code, Code::InvalidArgument);
}

#[tokio::test]
async fn real_calls_find_the_leader_past_a_dead_metad() {
    let key = ClusterKey::generate().unwrap();
    let leader = Fake::start(&key).await;
    let follower = Fake::start(&key).await;
    let hint = leader.address.clone();
    follower.set(|state| state.leader = Some(hint));
    let (peers, routing) = peers(&key);
    let metads = vec![DEAD.to_owned(), follower.address.clone()];
    let finder = LeaderFinder::new(GroupId(0), metads, peers, routing);
    let ask = |channel, timeout| async move {
        let call = Call { timeout, ..Call::default() };
        let request = pb::JoinRequest::default();
        ClusterClient::new(channel).join(&request, call).await.map(|(reply, _)| reply.node_id)
    };
    assert_eq!(finder.call(soon(), ask).await, Ok(7));
    assert_eq!(finder.known_leader(), Some(leader.address.clone()));
}
