//! What the store remembers of its chain, on disk before the machine goes by it.
//!
//! A target that takes part in a version of its chain says so in its record first, with the chain's members if it
//! serves. So whoever acknowledged anything under a version has it on its disk, and metadata that was restored from a
//! backup, which knows nothing of that version, finds out from the disks who served last
//! (docs/design/0009-backup.md). It costs one sync of the index for each change of the chain.

use ff2_proto::{Status, pb};
use ff2_storage_core::target::{Input, Now, Outputs, Role};

use super::{Done, Task};
use crate::engine::TargetMeta;

impl Task {
    /// Gives the machine the routing's chain if it is newer, at once if it has no part in it. `now` was taken before
    /// the routing.
    pub(super) fn take_chain(&mut self, now: Now) {
        let known = self.machine.chain().version;
        let chain = self.routing.chains.get(&self.meta.chain);
        let Some(chain) = chain.filter(|chain| chain.version > known).cloned() else {
            self.behind = false;
            return;
        };
        let role = self.machine.role_in(&chain);
        self.behind = role.takes_updates() && !knows(&self.meta, &chain, role);
        if self.behind {
            self.note(chain, role);
            return;
        }
        let before = self.machine.role();
        let mut out = Outputs::new();
        let version = chain.version;
        self.machine.step(now, Input::Chain(chain), &mut out);
        tracing::info!(
            target_id = self.meta.id.0,
            chain = self.meta.chain.0,
            version,
            ?before,
            after = ?self.machine.role(),
            "the chain changed"
        );
        self.perform(out);
    }

    /// One at a time: the next one is of the chain as it is then.
    fn note(&mut self, chain: pb::Chain, role: Role) {
        if self.noting {
            return;
        }
        self.noting = true;
        let mut meta = TargetMeta { chain_version: chain.version.into(), ..self.meta.clone() };
        if role.serves() {
            meta.served_under = chain.version.into();
            meta.served_with = chain.members;
        }
        let (engine, done) = (self.engine.clone(), self.done.clone());
        self.tasks.spawn(async move {
            let result = engine.update_target(meta.clone()).await.map(|()| meta);
            // The task is gone: so is everything that waited for it.
            let _ = done.send(Done::Noted(result)).await;
        });
    }

    pub(super) fn on_noted(&mut self, result: Result<TargetMeta, Status>) {
        self.noting = false;
        match result {
            Ok(meta) => self.meta = meta,
            // A target that cannot write has no part in its chain.
            Err(status) => {
                tracing::warn!(target_id = self.meta.id.0, %status, "cannot note the chain version");
                self.step(Input::Failed(status));
            }
        }
        let now = self.now();
        self.refresh(now);
        self.take_chain(now);
    }

    /// What a heartbeat says of it.
    pub(super) fn past(&self) -> pb::TargetPast {
        pb::TargetPast {
            as_of: self.machine.chain().version,
            took_part: self.meta.chain_version.0,
            served: self.meta.served_under.0,
            served_with: self.meta.served_with.clone(),
        }
    }
}

fn knows(meta: &TargetMeta, chain: &pb::Chain, role: Role) -> bool {
    meta.chain_version.0 >= chain.version
        && (!role.serves() || meta.served_under.0 >= chain.version)
}
