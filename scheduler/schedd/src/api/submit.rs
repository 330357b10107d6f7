//! Submissions.

use ff2_proto::pb;
use ff2_sched_core::{JobId, Priority};
use ff2_sched_machine::{Answer, Asker, Fact, Submission};
use ff2_submit::from_yaml;

use super::{Api, token::Bearer};
use crate::{
    limits,
    order::{self, ClusterSize},
};

/// Of a node that has not joined yet.
const NODE_GPUS: u32 = 8;

impl Api {
    pub(super) async fn submit(
        &self,
        bearer: &Bearer,
        request: pb::SubmitJobRequest,
    ) -> Result<pb::SubmitJobReply, tonic::Status> {
        bearer.must_run()?;
        let lead = self.leading()?;
        let invalid = tonic::Status::invalid_argument;
        let environment = request.environment.iter().map(|(name, value)| name.len() + value.len());
        let bytes = request.request.len() + environment.sum::<usize>();
        if bytes > limits::REQUEST_BYTES_MAX {
            let (has, most) = (bytes >> 10, limits::REQUEST_BYTES_MAX >> 10);
            return Err(invalid(format!(
                "a job of {has} KiB with its script and environment: at most {most}; put data into files"
            )));
        }
        let job = from_yaml(&request.request).map_err(|error| invalid(error.to_string()))?;
        let tags = self.sched.look(|state| state.scheduler().tags().to_vec());
        let array = |job| self.indexes(job);
        let (gpus, memory_mib) = self.node_sizes();
        let partitions = &self.config.partitions;
        let cluster = ClusterSize { gpus, memory_mib, tags: &tags, partitions };
        let (spec, mut order) =
            order::read(job, bearer.who.clone(), cluster, array).map_err(invalid)?;
        if spec.priority >= Priority::VeryHigh && !bearer.operates() {
            return Err(tonic::Status::permission_denied(
                "very-high and extreme are for operators: ask for high or less",
            ));
        }
        if !spec.inputs.is_empty() {
            let asker = Asker { uid: bearer.who.uid, gid: bearer.who.gid };
            self.sched.ask_of(&lead, &spec.inputs, asker).await;
        }
        order.environment = request.environment;
        let order = serde_json::to_string(&order).expect("text and numbers");
        // Nobody meets another one's submission by its key.
        let key = format!("{}:{}", bearer.who.uid, request.key);
        let fact = Fact::Submitted(Box::new(Submission { key, spec, order }));
        match self.sched.log(fact, "").await.map_err(|status| self.refuse(status))? {
            Answer::Accepted { first, count } => Ok(pb::SubmitJobReply { first, count }),
            Answer::Refused { why } => Err(invalid(why)),
            Answer::Done => Err(tonic::Status::internal("a submission is accepted or refused")),
        }
    }

    /// Of an array, by its number; of anything else none.
    fn indexes(&self, job: u64) -> Vec<u32> {
        let order = self.sched.order_of(JobId(job));
        order.map(|order| order.indexes).unwrap_or_default()
    }

    pub(super) fn jobs_dir(&self) -> String {
        self.config.jobs_dir.to_string_lossy().into_owned()
    }

    /// GPUs of the node that has most, and MiB of the one that has least.
    fn node_sizes(&self) -> (u32, u32) {
        let sizes: Vec<_> = self.sched.look(|state| {
            let nodes = state.topology().nodes();
            nodes.map(|(id, _)| state.scheduler().size_of(id).0).collect()
        });
        let gpus = sizes.iter().map(|size| size.gpus).max().unwrap_or(NODE_GPUS);
        let memory = sizes.iter().map(|size| size.memory).min();
        (gpus, memory.unwrap_or(self.config.compute.memory_mib))
    }
}
