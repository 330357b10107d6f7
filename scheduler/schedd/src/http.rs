//! The status page: the queue, the nodes by leaf, who ran where. Anybody who reaches the port may read; nothing here
//! changes anything. Each replica shows what it knows.

use axum::{
    Json, Router,
    extract::State,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use ff2_proto::pb;
use ff2_sched_machine::Change;
use serde_json::{Value, json};

use crate::api::Api;

const PAGE: &str = include_str!("http/page.html");
/// The page brings its own script and style, and talks to nobody but this server.
const POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; \
                      style-src 'unsafe-inline'; script-src 'unsafe-inline'";
/// Jobs and network ports that the page shows.
const JOBS: u32 = 300;
const LINKS: usize = 20;
/// And changes of them by people.
const CHANGES: usize = 50;

pub(crate) fn pages(api: Api) -> Router {
    Router::new().route("/", get(page)).route("/api/sched.json", get(sched)).with_state(api)
}

async fn page() -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)];
    (headers, PAGE).into_response()
}

async fn sched(State(api): State<Api>) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(shown(&api))).into_response()
}

fn shown(api: &Api) -> Value {
    let lead = api.sched.leading().ok();
    let nodes = api.nodes(lead.as_deref(), true);
    let jobs = api.list(&pb::ListJobsRequest { ended: true, most: JOBS, user: String::new() });
    json!({
        "replica": api.config.node,
        "leader": nodes.leader,
        "leads": lead.is_some(),
        "now_ms": nodes.now_ms,
        "waiting": nodes.waiting,
        "nodes": nodes.nodes.iter().map(node).collect::<Vec<_>>(),
        "jobs": jobs.jobs.iter().map(job).collect::<Vec<_>>(),
        "left_out": jobs.left_out,
        "runs": nodes.runs.iter().map(run).collect::<Vec<_>>(),
        // Only the leader hears the agents.
        "charts": lead.as_ref().map(|lead| api.charts(lead)),
        "links": lead.map(|lead| api.links(&lead).links.iter().take(LINKS).map(link).collect::<Vec<_>>()),
        "changes": api.sched.look(|state| {
            state.history().changes().take(CHANGES).map(change).collect::<Vec<_>>()
        }),
    })
}

fn link(link: &pb::ComputeLink) -> Value {
    json!({
        "node": link.node, "leaf": link.leaf, "port": link.name, "up": link.up, "bits_per_s": link.bits_per_s,
        "received_per_s": link.received_per_s, "sent_per_s": link.sent_per_s, "use_permille": link.use_permille,
        "hot": link.hot, "flapping": link.flapping, "downs": link.downs, "errors": link.errors,
    })
}

fn node(node: &pb::ComputeNode) -> Value {
    json!({
        "name": node.name, "zone": node.zone, "leaf": node.leaf, "state": node.state, "gpus": node.gpus,
        "used": node.gpus_used, "spare": node.spare, "jobs": node.jobs, "why": node.why,
        "confinement": node.confinement,
    })
}

fn job(job: &pb::JobInfo) -> Value {
    json!({
        "job": job.job, "name": job.name, "user": job.user, "group": job.group, "priority": job.priority,
        "state": job.state, "attempt": job.attempt, "tasks": job.tasks, "gpus": job.gpus_all, "nodes": job.nodes,
        "submitted_ms": job.submitted_ms, "started_ms": job.started_ms, "ended_ms": job.ended_ms,
        "ran_ms": job.ran_ms, "why": job.why,
    })
}

fn change(change: &Change) -> Value {
    json!({
        "at_ms": change.at_ms, "who": change.who, "what": crate::show::word(change.what),
        "job": change.job.0,
    })
}

fn run(run: &pb::JobRun) -> Value {
    json!({
        "job": run.job, "name": run.name, "attempt": run.attempt, "nodes": run.nodes,
        "from_ms": run.from_ms, "to_ms": run.to_ms, "end": run.end,
    })
}
