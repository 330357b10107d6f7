//! The handshake: both sides prove that they know the key before anything else is believed.
//!
//! ```text
//! client -> Hello     { protocols, cluster, nonce, daemon or claims, lane, RDMA endpoint }
//! server -> Challenge { nonce, HMAC(key, "server" ++ server nonce ++ hello bytes) }
//! client -> Proof     { HMAC(key, "client" ++ server nonce ++ hello bytes) }
//! server -> Welcome   { protocol, credit, requests, .. }        or at any time Refused { status }
//! ```
//! How a connection goes on by RDMA after that is [`crate::rdma`]'s.
//!
//! Inside a TLS connection the proofs also cover a secret of that connection ([`crate::tls`]).
//!
//! The key is the cluster key for a daemon; for a user it is the token's MAC, which the server
//! computes anew from the claims. The server bounds the size and the time of all this.

use bytes::Bytes;
use ff2_proto::{Code, Status, pb, status};
use prost::Message;

use crate::{
    auth::{ClusterKey, Purpose, Role, Secret, check_claims, mac, now_s, random, same},
    frame::{FrameError, Header, Kind, Limits, encode_message},
    level::protocols,
    limits::SHARED_SLABS_MAX,
    peers::Identity,
    rdma::{Answering, Workload},
    routing::RoutingCache,
    rpc::Peer,
    transport::{Frame, Lane, LinkError, Receiver, Sender},
};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) protocol: u32,
    #[prost(string, tag = "2")]
    pub(crate) cluster_id: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) nonce: Bytes,
    /// Else the claims say who connects.
    #[prost(bool, tag = "4")]
    pub(crate) daemon: bool,
    /// `UserClaims` as they were sealed.
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) claims: Bytes,
    #[prost(bool, tag = "6")]
    pub(crate) bulk: bool,
    /// Of the local socket that the client connected to; empty over the network. Both proofs cover it, so
    /// nobody in between can make the client share its memory with him.
    #[prost(string, tag = "7")]
    pub(crate) local_name: String,
    /// The highest version that the client speaks; 0: `protocol` is the only one.
    #[prost(uint32, tag = "8")]
    pub(crate) protocol_max: u32,
    /// The client's end of a pair, if it would go on by RDMA.
    #[prost(bytes = "bytes", tag = "9")]
    pub(crate) rdma: Bytes,
    /// A `Workload`: how the server's packets of that pair are to be treated.
    #[prost(uint32, tag = "10")]
    pub(crate) workload: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Challenge {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) nonce: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) proof: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Proof {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) proof: Bytes,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Welcome {
    /// Bulk bytes of unanswered requests that the server takes on this connection.
    #[prost(uint32, tag = "1")]
    pub(crate) credit_bytes: u32,
    /// Unanswered requests that it takes.
    #[prost(uint32, tag = "2")]
    pub(crate) requests: u32,
    /// Of the local socket on which it takes the same client, if that is on its host; else empty.
    #[prost(string, tag = "3")]
    pub(crate) local_name: String,
    /// Slabs of its memory that the client may share on this connection.
    #[prost(uint32, tag = "4")]
    pub(crate) shared_slabs: u32,
    /// The version that both speak from here on; 0: 1.
    #[prost(uint32, tag = "5")]
    pub(crate) protocol: u32,
    /// The server's end of the pair.
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) rdma: Bytes,
    /// Or why it does not go on by RDMA, for a person.
    #[prost(string, tag = "7")]
    pub(crate) no_rdma: String,
}

/// What a client wants a connection for, and how it comes.
#[derive(Clone, Debug)]
pub(crate) struct Approach<'a> {
    pub(crate) lane: Lane,
    /// Of the local socket that it came by; empty over the network.
    pub(crate) local_name: &'a str,
    /// Its end of a pair; empty: it stays with what it came by.
    pub(crate) rdma: Bytes,
    pub(crate) workload: Workload,
}

impl Approach<'static> {
    /// Over the network, to stay there.
    pub(crate) fn by_network(lane: Lane) -> Self {
        Self { lane, local_name: "", rdma: Bytes::new(), workload: Workload::Files }
    }
}

/// What one side proves that it knows the key by, both in one place.
fn proofs(key: &Secret, nonce: &Secret, hello: &[u8], binding: Option<&Secret>) -> [Secret; 2] {
    let purposes = match binding {
        None => [Purpose::ServerProof, Purpose::ClientProof],
        Some(_) => [Purpose::BoundServerProof, Purpose::BoundClientProof],
    };
    let binding: &[u8] = binding.map_or(&[], |secret| secret);
    purposes.map(|purpose| mac(key, purpose, &[nonce, binding, hello]))
}

/// The client's side. `binding`: the secret of the TLS connection that it goes through.
pub(crate) async fn join(
    sender: &mut Sender,
    receiver: &mut Receiver,
    identity: &Identity,
    cluster_id: &str,
    approach: Approach<'_>,
    binding: Option<&Secret>,
) -> Result<Welcome, LinkError> {
    let nonce = random().map_err(|error| refusal(Code::Internal, &error.to_string()))?;
    let (daemon, claims, key): (bool, Bytes, &Secret) = match identity {
        Identity::Daemon(key) => (true, Bytes::new(), key.secret()),
        Identity::User(token) => (false, token.encoded_claims().clone(), token.secret()),
    };
    let hello = Hello {
        protocol: protocols()[0],
        cluster_id: cluster_id.into(),
        nonce: Bytes::copy_from_slice(&nonce),
        daemon,
        claims,
        bulk: approach.lane == Lane::Bulk,
        local_name: approach.local_name.into(),
        protocol_max: protocols()[1],
        rdma: approach.rdma,
        workload: approach.workload.number(),
    };
    send(sender, Kind::Hello, &hello).await?;
    let hello = hello.encode_to_vec();
    let challenge: Challenge = expect(receiver, Kind::Challenge).await?;
    let [theirs, ours] = proofs(key, &nonce_of(&challenge.nonce)?, &hello, binding);
    if !same(&theirs, &challenge.proof) {
        let secret = if daemon { "cluster key" } else { "token" };
        return Err(LinkError::Refused(Status::new(
            Code::Unauthenticated,
            format!(
                "this process's {secret} and the server's cluster key do not belong together: \
                     check the {secret} file and the address"
            ),
        )));
    }
    send(sender, Kind::Proof, &Proof { proof: Bytes::copy_from_slice(&ours) }).await?;
    let welcome: Welcome = expect(receiver, Kind::Welcome).await?;
    common([welcome.protocol.max(1); 2], protocols())?;
    // A server shares nothing.
    receiver.open(Limits::AUTHENTICATED, 0);
    sender.may_share(welcome.shared_slabs);
    Ok(welcome)
}

/// What the server's side needs to know.
pub(crate) struct Gate<'a> {
    pub(crate) cluster_id: &'a str,
    pub(crate) key: &'a ClusterKey,
    pub(crate) routing: &'a RoutingCache,
    /// Name of the local socket by which the client came; empty: by another way.
    pub(crate) came_by: &'a str,
    /// The secret of the TLS connection that it came through, if it did.
    pub(crate) binding: Option<Secret>,
    /// It came in clear over the network, and must not: what it is told to do.
    pub(crate) must_encrypt: Option<&'static str>,
    pub(crate) welcome: &'a Welcome,
    pub(crate) rdma: Answering<'a>,
    /// How many slabs a peer may share by the way it came; 0: none.
    pub(crate) grant_slabs: &'a (dyn Fn(&Peer) -> u32 + Sync),
}

/// Who was admitted, to what.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) peer: Peer,
    pub(crate) lane: Lane,
    pub(crate) limits: Limits,
    /// Slabs that it may share.
    pub(crate) slabs: u32,
}

/// The server's side. A refusal is sent to the client before it is returned.
pub(crate) async fn admit(
    sender: &mut Sender,
    receiver: &mut Receiver,
    gate: &Gate<'_>,
) -> Result<Admission, LinkError> {
    let admitted = gate.examine(sender, receiver).await;
    if let Err(LinkError::Refused(status)) = &admitted {
        send(sender, Kind::Refused, &pb::Status::from(status.clone())).await?;
    }
    admitted
}

impl Gate<'_> {
    async fn examine(
        &self,
        sender: &mut Sender,
        receiver: &mut Receiver,
    ) -> Result<Admission, LinkError> {
        let (hello, protocol, raw) = self.hello(receiver).await?;
        let key = if hello.daemon { *self.key.secret() } else { self.key.token_mac(&hello.claims) };
        let nonce = random().map_err(|error| refusal(Code::Internal, &error.to_string()))?;
        let [ours, theirs] = proofs(&key, &nonce, &raw, self.binding.as_ref());
        let challenge = Challenge {
            nonce: Bytes::copy_from_slice(&nonce),
            proof: Bytes::copy_from_slice(&ours),
        };
        send(sender, Kind::Challenge, &challenge).await?;
        let shown: Proof = expect(receiver, Kind::Proof).await?;
        if !same(&theirs, &shown.proof) {
            return Err(refusal(Code::Unauthenticated, "the proof of the key or token is wrong"));
        }
        let lane = if hello.bulk { Lane::Bulk } else { Lane::Small };
        let peer = if hello.daemon { Peer::Daemon } else { self.user(hello.claims)? };
        let answer = match hello.rdma.is_empty() {
            true => Ok(Bytes::new()),
            false => self.rdma.answer(&hello.rdma, lane, Workload::of(hello.workload)).await,
        };
        let (rdma, no_rdma) =
            answer.map_or_else(|why| (Bytes::new(), why), |end| (end, String::new()));
        let slabs = match rdma.is_empty() {
            true => (self.grant_slabs)(&peer),
            // An address and a key each.
            false => SHARED_SLABS_MAX,
        };
        let welcome = self.welcome.clone();
        let welcome = Welcome { shared_slabs: slabs, protocol, rdma, no_rdma, ..welcome };
        send(sender, Kind::Welcome, &welcome).await?;
        let limits = match peer {
            Peer::Daemon => Limits::AUTHENTICATED,
            Peer::User(_) => Limits::USER,
        };
        receiver.open(limits, slabs);
        Ok(Admission { peer, lane, limits, slabs })
    }

    async fn hello(&self, receiver: &mut Receiver) -> Result<(Hello, u32, Bytes), LinkError> {
        let head = receiver.head().await?;
        if head.header.kind != Kind::Hello {
            return Err(FrameError::Unexpected(head.header.kind).into());
        }
        let hello = Hello::decode(head.message.clone())
            .map_err(|_| refusal(Code::BadFrame, "the hello is damaged"))?;
        let theirs = [hello.protocol, hello.protocol_max.max(hello.protocol)];
        let protocol = common(protocols(), theirs)?;
        if hello.cluster_id != self.cluster_id {
            let detail = format!(
                "this server belongs to cluster `{}`, the client to `{}`: check the addresses and \
                 `cluster_id` in the configuration",
                self.cluster_id, hello.cluster_id
            );
            return Err(refusal(Code::WrongCluster, &detail));
        }
        if let Some(advice) = self.must_encrypt {
            let detail = format!("this server takes encrypted connections only: {advice}");
            return Err(refusal(Code::Unauthenticated, &detail));
        }
        if hello.local_name != self.came_by {
            let detail =
                "the client means another socket than the one it came by: somebody is between";
            return Err(refusal(Code::Unauthenticated, detail));
        }
        nonce_of(&hello.nonce)?;
        Ok((hello, protocol, head.message))
    }

    fn user(&self, claims: Bytes) -> Result<Peer, LinkError> {
        let claims = pb::UserClaims::decode(claims)
            .map_err(|_| refusal(Code::Unauthenticated, "the token's claims are damaged"))?;
        check_claims(&claims, now_s(), &self.routing.get().revoked_tokens)
            .map_err(LinkError::Refused)?;
        let role = Role::of(&claims);
        if !role.opens_files() {
            let detail = format!(
                "the token of {} has the role {role}, which opens no files: take one of role user",
                claims.name
            );
            return Err(refusal(Code::Forbidden, &detail));
        }
        Ok(Peer::User(claims.into()))
    }
}

/// The highest version that both sides speak, of the lowest and the highest of each.
fn common(server: [u32; 2], client: [u32; 2]) -> Result<u32, LinkError> {
    let highest = server[1].min(client[1]);
    if highest >= server[0].max(client[0]) {
        return Ok(highest);
    }
    let older = if server[1] < client[0] { "server's" } else { "client's" };
    let spoken = |[lowest, highest]: [u32; 2]| match lowest == highest {
        true => format!("version {lowest}"),
        false => format!("versions {lowest} to {highest}"),
    };
    let detail = format!(
        "the server speaks {} of the protocol, the client {}: install a newer release on the {older} host",
        spoken(server),
        spoken(client)
    );
    Err(refusal(Code::BadProtocolVersion, &detail))
}

fn nonce_of(bytes: &[u8]) -> Result<Secret, LinkError> {
    bytes.try_into().map_err(|_| refusal(Code::BadFrame, "a nonce has 32 bytes"))
}

fn refusal(code: Code, detail: &str) -> LinkError {
    LinkError::Refused(Status::new(code, detail))
}

async fn send<M: Message>(sender: &mut Sender, kind: Kind, message: &M) -> Result<(), LinkError> {
    let frame = Frame::new(Header::new(kind, 0, 0), encode_message(message), Vec::new());
    sender.send(&mut [frame]).await
}

async fn expect<M: Message + Default>(receiver: &mut Receiver, kind: Kind) -> Result<M, LinkError> {
    let head = receiver.head().await?;
    let damaged = |_| refusal(Code::BadFrame, "a message of the handshake is damaged");
    match head.header.kind {
        found if found == kind => M::decode(head.message).map_err(damaged),
        Kind::Refused => {
            let refused = pb::Status::decode(head.message).map_err(damaged)?;
            match status::check(Some(refused)) {
                Err(status) => Err(LinkError::Refused(status)),
                Ok(()) => Err(refusal(Code::BadFrame, "the server refused without a reason")),
            }
        }
        other => Err(FrameError::Unexpected(other).into()),
    }
}

#[cfg(test)]
mod tests;
