//! The service `Agents`: what runs on a node, against what should.

use std::{sync::Arc, time::Duration};

use ff2_daemon::{Operations, config::PartitionConfig};
use ff2_fabric::{Agents, Answer, Buf, Context};
use ff2_proto::{Code, Status, pb};
use ff2_sched_core::{Event, NodeState, Scope};
use ff2_sched_machine::{Answer as Logged, Fact, Joined, order_of, orders_hash};
use ff2_topology::NodeId;
use ff2_validate::{Report, Verdict};
use tokio_util::sync::CancellationToken;

use crate::{
    leader::{Lead, SchedGroup},
    limits,
    order::gpu_tag,
    partition,
};

pub(crate) struct AgentService {
    pub(crate) sched: SchedGroup,
    pub(crate) operations: Operations,
    pub(crate) partitions: Vec<PartitionConfig>,
    /// Calls that are held end with it.
    pub(crate) stop: CancellationToken,
}

impl Agents for AgentService {
    async fn sync(
        &self,
        cx: Context,
        request: pb::AgentSyncRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::AgentSyncReply>, Status> {
        cx.require_daemon()?;
        let name = request.node.as_ref().map_or("", |node| &node.name);
        let operation = self.operations.begin("agent_sync", name.to_owned());
        operation.end(self.answer(&cx, &request).await.map(Answer::from))
    }
}

impl AgentService {
    async fn answer(
        &self,
        cx: &Context,
        request: &pb::AgentSyncRequest,
    ) -> Result<pb::AgentSyncReply, Status> {
        let lead = self.sched.leading()?;
        let says = request.node.as_ref();
        let says = says.ok_or_else(|| Status::new(Code::InvalidArgument, "which node is it?"))?;
        if says.ports_only {
            return self.watch(cx, &lead, says, request).await;
        }
        let node = self.join(&lead, says).await?;
        let now_ms = lead.term.now_ms();
        let (told, has_news) = self.sched.look(|state| {
            let mut watch = lead.watch.lock();
            let doomed = watch.doomed();
            watch.hear(now_ms, node, request);
            let has_news = request.pair.is_some() || watch.doomed() > doomed;
            (watch.facts_of(now_ms, state, node), has_news)
        });
        lead.warmth.lock().hear(node, request);
        lead.links.lock().hear(now_ms, node, request);
        if has_news {
            lead.news.notify_waiters();
        }
        self.sched.log_all(told).await?;
        self.resize(node, says).await?;
        self.tag(node, says).await?;
        self.judge_validation(node, request).await?;
        let reply = self.hold(cx, &lead, node, request).await?;
        self.complete(reply, request)
    }

    /// Takes in what goes over the ports of a node that takes no jobs, and holds the answer, which has nothing to do.
    async fn watch(
        &self,
        cx: &Context,
        lead: &Lead,
        says: &pb::AgentNode,
        request: &pb::AgentSyncRequest,
    ) -> Result<pb::AgentSyncReply, Status> {
        if self.sched.look(|state| state.node(&says.name).is_some()) {
            let why =
                format!("{:?} is a node that takes jobs: call this one by another name", says.name);
            return Err(Status::new(Code::InvalidArgument, why));
        }
        if !lead.links.lock().watch(lead.term.now_ms(), says, request) {
            return Err(Status::new(Code::QuotaExceeded, "so many nodes are not watched"));
        }
        tokio::select! {
            () = tokio::time::sleep(self.hold_at_most(cx, request)) => {}
            () = self.stop.cancelled() => {
                return Err(Status::new(Code::ShuttingDown, "this schedd is stopping"));
            }
        }
        lead.term.check()?;
        Ok(pb::AgentSyncReply::default())
    }

    fn hold_at_most(&self, cx: &Context, request: &pb::AgentSyncRequest) -> Duration {
        let lease = Duration::from_millis(self.sched.lease_ms.into());
        Duration::from_millis(request.wait_ms.into())
            .min(lease / limits::HOLD_PART)
            .min(cx.remaining().saturating_sub(limits::ANSWER_MARGIN))
    }

    /// The number of a node, which joins if it is new or says something new of itself.
    async fn join(&self, lead: &Lead, says: &pb::AgentNode) -> Result<NodeId, Status> {
        if let Some(node) = self.sched.look(|state| state.node(&says.name)) {
            let admitted = lead.watch.lock().admit(lead.term.now_ms(), node, says);
            admitted.map_err(|why| Status::new(Code::InvalidArgument, why))?;
        }
        let known = |state: &ff2_sched_machine::State| {
            let node = state.node(&says.name)?;
            let is_same = state.host(node) == says.host && state.is_at(node, &says.leaf, says.gpus);
            is_same.then_some(node)
        };
        if let Some(node) = self.sched.look(known) {
            return Ok(node);
        }
        let joined = Joined {
            name: says.name.clone(),
            zone: says.zone.clone(),
            pod: says.pod.clone(),
            leaf: says.leaf.clone(),
            gpus: says.gpus,
            cpus: says.cpus,
            memory: says.memory_mib,
            host: says.host.clone(),
        };
        match self.sched.log(Fact::Joined(joined), "").await? {
            Logged::Refused { why } => Err(Status::new(Code::InvalidArgument, why)),
            Logged::Done | Logged::Accepted { .. } => {
                tracing::info!(node = says.name, host = says.host, gpus = says.gpus, "joined");
                self.sched.look(known).ok_or_else(|| {
                    Status::new(Code::Busy, "the node has joined and is not seen yet")
                })
            }
        }
    }

    /// Takes in what a node that has joined has for jobs now. Its GPUs stay as many as they were.
    async fn resize(&self, node: NodeId, says: &pb::AgentNode) -> Result<(), Status> {
        let (cpus, memory) = (says.cpus, says.memory_mib);
        let (has, _) = self.sched.look(|state| state.scheduler().size_of(node));
        if cpus == 0 || memory == 0 || (has.cpus, has.memory) == (cpus, memory) {
            return Ok(());
        }
        tracing::info!(node = says.name, cpus, memory, "its size has changed");
        self.sched.log(Fact::Event(Event::Size { node, cpus, memory }), "").await.map(drop)
    }

    /// Jobs may ask for nodes with GPUs of the kind that it says it has, and for partitions that its leaf is part of.
    async fn tag(&self, node: NodeId, says: &pb::AgentNode) -> Result<(), Status> {
        let kind = Some(says.gpu_kind.as_str()).filter(|kind| !kind.is_empty()).map(gpu_tag);
        let is_gpu = |tag: &String| tag.starts_with("gpu:");
        let has = self.sched.look(|state| state.scheduler().tags_of(node));
        let others = has.iter().filter(|tag| !is_gpu(tag)).cloned();
        let tags: Vec<String> = others.chain(kind).collect();
        let mut tags = partition::tags_at(&says.leaf, &tags, &self.partitions);
        tags.sort_unstable();
        let mut as_before = has;
        as_before.sort_unstable();
        if tags == as_before {
            return Ok(());
        }
        self.sched.log(Fact::Event(Event::Tags { node, tags }), "").await.map(drop)
    }

    /// A node that failed when it looked at itself is used no more until somebody says otherwise.
    async fn judge_validation(
        &self,
        node: NodeId,
        request: &pb::AgentSyncRequest,
    ) -> Result<(), Status> {
        let is_used = self.sched.look(|state| {
            let is = state.scheduler().node_state(node);
            matches!(is, Some(NodeState::Up | NodeState::Cordoned))
        });
        if !is_used || request.validation.is_empty() || !self.is_new(node, request.validated) {
            return Ok(());
        }
        let Ok(report) = serde_json::from_str::<Report>(&request.validation) else { return Ok(()) };
        if report.verdict != Verdict::Failed {
            return Ok(());
        }
        let note = format!("it failed when it looked at itself: {}", report.reasons().join("; "));
        let event = Event::Node { scope: Scope::Node(node), state: NodeState::Quarantined };
        self.sched.log(Fact::Event(event), &note).await.map(drop)
    }

    /// One that people resumed in spite of it stays so.
    fn is_new(&self, node: NodeId, number: u64) -> bool {
        let Ok(lead) = self.sched.leading() else { return false };
        lead.judged.lock().insert(node, number) != Some(number)
            && lead.watch.lock().asked(node) == number
    }

    /// Waits until there is something new for the node.
    async fn hold(
        &self,
        cx: &Context,
        lead: &Arc<Lead>,
        node: NodeId,
        request: &pb::AgentSyncRequest,
    ) -> Result<pb::AgentSyncReply, Status> {
        let until = tokio::time::Instant::now() + self.hold_at_most(cx, request);
        let serves = request.pair.as_ref().map_or(0, |pair| pair.number);
        let mut changes = self.sched.group.watch_view();
        loop {
            let news = lead.news.notified();
            changes.mark_unchanged();
            // An answer renews the lease of runs: only who leads for sure may give it.
            self.sched.group.query(|_| ()).await?;
            let (data_asked, data) = lead.warmth.lock().question();
            let reply = self.sched.look(|state| {
                let mut watch = lead.watch.lock();
                let runs = watch.orders(state, node);
                let validate = watch.validate_now(lead.term.now_ms(), state, node);
                let (serve_pair, serve_token) = watch.serves(node).unwrap_or_default();
                pb::AgentSyncReply {
                    validate: validate.number,
                    validate_with: validate.address,
                    validate_token: validate.token,
                    serve_pair,
                    serve_token,
                    data_asked,
                    data: data.clone(),
                    version: state.version(),
                    orders_hash: orders_hash(&runs),
                    lease_ms: self.sched.lease_ms,
                    runs,
                }
            });
            let is_new = request.seen_version == 0
                || reply.orders_hash != request.seen_orders
                || reply.validate > request.validated
                || (data_asked != 0 && data_asked != request.data_asked)
                || (reply.serve_pair != 0 && reply.serve_pair != serves);
            if is_new || tokio::time::Instant::now() >= until {
                return Ok(reply);
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = news => {}
                _ = changes.changed() => {}
                () = self.stop.cancelled() => {
                    return Err(Status::new(Code::ShuttingDown, "this schedd is stopping"));
                }
            }
            lead.term.check()?;
        }
    }

    /// Adds what is to run, where the agent does not have it.
    fn complete(
        &self,
        mut reply: pb::AgentSyncReply,
        request: &pb::AgentSyncRequest,
    ) -> Result<pb::AgentSyncReply, Status> {
        let has = |order: &pb::RunOrder| {
            request.runs.iter().any(|run| (run.job, run.attempt) == (order.job, order.attempt))
        };
        for order in reply.runs.iter_mut().filter(|order| !has(order)) {
            let first = if order.array_first == 0 { order.job } else { order.array_first };
            let text = self.sched.group.read_stale(|kv| order_of(kv, first)).flatten();
            order.order = text.ok_or_else(|| {
                Status::new(Code::Internal, format!("nobody knows what job {} is", order.job))
            })?;
        }
        Ok(reply)
    }
}
