//! The status page: one HTML file and the JSON that it shows. Anybody who reaches the port may read;
//! nothing here changes anything.

mod leader;
mod show;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use ff2_meta_core::cluster::delta;
use ff2_proto::{RoutingVersion, pb};
use serde_json::{Value, json};

use crate::admin::AdminState;
use leader::LeaderView;
pub(crate) use show::{show_group, show_routing};

const PAGE: &str = include_str!("http/page.html");
/// The page brings its own script and style, and talks to nobody but this server.
const POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; \
                      style-src 'unsafe-inline'; script-src 'unsafe-inline'";

#[derive(Clone)]
struct Pages {
    state: AdminState,
    leader: Arc<LeaderView>,
}

/// What the daemon's HTTP port shows beside metrics and status.
pub(crate) fn pages(state: AdminState) -> Router {
    let leader = Arc::new(LeaderView::default());
    Router::new()
        .route("/", get(page))
        .route("/api/cluster.json", get(cluster))
        .with_state(Pages { state, leader })
}

async fn page() -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)];
    (headers, PAGE).into_response()
}

async fn cluster(State(pages): State<Pages>) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(pages.cluster().await)).into_response()
}

impl Pages {
    async fn cluster(&self) -> Value {
        if let Some(lead) = self.state.cluster.lead.get() {
            let mut shown = show::show_cluster(&self.state.status(&lead).await);
            let history = lead.history();
            let history = history.iter().map(|at| [at.read_bytes_per_s, at.write_bytes_per_s]);
            shown["history"] = json!(history.collect::<Vec<_>>());
            return shown;
        }
        if let Some(status) = self.leader.status(&self.state).await {
            return show::show_cluster(&status);
        }
        // Without a leader: what this replica knows.
        let routing = self.state.cluster.routing();
        let groups = vec![self.state.cluster.group.status(), self.state.namespace.group.status()];
        show::show_cluster(&pb::ClusterStatusReply {
            cluster_id: routing.cluster_id.clone(),
            healthy: false,
            problems: vec![
                "no leader of the cluster group answers this metad: what follows may be old; see \
                 that most metads run and reach each other"
                    .into(),
            ],
            routing: Some(delta(&routing, RoutingVersion(0))),
            groups,
            ..Default::default()
        })
    }
}
