//! A term of leadership, as the work that only a leader does sees it.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use ff2_proto::Status;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::replica::Leadership;

/// One term in which this node leads a group. Work of this term asks [`Term::check`] before each
/// step that others can see.
#[derive(Clone, Debug)]
pub struct Term {
    term: u64,
    began: Instant,
    leadership: watch::Receiver<Leadership>,
}

impl Term {
    /// Raft's number of it.
    pub fn number(&self) -> u64 {
        self.term
    }

    /// Time since the term began here.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Milliseconds since the term began here: the leader's monotonic clock.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX)
    }

    /// # Errors
    /// NOT_LEADER once the term is over, with who leads if that is known.
    pub fn check(&self) -> Result<(), Status> {
        let now = self.leadership.borrow();
        if now.is_leader && now.term == self.term {
            return Ok(());
        }
        Err(Status::not_leader(now.leader.as_ref().map(|leader| leader.address.clone())))
    }

    /// Resolves when the term ends.
    pub async fn ended(&self) {
        let mut leadership = self.leadership.clone();
        let term = self.term;
        // An error means that the group was shut down: that ends the term too.
        let _ = leadership.wait_for(|now| !now.is_leader || now.term != term).await;
    }
}

/// Calls `lead` for each term in which this node leads, and drops its future when the term ends.
/// Everything that `lead` awaits must therefore be safe to abandon: commands are, since a command
/// whose answer nobody heard is found in the state by the next term.
pub async fn lead_each_term<F, Fut>(
    mut leadership: watch::Receiver<Leadership>,
    stop: CancellationToken,
    mut lead: F,
) where
    F: FnMut(Term) -> Fut,
    Fut: Future<Output = ()>,
{
    loop {
        let term = tokio::select! {
            () = stop.cancelled() => return,
            now = leadership.wait_for(|now| now.is_leader) => match now {
                Ok(now) => now.term,
                Err(_) => return,
            },
        };
        let term = Term { term, began: Instant::now(), leadership: leadership.clone() };
        tokio::select! {
            () = stop.cancelled() => return,
            () = term.ended() => {}
            () = lead(term.clone()) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = term.ended() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_ends_with_its_term() {
        let (sender, receiver) = watch::channel(Leadership::default());
        let (began, mut terms) = tokio::sync::mpsc::channel(4);
        let stop = CancellationToken::new();
        let leading = tokio::spawn(lead_each_term(receiver, stop.clone(), move |term| {
            let began = began.clone();
            async move {
                began.send(term).await.unwrap();
                std::future::pending::<()>().await;
            }
        }));
        sender.send_modify(|now| (now.term, now.is_leader) = (2, true));
        let first = terms.recv().await.unwrap();
        assert!(first.check().is_ok());
        assert_eq!(first.number(), 2);
        sender.send_modify(|now| (now.term, now.is_leader) = (3, false));
        assert!(first.check().is_err());
        sender.send_modify(|now| (now.term, now.is_leader) = (4, true));
        assert_eq!(terms.recv().await.unwrap().number(), 4);
        stop.cancel();
        leading.await.unwrap();
    }
}
