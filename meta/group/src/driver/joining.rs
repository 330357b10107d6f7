//! Before a replica: a folder that was never formatted asks the peers for a raft id.

use std::{collections::VecDeque, time::Duration};

use ff2_meta_core::StateMachine;
use ff2_proto::{Status, pb, status};

use super::Driver;
use crate::{
    inbox::{Request, Work},
    store::RocksStore,
};

const ASK_TIMEOUT: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Leader hints followed before the next round begins.
const HINTS_MAX: usize = 4;

/// Waits for the leader's reply; `None` if the group is stopped before.
pub(super) fn join<S: StateMachine>(
    driver: &Driver<S>,
    store: &RocksStore,
) -> Option<pb::JoinGroupReply> {
    let request = pb::JoinGroupRequest {
        group: driver.config.group.0,
        node: driver.config.node,
        address: driver.config.address.clone(),
        incarnation: store.incarnation(),
    };
    tracing::info!(group = %driver.config.group, "this folder is new: asking to join the group");
    let asking = driver.runtime.spawn(ask(driver.asker(), request));
    let reply = loop {
        let work = driver.shared.inbox.take(Duration::from_secs(1));
        if let Some(end) = wait_for_reply(driver, work) {
            break end;
        }
    };
    asking.abort();
    reply
}

/// Refuses what only a replica can do; `Some` ends the wait.
fn wait_for_reply<S: StateMachine>(
    driver: &Driver<S>,
    work: Work,
) -> Option<Option<pb::JoinGroupReply>> {
    let inbox = &driver.shared.inbox;
    inbox.proposals_answered(work.proposals.len());
    inbox.reads_answered(work.reads.len());
    for (_, reply) in work.proposals {
        drop(reply.send(Err(Status::not_leader(None))));
    }
    for reply in work.reads {
        drop(reply.send(Err(Status::not_leader(None))));
    }
    let mut end = None;
    for request in work.requests {
        match request {
            Request::Adopted(reply) => end = Some(Some(reply)),
            Request::Stop { .. } => return Some(None),
            Request::Join { reply, .. } => drop(reply.send(Err(Status::not_leader(None)))),
            Request::Remove { reply, .. } | Request::Transfer { reply, .. } => {
                drop(reply.send(Err(Status::not_leader(None))));
            }
            Request::Page { .. } => {}
        }
    }
    end
}

struct Asker<S: StateMachine> {
    driver: Driver<S>,
}

impl<S: StateMachine> Driver<S> {
    fn asker(&self) -> Asker<S> {
        Asker {
            driver: Driver {
                config: self.config.clone(),
                shared: self.shared.clone(),
                link: self.link.clone(),
                runtime: self.runtime.clone(),
            },
        }
    }
}

async fn ask<S: StateMachine>(asker: Asker<S>, request: pb::JoinGroupRequest) {
    let driver = asker.driver;
    let mut told = String::new();
    loop {
        let mut addresses: VecDeque<String> = driver.config.peers.iter().cloned().collect();
        addresses.retain(|address| *address != driver.config.address);
        let mut hints = 0;
        while let Some(address) = addresses.pop_front() {
            match ask_one(&driver, &address, request.clone()).await {
                Ok(reply) => {
                    // A closed inbox means that the group was stopped meanwhile.
                    let _ = driver.shared.inbox.request(Request::Adopted(reply));
                    return;
                }
                Err(refusal) => {
                    if let Some(leader) = &refusal.leader_address
                        && hints < HINTS_MAX
                    {
                        hints += 1;
                        addresses.push_front(leader.clone());
                    }
                    let text = refusal.to_string();
                    if text != told {
                        tracing::info!(group = %driver.config.group, address, refusal = text,
                            "not let in yet");
                        told = text;
                    }
                }
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn ask_one<S: StateMachine>(
    driver: &Driver<S>,
    address: &str,
    request: pb::JoinGroupRequest,
) -> Result<pb::JoinGroupReply, Status> {
    let asked = tokio::time::timeout(ASK_TIMEOUT, driver.link.join(address, request)).await;
    let reply = asked.map_err(|_| Status::from(pb::Code::Timeout))??;
    status::check(reply.status.clone())?;
    if reply.raft_id == 0 {
        return Err(Status::new(pb::Code::BadFrame, "a join reply without raft id"));
    }
    Ok(reply)
}
