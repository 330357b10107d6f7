//! What people change.

use ff2_proto::pb;
use ff2_sched_core::{Event, JobId, Many, NodeState, QuotaKey, Scope};
use ff2_sched_machine::{Answer, Fact};
use pb::JobChange;

use super::{Api, token::Bearer};
use crate::{partition::PARTITION, show};

impl Api {
    async fn tell(&self, event: Event, note: &str) -> Result<(), tonic::Status> {
        match self
            .sched
            .log(Fact::Event(event), note)
            .await
            .map_err(|status| self.refuse(status))?
        {
            Answer::Refused { why } => Err(tonic::Status::invalid_argument(why)),
            Answer::Done | Answer::Accepted { .. } => Ok(()),
        }
    }

    pub(super) async fn change(
        &self,
        bearer: &Bearer,
        request: &pb::ChangeJobRequest,
    ) -> Result<(), tonic::Status> {
        self.leading()?;
        let id = JobId(request.job);
        let found = self.sched.look(|state| {
            let scheduler = state.scheduler();
            let of = |job: &ff2_sched_core::Job| (job.spec.user.clone(), job.spec.many);
            // An array or service is named by its first job, which may have ended before others.
            let member = || scheduler.jobs().find(|job| job.member.is_some_and(|m| m.first == id));
            scheduler.job(id).or_else(member).map(of)
        });
        let Some((owner, many)) = found else {
            let ended = self.sched.look(|state| state.scheduler().outcome(id));
            return Err(match ended {
                Some(outcome) => tonic::Status::failed_precondition(format!(
                    "job {} has ended: {}",
                    id.0,
                    show::word(outcome)
                )),
                None => tonic::Status::not_found(format!("there is no job {}", id.0)),
            });
        };
        if owner != bearer.who.name && !bearer.operates() {
            return Err(tonic::Status::permission_denied(format!("job {} is {owner}'s", id.0)));
        }
        let event = match request.change() {
            JobChange::JobCancel => Event::Cancel(id),
            JobChange::JobSuspend => Event::Suspend(id),
            JobChange::JobResume => Event::Resume(id),
            JobChange::JobRequeue => Event::Requeue(id),
            JobChange::JobScale if matches!(many, Many::Service { .. }) => {
                if request.min > request.max || request.max == 0 {
                    return Err(tonic::Status::invalid_argument(
                        "at least one replica, and the least not above the most",
                    ));
                }
                Event::Scale { service: id, min: request.min, max: request.max }
            }
            JobChange::JobScale => {
                let text = format!("job {} is no service: it has no replicas", id.0);
                return Err(tonic::Status::failed_precondition(text));
            }
            JobChange::JobUnchanged => {
                return Err(tonic::Status::invalid_argument("what is to become of it?"));
            }
        };
        tracing::info!(job = id.0, by = bearer.who.name.as_str(), change = ?request.change(), "changed");
        // Who it was stays with it.
        self.tell(event, &bearer.who.name).await
    }

    pub(super) async fn set_node(
        &self,
        request: pb::SetComputeNodeRequest,
    ) -> Result<(), tonic::Status> {
        self.leading()?;
        let state = show::node_state(&request.state).filter(|state| *state != NodeState::Down);
        let state = state.ok_or_else(|| {
            tonic::Status::invalid_argument("a node is up, cordoned, draining or quarantined")
        })?;
        let scope = self.sched.look(|of| match request.leaf.is_empty() {
            true => of.node(&request.name).map(Scope::Node),
            false => {
                let mut leaves = of.topology().leaves();
                leaves.find(|(_, leaf)| leaf.name == request.leaf).map(|(id, _)| Scope::Leaf(id))
            }
        });
        let scope = scope.ok_or_else(|| {
            let what = if request.leaf.is_empty() { &request.name } else { &request.leaf };
            tonic::Status::not_found(format!("no compute node or leaf is called {what:?}"))
        })?;
        self.tell(Event::Node { scope, state }, &request.why).await
    }

    /// Returns all tags that the node has now.
    pub(super) async fn tag(
        &self,
        request: &pb::TagComputeNodeRequest,
    ) -> Result<Vec<String>, tonic::Status> {
        self.leading()?;
        let is_tag = |tag: &&String| {
            let of = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            let name = tag.strip_prefix(PARTITION).unwrap_or(tag);
            !name.is_empty() && tag.len() <= crate::limits::TAG_BYTES_MAX && name.chars().all(of)
        };
        if let Some(wrong) = request.add.iter().chain(&request.remove).find(|tag| !is_tag(tag)) {
            let text = format!(
                "{wrong:?} is no tag: expected letters, digits, _ - and ., or {PARTITION}NAME (gpu:KIND is the agent's)"
            );
            return Err(tonic::Status::invalid_argument(text));
        }
        let found = self.sched.look(|of| {
            let node = of.node(&request.name)?;
            let (mut tags, known) = (of.scheduler().tags_of(node), of.scheduler().tags().to_vec());
            tags.retain(|tag| !request.remove.contains(tag));
            let new = request.add.iter().filter(|tag| !tags.contains(tag)).cloned();
            let new: Vec<String> = new.collect();
            let unknown = new.iter().filter(|tag| !known.contains(tag)).count();
            Some((node, [tags, new].concat(), known.len() + unknown))
        });
        let (node, tags, known) = found.ok_or_else(|| {
            tonic::Status::not_found(format!("no compute node is called {:?}", request.name))
        })?;
        let most = ff2_sched_core::limits::TAGS_MAX;
        if known > most {
            let text =
                format!("{most} tags are known already, with those that no node has any more");
            return Err(tonic::Status::resource_exhausted(text));
        }
        self.tell(Event::Tags { node, tags }, "").await?;
        Ok(self.sched.look(|of| of.scheduler().tags_of(node)))
    }

    /// Has a node look at itself. Returns the number of that.
    pub(super) fn validate(&self, name: &str) -> Result<u64, tonic::Status> {
        let lead = self.leading()?;
        let node = self.sched.look(|of| of.node(name));
        let node = node.ok_or_else(|| {
            tonic::Status::not_found(format!("no compute node is called {name:?}"))
        })?;
        let number = lead.watch.lock().validate(node, crate::leader::wall_ms());
        lead.news.notify_waiters();
        Ok(number)
    }

    pub(super) async fn set_quota(
        &self,
        request: pb::SetJobQuotaRequest,
    ) -> Result<(), tonic::Status> {
        self.leading()?;
        let quota = request.quota.unwrap_or_default();
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let priority = match quota.priority.as_str() {
            "" => None,
            word => Some(show::priority(word).ok_or_else(|| {
                tonic::Status::invalid_argument(format!("{word:?} is no priority"))
            })?),
        };
        let key = QuotaKey { user: named(&quota.user), priority, group: named(&quota.group) };
        let limit = (!request.remove).then_some(quota.gpus);
        self.tell(Event::Quota { key, limit }, "").await
    }

    pub(super) async fn set_group(
        &self,
        request: pb::SetJobGroupRequest,
    ) -> Result<(), tonic::Status> {
        self.leading()?;
        if request.group.is_empty() || !(1..=1_000_000).contains(&request.weight) {
            return Err(tonic::Status::invalid_argument("a group has a name and a weight from 1"));
        }
        self.tell(Event::Share { group: request.group, weight: request.weight }, "").await
    }
}
