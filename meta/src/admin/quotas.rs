//! Quotas, of folders by their path.

use ff2_proto::{Code, ROOT_INODE, Status, VolumeId, pb};
use pb::{ns_request::Op, quota_key, quota_subject::Of};

use super::AdminState;

impl AdminState {
    pub(super) async fn set_quota(
        &self,
        request: pb::SetQuotaRequest,
    ) -> Result<pb::SetQuotaReply, Status> {
        let (volume, key) = self.quota_key(request.subject.as_ref()).await?;
        let path = match request.subject.and_then(|subject| subject.of) {
            Some(Of::Path(path)) => path,
            Some(Of::Uid(_) | Of::Gid(_)) | None => Default::default(),
        };
        let pb::SetQuotaRequest { bytes, inodes, .. } = request;
        let op = pb::SetQuotaOp { key: Some(key), bytes, inodes, path };
        let quota = self.namespace.command(volume, Op::SetQuota(op)).await?.quotas.pop();
        tracing::info!(?quota, "a quota is set");
        Ok(pb::SetQuotaReply { quota })
    }

    pub(super) async fn remove_quota(
        &self,
        request: pb::RemoveQuotaRequest,
    ) -> Result<pb::RemoveQuotaReply, Status> {
        let (volume, key) = self.quota_key(request.subject.as_ref()).await?;
        let op = pb::RemoveQuotaOp { key: Some(key) };
        let list = pb::ListQuotasOp { applying_to: Some(key), ..Default::default() };
        let applying = self.namespace.ask(volume, Op::ListQuotas(list)).await?.quotas;
        let is_it = |quota: &pb::Quota| quota.key == Some(key) && !quota.ending;
        let Some(quota) = applying.into_iter().find(is_it) else {
            return Err(Status::new(Code::NotFound, "there is no quota of just that"));
        };
        self.namespace.command(volume, Op::RemoveQuota(op)).await?;
        tracing::info!(?quota, "a quota is removed");
        Ok(pb::RemoveQuotaReply { quota: Some(quota) })
    }

    pub(super) async fn list_quotas(
        &self,
        request: pb::ListQuotasRequest,
    ) -> Result<pb::ListQuotasReply, Status> {
        let (volume, applying_to) = match &request.applying_to {
            Some(subject) => {
                let (volume, key) = self.quota_key(Some(subject)).await?;
                (volume, Some(key))
            }
            None => (self.volume(&request.volume)?, None),
        };
        let op = pb::ListQuotasOp { after: request.after, applying_to, ..Default::default() };
        let reply = self.namespace.ask(volume, Op::ListQuotas(op)).await?;
        let mut moved = Vec::with_capacity(reply.quotas.len());
        for quota in &reply.quotas {
            moved.push(self.has_moved(volume, quota).await?);
        }
        Ok(pb::ListQuotasReply { quotas: reply.quotas, end: reply.end, moved })
    }

    /// Whether the folder of a quota is no longer where it was when that was set.
    async fn has_moved(&self, volume: VolumeId, quota: &pb::Quota) -> Result<bool, Status> {
        let Some(quota_key::Of::Inode(inode)) = quota.key.and_then(|key| key.of) else {
            return Ok(false);
        };
        match self.folder(volume, &quota.path).await {
            Ok(found) => Ok(found != inode),
            Err(status) if matches!(status.code, Code::NotFound | Code::NotDirectory) => Ok(true),
            Err(status) => Err(status),
        }
    }

    async fn quota_key(
        &self,
        subject: Option<&pb::QuotaSubject>,
    ) -> Result<(VolumeId, pb::QuotaKey), Status> {
        let nothing = || Status::new(Code::InvalidArgument, "a quota of nothing");
        let subject = subject.ok_or_else(nothing)?;
        let volume = self.volume(&subject.volume)?;
        let of = match subject.of.as_ref().ok_or_else(nothing)? {
            Of::Path(path) => quota_key::Of::Inode(self.folder(volume, path).await?),
            Of::Uid(uid) => quota_key::Of::Uid(*uid),
            Of::Gid(gid) => quota_key::Of::Gid(*gid),
        };
        Ok((volume, pb::QuotaKey { of: Some(of) }))
    }

    pub(super) fn volume(&self, name: &str) -> Result<VolumeId, Status> {
        let name = if name.is_empty() { "default" } else { name };
        let routing = self.cluster.routing();
        let found = routing.volumes.values().find(|volume| volume.name == name);
        let missing = || Status::new(Code::NotFound, format!("there is no volume {name:?}"));
        Ok(VolumeId(found.ok_or_else(missing)?.id))
    }

    async fn folder(&self, volume: VolumeId, path: &[u8]) -> Result<u64, Status> {
        let path = path.to_vec().into();
        let resolve = pb::ResolveOp { base: ROOT_INODE.0, path, follow_last: true };
        let found = self.namespace.ask(volume, Op::Resolve(resolve)).await?.attr;
        match found {
            Some(attr) if attr.kind() == pb::FileKind::Directory => Ok(attr.inode),
            Some(_) => Err(Status::new(Code::NotDirectory, "a quota is of a folder")),
            None => Err(Code::NotFound.into()),
        }
    }
}
