//! What is chosen for a connection when it is made.

use crate::{Access, Error};

/// How the network is to treat a connection's packets, so that those of one kind of message do not wait behind those
/// of another. What the numbers mean is the switches' configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// 0 to 15, of InfiniBand; on Ethernet, the priority.
    pub service_level: u8,
    /// The byte of IP headers: DSCP in its upper six bits.
    pub traffic_class: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Transfers and messages on their way at a time; the queue of the device.
    pub works: u32,
    /// Messages that the peer may send before they are taken, each with a buffer of its own.
    pub messages: u32,
    pub class: Class,
    /// Whether the peer may pull and push.
    pub access: Access,
}

impl Default for Settings {
    fn default() -> Self {
        Self { works: 128, messages: 32, class: Class::default(), access: Access::Local }
    }
}

/// Messages that only grant others need no credit. At most two of them are not taken yet at any moment: one is sent
/// when half of all messages were taken, all of which had to be sent with credits, and those run out before a third.
const GRANTS_MAX: u32 = 2;

impl Settings {
    /// Buffers posted for messages.
    pub fn receives(&self) -> u32 {
        self.messages + GRANTS_MAX
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        within("works of a connection", 4, 4096, self.works)?;
        within("messages of a connection", 2, 4096, self.messages)?;
        within("service level", 0, 15, self.class.service_level.into())
    }
}

fn within(what: &'static str, least: u32, most: u32, given: u32) -> Result<(), Error> {
    let inside = (least..=most).contains(&given);
    if inside { Ok(()) } else { Err(Error::Setting { what, least, most, given }) }
}
