//! A request that was accepted, as those read it who run it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::request::JobRequest;

/// What runs, as whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// As YAML: its parts are read from text.
    #[serde(with = "as_yaml")]
    pub request: JobRequest,
    pub submitter: Submitter,
    /// What it has of its submitter's environment, under what the request says.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Of all tasks, and on each.
    pub ranks: u32,
    pub ranks_per_task: u32,
    pub grace_s: u64,
    /// The indexes of an array.
    #[serde(default)]
    pub indexes: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submitter {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

mod as_yaml {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::{from_yaml, request::JobRequest, to_yaml};

    pub(super) fn serialize<S: Serializer>(job: &JobRequest, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_yaml(job))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<JobRequest, D::Error> {
        from_yaml(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_the_same_after_it_was_kept() {
        let script = "#!/bin/sh\n#SBATCH -N 2 --ntasks-per-node=4 --time=10 --array=1-4\n\
                      #FF2 --grace=9\necho 'a: b' # x\n";
        let (request, _) = crate::from_script(script).unwrap();
        let order = Order {
            request,
            submitter: Submitter { name: "ann".into(), uid: 1, gid: 2 },
            environment: [("A".into(), "b: c\n".into())].into(),
            ranks: 8,
            ranks_per_task: 4,
            grace_s: 9,
            indexes: vec![1, 2, 3, 4],
        };
        let text = serde_json::to_string(&order).unwrap();
        assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), order);
    }
}
