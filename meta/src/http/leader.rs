//! What the leader says, for the page of a metad that does not lead.

use std::time::{Duration, Instant};

use ff2_fabric::admin::admin_client::AdminClient;
use ff2_proto::pb;
use tokio::sync::Mutex;
use tonic::{
    Request,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

use crate::admin::{AdminState, admin_token};

/// Pages of many people ask the leader once in this time.
const AGE: Duration = Duration::from_secs(1);
const ASK: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct LeaderView {
    last: Mutex<Option<(Instant, pb::ClusterStatusReply)>>,
}

impl LeaderView {
    pub(super) async fn status(&self, state: &AdminState) -> Option<pb::ClusterStatusReply> {
        let mut last = self.last.lock().await;
        if let Some((at, status)) = &*last
            && at.elapsed() < AGE
        {
            return Some(status.clone());
        }
        let asked = tokio::time::timeout(ASK, self.ask(state)).await;
        match asked {
            Ok(Ok(status)) => {
                *last = Some((Instant::now(), status.clone()));
                Some(status)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the leader did not answer the page");
                None
            }
            Err(_) => None,
        }
    }

    async fn ask(&self, state: &AdminState) -> anyhow::Result<pb::ClusterStatusReply> {
        let leader = state.leader_address().ok_or_else(|| anyhow::anyhow!("no leader"))?;
        let scheme = if state.authority.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{leader}"))?.timeout(ASK);
        if let Some(file) = &state.authority {
            let authority = Certificate::from_pem(tokio::fs::read(file).await?);
            endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(authority))?;
        }
        let channel = endpoint.connect().await?;
        let mut request = Request::new(pb::ClusterStatusRequest {});
        let bearer = format!("Bearer {}", admin_token(&state.key));
        request.metadata_mut().insert("authorization", bearer.parse()?);
        let mut client = AdminClient::new(channel).max_decoding_message_size(64 << 20);
        Ok(client.cluster_status(request).await?.into_inner())
    }
}
