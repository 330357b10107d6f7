//! How far an open file may grow before the namespace is asked: what its quotas leave.

use ff2_client_core::rooms::window;
use ff2_proto::pb;

use super::{OpenInode, OpenState};

impl OpenInode {
    /// Takes in what an answer to a change of this file says; up to `wanted` the file is about to grow.
    pub(crate) fn take_room(&self, reply: &pb::NsReply, wanted: u64) {
        self.state.lock().take_room(reply, wanted);
    }

    /// As [`Self::take_room`], of an answer without attributes.
    pub(crate) fn take_room_now(&self, room: Option<pb::QuotaRoom>, wanted: u64) {
        let mut state = self.state.lock();
        let attr = Some(state.attr);
        state.take_room(&pb::NsReply { attr, quota_room: room, ..Default::default() }, wanted);
    }

    /// Where a write must end that asks nobody; `u64::MAX`: there is no limit.
    pub(crate) fn grow_to(&self) -> u64 {
        self.state.lock().grow_to
    }

    /// What is left of it for a file of this size, as the namespace would say it.
    pub(crate) fn room_at(&self, size: u64) -> Option<pb::QuotaRoom> {
        let end = Some(self.grow_to()).filter(|end| *end < u64::MAX)?;
        Some(pb::QuotaRoom { inodes: None, bytes: Some(end.saturating_sub(size)) })
    }
}

impl OpenState {
    pub(super) fn take_room(&mut self, reply: &pb::NsReply, wanted: u64) {
        let Some(attr) = &reply.attr else { return };
        self.grow_to = match reply.quota_room.and_then(|room| room.bytes) {
            Some(left) => {
                let end = attr.size.saturating_add(left);
                attr.size.saturating_add(window(left)).max(wanted.min(end))
            }
            None => u64::MAX,
        };
    }
}

#[cfg(test)]
mod tests {
    use ff2_proto::InodeId;

    use super::*;

    #[test]
    fn a_file_grows_by_a_window_or_as_far_as_is_wanted_and_left() {
        let open = OpenInode::new(InodeId(9));
        assert_eq!((open.grow_to(), open.room_at(5)), (u64::MAX, None));
        let attr = Some(pb::Attr { size: 100, ..Default::default() });
        let left = |bytes| Some(pb::QuotaRoom { inodes: None, bytes: Some(bytes) });
        let reply = |bytes| pb::NsReply { attr, quota_room: left(bytes), ..Default::default() };
        open.take_room(&reply(50), 0);
        assert_eq!((open.grow_to(), open.room_at(120)), (150, left(30)));
        open.take_room(&reply(1 << 40), 0);
        assert_eq!(open.grow_to(), 100 + (256 << 20));
        open.take_room(&reply(4 << 20), 1 << 30);
        assert_eq!(open.grow_to(), 100 + (4 << 20), "all that is left");
        open.take_room(&reply(4 << 20), 3 << 20);
        assert_eq!(open.grow_to(), 3 << 20, "as far as is wanted");
        open.take_room(&pb::NsReply { attr, ..Default::default() }, 0);
        assert_eq!(open.grow_to(), u64::MAX);
    }
}
