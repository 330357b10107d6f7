//! The device's queue pair itself: made, brought from state to state, given work.

use std::{fmt, ptr::NonNull, sync::Arc};

use rdma_sys::{
    ibv_access_flags, ibv_post_recv, ibv_post_send, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask,
    ibv_qp_init_attr, ibv_qp_state, ibv_qp_type, ibv_recv_wr, ibv_send_flags, ibv_send_wr, ibv_sge,
    ibv_wr_opcode,
};

use super::{Class, Endpoint, Settings};
use crate::{
    Access, Domain, Error, Failure, Place, Remote, completions::Completions, device::mtu_code,
};

pub(super) struct Handle {
    qp: NonNull<ibv_qp>,
    destroyed: bool,
    domain: Arc<Domain>,
}

// SAFETY: libibverbs may be called by all threads, on the same objects too.
unsafe impl Send for Handle {}

/// One work request: a piece of our memory and what is to be done with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) what: What,
    /// Address, length, key.
    pub(super) local: (u64, u32, u32),
    /// Reported when it is done; else only with a failure.
    pub(super) reported: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Read(Remote),
    Write(Remote),
    /// With these immediate data.
    Send(u32),
}

impl Handle {
    pub(super) fn new(
        domain: &Arc<Domain>,
        completions: &Completions,
        settings: &Settings,
    ) -> Result<Self, Error> {
        // SAFETY: a structure of integers and pointers.
        let mut wanted: ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        wanted.send_cq = completions.cq();
        wanted.recv_cq = completions.cq();
        wanted.qp_type = ibv_qp_type::IBV_QPT_RC;
        wanted.cap.max_send_wr = settings.works;
        wanted.cap.max_recv_wr = settings.receives();
        wanted.cap.max_send_sge = 1;
        wanted.cap.max_recv_sge = 1;
        let device = domain.device();
        // SAFETY: the domain's and the queue's device is the same, and both outlive the pair.
        let qp = NonNull::new(unsafe { (device.library.create_qp)(domain.pd(), &mut wanted) });
        let qp = qp.ok_or_else(|| Error::last("ibv_create_qp", device.name()))?;
        Ok(Self { qp, destroyed: false, domain: domain.clone() })
    }

    pub(super) fn number(&self) -> u32 {
        // SAFETY: created, not destroyed yet; never written to.
        unsafe { self.qp.as_ref().qp_num }
    }

    /// Whether the device is done with all memory that it was given. If not, it never may be freed.
    /// Nothing may be called on it afterwards.
    pub(super) fn destroy(&mut self) -> bool {
        // SAFETY: created by us, and not destroyed before; this is the end of its owner, or its own.
        self.destroyed = self.destroyed
            || unsafe { (self.domain.device().library.destroy_qp)(self.qp.as_ptr()) == 0 };
        self.destroyed
    }

    /// From here on messages can be received into what is posted.
    pub(super) fn begin(&self, place: &Place, access: Access) -> Result<(), Error> {
        let mut attributes = blank();
        attributes.qp_state = ibv_qp_state::IBV_QPS_INIT;
        attributes.port_num = place.port;
        if access == Access::Peers {
            let flags = ibv_access_flags::IBV_ACCESS_REMOTE_READ
                | ibv_access_flags::IBV_ACCESS_REMOTE_WRITE;
            attributes.qp_access_flags = flags.0;
        }
        let mask = ibv_qp_attr_mask::IBV_QP_STATE
            | ibv_qp_attr_mask::IBV_QP_PKEY_INDEX
            | ibv_qp_attr_mask::IBV_QP_PORT
            | ibv_qp_attr_mask::IBV_QP_ACCESS_FLAGS;
        self.modify(attributes, mask)
    }

    /// Brings it to where both sides may send.
    pub(super) fn connect(
        &self,
        place: &Place,
        class: Class,
        ours: &Endpoint,
        theirs: &Endpoint,
    ) -> Result<(), Error> {
        let mut attributes = blank();
        attributes.qp_state = ibv_qp_state::IBV_QPS_RTR;
        let mtu = mtu_code(ours.mtu_bytes.min(theirs.mtu_bytes));
        attributes.path_mtu = mtu.ok_or(Error::Endpoint("there is no such MTU"))?;
        attributes.dest_qp_num = theirs.queue_pair;
        attributes.rq_psn = theirs.packet;
        attributes.max_dest_rd_atomic = ours.reads;
        // Credits see to it that there is room, so this is never waited for: 0.64 ms.
        attributes.min_rnr_timer = 12;
        let way = &mut attributes.ah_attr;
        way.dlid = theirs.lid;
        way.sl = class.service_level;
        way.port_num = place.port;
        way.is_global = 1;
        way.grh.dgid.raw = theirs.gid;
        way.grh.sgid_index = place.gid.index;
        way.grh.hop_limit = HOPS_MAX;
        way.grh.traffic_class = class.traffic_class;
        let mask = ibv_qp_attr_mask::IBV_QP_STATE
            | ibv_qp_attr_mask::IBV_QP_AV
            | ibv_qp_attr_mask::IBV_QP_PATH_MTU
            | ibv_qp_attr_mask::IBV_QP_DEST_QPN
            | ibv_qp_attr_mask::IBV_QP_RQ_PSN
            | ibv_qp_attr_mask::IBV_QP_MAX_DEST_RD_ATOMIC
            | ibv_qp_attr_mask::IBV_QP_MIN_RNR_TIMER;
        self.modify(attributes, mask)?;
        let mut attributes = blank();
        attributes.qp_state = ibv_qp_state::IBV_QPS_RTS;
        attributes.timeout = TIMEOUT;
        attributes.retry_cnt = RETRIES;
        attributes.rnr_retry = 0;
        attributes.sq_psn = ours.packet;
        attributes.max_rd_atomic = ours.reads.min(theirs.reads);
        let mask = ibv_qp_attr_mask::IBV_QP_STATE
            | ibv_qp_attr_mask::IBV_QP_TIMEOUT
            | ibv_qp_attr_mask::IBV_QP_RETRY_CNT
            | ibv_qp_attr_mask::IBV_QP_RNR_RETRY
            | ibv_qp_attr_mask::IBV_QP_SQ_PSN
            | ibv_qp_attr_mask::IBV_QP_MAX_QP_RD_ATOMIC;
        self.modify(attributes, mask)
    }

    /// How the device says that it treats our packets, once it is connected.
    pub(super) fn class(&self) -> Result<Class, Error> {
        let mut attributes = blank();
        // SAFETY: a structure of integers and pointers.
        let mut made: ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        let device = self.domain.device();
        let mask = ibv_qp_attr_mask::IBV_QP_AV.0 as i32;
        // SAFETY: our queue pair; it writes no more than these two structures.
        let code = unsafe {
            (device.library.query_qp)(self.qp.as_ptr(), &mut attributes, mask, &mut made)
        };
        if code != 0 {
            return Err(Error::returned("ibv_query_qp", device.name(), code));
        }
        let way = &attributes.ah_attr;
        Ok(Class { service_level: way.sl, traffic_class: way.grh.traffic_class })
    }

    /// All that is posted comes back, and nothing more is taken.
    pub(super) fn fail(&self) -> Result<(), Error> {
        let mut attributes = blank();
        attributes.qp_state = ibv_qp_state::IBV_QPS_ERR;
        self.modify(attributes, ibv_qp_attr_mask::IBV_QP_STATE)
    }

    fn modify(&self, mut attributes: ibv_qp_attr, mask: ibv_qp_attr_mask) -> Result<(), Error> {
        let device = self.domain.device();
        // SAFETY: our queue pair; the structure is read only.
        match unsafe {
            (device.library.modify_qp)(self.qp.as_ptr(), &mut attributes, mask.0 as i32)
        } {
            0 => Ok(()),
            code => Err(Error::returned("ibv_modify_qp", device.name(), code)),
        }
    }

    /// Posts all of it, or fails with some of it posted.
    ///
    /// # Safety
    /// The memory of each request stays as it is, and is not read if it is read into, until it is reported, by itself
    /// or by a later one, or until [`Handle::destroy`] has returned true.
    pub(super) unsafe fn post(&self, requests: &[Request]) -> Result<(), Failure> {
        let mut pieces: Vec<ibv_sge> =
            requests.iter().map(|request| piece(request.local)).collect();
        let mut posted: Vec<ibv_send_wr> =
            requests.iter().zip(&mut pieces).map(|(request, piece)| work(request, piece)).collect();
        for at in 1..posted.len() {
            let next = &raw mut posted[at];
            posted[at - 1].next = next;
        }
        let Some(first) = posted.first_mut() else { return Ok(()) };
        let mut refused = std::ptr::null_mut();
        // SAFETY: a list of well-formed requests, read before this returns; of the memory the caller takes care.
        match unsafe { ibv_post_send(self.qp.as_ptr(), first, &mut refused) } {
            0 => Ok(()),
            code => Err(Failure::Post(code)),
        }
    }

    /// Posts room for a message.
    ///
    /// # Safety
    /// As of [`Handle::post`]: nobody else touches the memory until then.
    pub(super) unsafe fn receive(&self, id: u64, local: (u64, u32, u32)) -> Result<(), Failure> {
        let mut piece = piece(local);
        let mut request =
            ibv_recv_wr { wr_id: id, next: std::ptr::null_mut(), sg_list: &mut piece, num_sge: 1 };
        let mut refused = std::ptr::null_mut();
        // SAFETY: a well-formed request, read before this returns; of the memory the caller takes care.
        match unsafe { ibv_post_recv(self.qp.as_ptr(), &mut request, &mut refused) } {
            0 => Ok(()),
            code => Err(Failure::Post(code)),
        }
    }
}

/// Of an IP packet: enough for any network of ours.
const HOPS_MAX: u8 = 64;
/// An answer is waited for 4.096 us * 2^14 = 67 ms.
const TIMEOUT: u8 = 14;
/// And asked for so many times more: a peer is given up after about half a second, long after a switch that lost some
/// packets goes on and before a person notices. One more would be the most, but soft-RoCE takes that for ever.
const RETRIES: u8 = 6;

fn blank() -> ibv_qp_attr {
    // SAFETY: a structure of integers.
    unsafe { std::mem::zeroed() }
}

fn piece((addr, length, lkey): (u64, u32, u32)) -> ibv_sge {
    ibv_sge { addr, length, lkey }
}

fn work(request: &Request, piece: &mut ibv_sge) -> ibv_send_wr {
    // SAFETY: integers, pointers and unions of such.
    let mut work: ibv_send_wr = unsafe { std::mem::zeroed() };
    work.wr_id = request.id;
    work.sg_list = piece;
    // A message of no bytes has no memory.
    work.num_sge = i32::from(piece.length > 0);
    if request.reported {
        work.send_flags = ibv_send_flags::IBV_SEND_SIGNALED.0;
    }
    let (opcode, remote) = match request.what {
        What::Read(remote) => (ibv_wr_opcode::IBV_WR_RDMA_READ, Some(remote)),
        What::Write(remote) => (ibv_wr_opcode::IBV_WR_RDMA_WRITE, Some(remote)),
        What::Send(immediate) => {
            work.imm_data_invalidated_rkey_union.imm_data = immediate.to_be();
            (ibv_wr_opcode::IBV_WR_SEND_WITH_IMM, None)
        }
    };
    work.opcode = opcode;
    if let Some(remote) = remote {
        work.wr.rdma = rdma_sys::rdma_t { remote_addr: remote.address, rkey: remote.key };
    }
    work
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.destroy();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} of {})", self.number(), self.domain.device().name())
    }
}
