//! Is the way to another node fast, and does it carry what is sent?

use std::io;

use crate::{
    Check, Verdict,
    judge::Measured,
    pair::{self, Found},
    validate::Course,
};

pub(crate) fn check(course: &Course) -> Vec<Check> {
    let Some(peer) = &course.plan.peer else {
        return vec![Check::not_tried("network", "no other node was named to be tried with")];
    };
    match pair::measure(peer, course.budget.network_bytes, course.budget.network) {
        Ok(found) => judge(course, &found),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let why = format!("{} waits for somebody else: {error}", peer.address);
            vec![Check::not_tried("network", why)]
        }
        // Which of the two is at fault, only a third one tells.
        Err(error) => {
            let why = format!("no bytes go between here and {}: {error}", peer.address);
            vec![Check::without_figure("network", Verdict::Suspect, why)]
        }
    }
}

fn judge(course: &Course, found: &Found) -> Vec<Check> {
    let (judge, limits) = (&course.judge, &course.judge.limits);
    let rate = |name, figure, what| {
        let measured = Measured { name, figure, unit: "MiB/s", what };
        judge.at_least(measured, Some(limits.network_mib_s))
    };
    let trip = Measured {
        name: "network.latency",
        figure: found.trip_us,
        unit: "us",
        what: "a round trip to the other node",
    };
    let wrong = Measured {
        name: "network.wrong_chunks",
        figure: found.wrong_chunks as f64,
        unit: "",
        what: "pieces that arrived otherwise than they were sent",
    };
    vec![
        judge.at_most(trip, Some(limits.network_us)),
        rate("network.send", found.send_mib_s, "to the other node"),
        rate("network.receive", found.receive_mib_s, "from the other node"),
        judge.none_of(wrong, Verdict::Failed),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Depth, Peer, Plan, budget::Budget, judge::tests::judge as judge_of};

    #[test]
    fn a_peer_that_is_not_there_makes_both_suspect() {
        // Bound and closed again: nobody listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let peer = Some(Peer { address, token: b"sixteen bytes...".into() });
        let course = Course {
            plan: Plan { peer, ..Plan::default() },
            judge: judge_of(&[]),
            budget: Budget::of(Depth::Quick),
            hardware: ff2_node::Hardware::look().unwrap(),
        };
        assert_eq!(check(&course)[0].verdict, Verdict::Suspect);
    }

    #[test]
    fn a_slow_way_fails_and_a_fast_one_does_not() {
        let course = Course {
            plan: Plan::default(),
            judge: judge_of(&[]),
            budget: Budget::of(Depth::Quick),
            hardware: ff2_node::Hardware::look().unwrap(),
        };
        let fast = Found { trip_us: 30.0, send_mib_s: 9e3, receive_mib_s: 9e3, wrong_chunks: 0 };
        assert!(judge(&course, &fast).iter().all(|check| check.verdict == Verdict::Ok));
        let slow = Found { receive_mib_s: 9.0, wrong_chunks: 1, ..fast };
        let verdicts: Vec<_> = judge(&course, &slow).iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Ok, Verdict::Failed, Verdict::Failed]);
    }
}
