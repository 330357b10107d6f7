//! What the world asks of a simulated process, whichever it is.

use crate::{
    chunk_client::ChunkClient,
    lock_client::LockClient,
    message::Message,
    metad::Metad,
    name_client::NameClient,
    net::Place,
    operator::Operator,
    storaged::Storaged,
    world::{Context, Later},
};

/// What every simulated process does.
pub(crate) trait Process {
    fn start(&mut self, cx: &mut Context<'_>);
    fn on_timer(&mut self, cx: &mut Context<'_>, later: Later);
    fn on_message(&mut self, cx: &mut Context<'_>, from: Place, message: Message);
    fn crash(&mut self, cx: &mut Context<'_>);
}

impl Process for Metad {
    fn start(&mut self, cx: &mut Context<'_>) {
        Metad::start(self, cx);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, later: Later) {
        match later {
            Later::Metad(timer) => Metad::on_timer(self, cx, timer),
            other => panic!("{other:?} is not for a metad"),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, from: Place, message: Message) {
        Metad::on_message(self, cx, from, message);
    }

    fn crash(&mut self, cx: &mut Context<'_>) {
        Metad::crash(self, cx);
    }
}

impl Process for Storaged {
    fn start(&mut self, cx: &mut Context<'_>) {
        Storaged::start(self, cx);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, later: Later) {
        match later {
            Later::Storaged(timer) => Storaged::on_timer(self, cx, timer),
            other => panic!("{other:?} is not for a storaged"),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, _from: Place, message: Message) {
        match message {
            Message::Call { rpc, from, call } => self.on_call(cx, from, rpc, call),
            Message::Answer { rpc, answer } => self.on_answer(cx, rpc, answer),
            Message::Settle { target, chain_version, from, outcome } => {
                self.on_settle(cx, target, chain_version, (from, vec![outcome]));
            }
            other => panic!("{other:?} is not for a storaged"),
        }
    }

    fn crash(&mut self, cx: &mut Context<'_>) {
        Storaged::crash(self, cx);
    }
}

macro_rules! client {
    ($client:ident) => {
        impl Process for $client {
            fn start(&mut self, cx: &mut Context<'_>) {
                $client::start(self, cx);
            }

            fn on_timer(&mut self, cx: &mut Context<'_>, later: Later) {
                match later {
                    Later::$client(timer) => $client::on_timer(self, cx, timer),
                    other => panic!("{other:?} is not for a client"),
                }
            }

            fn on_message(&mut self, cx: &mut Context<'_>, _from: Place, message: Message) {
                match message {
                    Message::Answer { rpc, answer } => self.on_answer(cx, rpc, answer),
                    other => panic!("{other:?} is not for a client"),
                }
            }

            fn crash(&mut self, _cx: &mut Context<'_>) {
                panic!("clients do not crash here");
            }
        }
    };
}

client!(ChunkClient);
client!(NameClient);
client!(LockClient);

impl Process for Operator {
    fn start(&mut self, _cx: &mut Context<'_>) {}

    fn on_timer(&mut self, cx: &mut Context<'_>, later: Later) {
        match later {
            Later::Operator(timer) => Operator::on_timer(self, cx, timer),
            other => panic!("{other:?} is not for the operator"),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, _from: Place, message: Message) {
        match message {
            Message::Answer { rpc, answer } => self.on_answer(cx, rpc, &answer),
            other => panic!("{other:?} is not for the operator"),
        }
    }

    fn crash(&mut self, _cx: &mut Context<'_>) {
        panic!("the operator does not crash");
    }
}
