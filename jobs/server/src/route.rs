//! The router: one address before several replicas of a model. Owns which replica answers what, clients' keys and
//! their limits, and how many replicas there should be; never reads text as tokens, and runs nothing itself.
//!
//! The story of a request: `http` finds whose it is, `prompt` cuts what it asks into blocks, `choice` picks the replica
//! that has most of them computed and least to do (`replicas` keeps count of both), `forward` sends it there through
//! `upstream`, tries another one if that one has not begun to answer, and passes the answer on (`relay`). Beside that
//! `watch` asks replicas how they are, which are found in the service's `folder`, and `fleet` decides how many there
//! should be; `orders` tells the scheduler, `report` people. Of several routers one does all that (`routers`), and the
//! others `hand_on` to it what they are asked.

pub mod choice;
pub mod figures;
pub mod fleet;
pub mod folder;
pub mod forward;
pub mod hand_on;
pub mod http;
pub mod orders;
pub mod prompt;
mod relay;
pub mod replicas;
pub mod report;
pub mod roll;
pub mod routers;
pub mod upstream;
pub mod watch;
