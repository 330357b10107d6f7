//! The check of the keys that an administrator asks for, and the repair of what it finds: looks and mends take
//! turns until a look finds nothing that can be mended, since one fault may hide another, and what changes meanwhile
//! is looked at again.

use ff2_meta_core::namespace::{self, Mend};
use ff2_proto::{Code, Status, VolumeId, pb};
use pb::ns_request::Op;

use super::NamespaceGroup;
use crate::limits;

/// What came of a check of the namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    pub(crate) inodes: u64,
    /// That are there, after the repair.
    pub(crate) problems: Listed,
    /// That were made; without a repair, that would be made first.
    pub(crate) mends: Listed,
}

/// The first of some lines, and how many there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    pub(crate) count: u64,
    pub(crate) first: Vec<String>,
}

impl Listed {
    fn push(&mut self, line: String) {
        self.count += 1;
        if self.first.len() < limits::CHECK_NAMED {
            self.first.push(line);
        }
    }
}

impl FromIterator<String> for Listed {
    fn from_iter<T: IntoIterator<Item = String>>(lines: T) -> Self {
        let mut this = Self::default();
        lines.into_iter().for_each(|line| this.push(line));
        this
    }
}

impl NamespaceGroup {
    /// Looks at all keys, and mends what can be mended if that is wanted.
    pub(crate) async fn check_names(&self, repair: bool) -> Result<Checked, Status> {
        let mut checked = Checked::default();
        for volume in self.volumes() {
            let statfs = self.ask(volume, Op::StatFs(pb::StatFsOp::default())).await?.statfs;
            checked.inodes += statfs.unwrap_or_default().inodes_used;
        }
        let mut rounds = if repair { limits::MEND_ROUNDS } else { 0 };
        let mut refused = Listed::default();
        loop {
            let (problems, plan) = self.look_at_keys().await?;
            let volume = self.volumes().first().copied().filter(|_| rounds > 0 && !plan.is_empty());
            let Some(volume) = volume else {
                checked.problems = problems;
                // Why they are left.
                checked.problems.first.append(&mut refused.first);
                if !repair {
                    checked.mends = plan.into_iter().map(|mend| mend.does).collect();
                }
                return Ok(checked);
            };
            let before = checked.mends.count;
            refused = self.mend(volume, plan, &mut checked.mends).await?;
            rounds = if checked.mends.count > before { rounds - 1 } else { 0 };
        }
    }

    /// What is wrong, and what could be mended of it. Holds every inode in memory meanwhile, on a thread of its own.
    async fn look_at_keys(&self) -> Result<(Listed, Vec<Mend>), Status> {
        self.group.read_index().await?;
        let group = self.group.clone();
        let look = move || {
            group.read_stale(|kv| {
                let problems = namespace::fsck(kv);
                let plan = namespace::mends(kv, &problems);
                (problems.iter().map(ToString::to_string).collect(), plan)
            })
        };
        let found = tokio::task::spawn_blocking(look).await.ok().flatten();
        found.ok_or_else(|| Status::new(Code::UnknownOutcome, "the process is stopping"))
    }

    /// Returns what could not be mended, and why.
    async fn mend(
        &self,
        volume: VolumeId,
        plan: Vec<Mend>,
        made: &mut Listed,
    ) -> Result<Listed, Status> {
        let mut refused = Listed::default();
        for Mend { op, does } in plan {
            match self.command(volume, Op::Mend(op)).await {
                Ok(reply) if reply.mended.is_empty() => {}
                Ok(reply) => {
                    tracing::warn!(%volume, mended = reply.mended, "a fault of the namespace is mended");
                    made.push(reply.mended);
                }
                Err(status) if self.lead.get().is_none() => return Err(status),
                Err(status) => {
                    tracing::warn!(%volume, %does, %status, "a fault of the namespace cannot be mended");
                    refused.push(format!("not mended: {does}: {status}"));
                }
            }
        }
        Ok(refused)
    }
}
