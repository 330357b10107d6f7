mod by_key;

use std::{fs, time::Duration};

use ff2_fuzz::{bounded, target};
use ff2_proto::{Code, Status};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    Buf, Call, Identity, Peers, PeersConfig, Tuning,
    echo::{ECHO, Net, ask, refused, within},
};

/// Seconds since 1970 at which the first certificates of the tests end.
const UNTIL: i64 = 4_000_000_000;

/// An authority with its folder.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let params = || {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params
        };
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca.pem"), params().self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params(), key) }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Writes a server's certificate and its key, in place of those that are there.
    fn certify(&self, names: &[&str], until_s: i64) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(until_s).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = ["server.pem", "server.key"].map(|name| self.dir.path().join(name));
        fs::write(&files[0], certificate.pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        let [certificate, key] = files;
        (certificate, key)
    }

    fn server(&self, names: &[&str], demands: bool) -> ServerTls {
        let (certificate, key) = self.certify(names, UNTIL);
        ServerTls::new(Certificate::load(&certificate, &key).unwrap(), demands).unwrap()
    }

    fn client(&self) -> ClientTls {
        ClientTls::load(&self.ca(), false).unwrap()
    }
}

async fn start(tls: ServerTls) -> Net {
    Net::secured("127.0.0.1:0", 8 << 20, tls).await
}

fn peers(net: &Net, tls: Option<ClientTls>) -> std::sync::Arc<Peers> {
    let config = PeersConfig { tls, ..net.config(Identity::Daemon(net.key.clone())) };
    // By the network, also within the host.
    Peers::with_tuning(config, Tuning { shared_memory: false, ..Tuning::default() })
}

async fn echo(net: &Net, peers: &std::sync::Arc<Peers>, bytes: usize) -> Result<Buf, Status> {
    let bulk = vec![7_u8; bytes];
    let call = Call { bulk: vec![bulk.into()], ..within(10_000) };
    Ok(net.client(peers).execute(&ask(ECHO, 1, 0), call).await?.1)
}

#[tokio::test]
async fn calls_and_bulk_bytes_go_through_tls() {
    let authority = Authority::new();
    let net = start(authority.server(&["127.0.0.1"], true)).await;
    let secured = peers(&net, Some(authority.client()));
    for bytes in [0, 1, 5_000, 3 << 20] {
        let back = echo(&net, &secured, bytes).await.unwrap();
        assert!(back.len() == bytes && back.iter().all(|&byte| byte == 7), "{bytes}");
    }
    let token = net.key.issue(ff2_proto::pb::UserClaims { uid: 7, ..Default::default() });
    let config = PeersConfig { tls: Some(authority.client()), ..net.config(Identity::User(token)) };
    let user = Peers::with_tuning(config, Tuning { shared_memory: false, ..Tuning::default() });
    net.client(&user).execute(&ask(ECHO, 1, 0), within(5_000)).await.unwrap();
    net.stop().await;
}

#[tokio::test]
async fn a_server_that_demands_it_refuses_clear_connections_with_advice() {
    let authority = Authority::new();
    let net = start(authority.server(&["127.0.0.1"], true)).await;
    let detail = refused(echo(&net, &peers(&net, None), 1).await, Code::Unauthenticated);
    assert!(detail.contains("tls_ca_file"), "{detail}");
    net.stop().await;
    let net = start(authority.server(&["127.0.0.1"], false)).await;
    echo(&net, &peers(&net, None), 1).await.unwrap();
    echo(&net, &peers(&net, Some(authority.client())), 1).await.unwrap();
    net.stop().await;
}

#[tokio::test]
async fn a_server_proves_its_name_by_the_clusters_authority() {
    let authority = Authority::new();
    let net = start(authority.server(&["127.0.0.1"], true)).await;
    let stranger = Authority::new().client();
    let detail = refused(echo(&net, &peers(&net, Some(stranger)), 1).await, Code::Unreachable);
    assert!(detail.contains("TLS") && detail.contains("authority"), "{detail}");
    net.stop().await;
    let net = start(authority.server(&["10.9.9.9", "elsewhere"], true)).await;
    let client = peers(&net, Some(authority.client()));
    refused(echo(&net, &client, 1).await, Code::Unreachable);
    net.stop().await;
    // One that speaks no TLS.
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let client = peers(&net, Some(authority.client()));
    refused(echo(&net, &client, 1).await, Code::Unreachable);
    net.stop().await;
}

/// With a good certificate and key of the server's name, and all that both say.
#[tokio::test]
async fn who_is_in_the_middle_cannot_pass_the_handshake_on() {
    let authority = Authority::new();
    let tls = authority.server(&["127.0.0.1"], true);
    nobody_passes_on(tls.clone(), (tls, authority.client()), authority.client()).await;
}

/// `between`: what he has who stands between the server and its client.
async fn nobody_passes_on(server: ServerTls, between: (ServerTls, ClientTls), client: ClientTls) {
    let mut net = start(server).await;
    let behind = net.address.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    net.address = listener.local_addr().unwrap().to_string();
    let (inwards, outwards) = between;
    let relay = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok((mut client, _)) = inwards.accept(stream).await else { continue };
            let stream = TcpStream::connect(&behind).await.unwrap();
            let (mut server, _) = outwards.connect(&behind, stream).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
    });
    let client = peers(&net, Some(client));
    refused(echo(&net, &client, 1).await, Code::Unauthenticated);
    relay.abort();
    net.stop().await;
}

#[tokio::test]
async fn a_new_certificate_needs_no_restart() {
    let authority = Authority::new();
    let (certificate, key) = authority.certify(&["127.0.0.1"], UNTIL);
    let held = Certificate::load(&certificate, &key).unwrap();
    let net = start(ServerTls::new(held.clone(), true).unwrap()).await;
    assert_eq!(held.expires_s(), u64::try_from(UNTIL).ok());
    echo(&net, &peers(&net, Some(authority.client())), 1).await.unwrap();
    // Half of it is there: the former one stays.
    fs::write(&key, "x").unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    echo(&net, &peers(&net, Some(authority.client())), 1).await.unwrap();
    authority.certify(&["127.0.0.1"], UNTIL + 1_000);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let stream = TcpStream::connect(&net.address).await.unwrap();
    let (stream, _) = authority.client().connect(&net.address, stream).await.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(Shown::of(&shown).unwrap().expires_s, u64::try_from(UNTIL).unwrap() + 1_000);
    assert_eq!(held.expires_s(), u64::try_from(UNTIL + 1_000).ok());
    net.stop().await;
}

#[tokio::test]
async fn another_authority_is_trusted_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let (net, new_net) = (
        start(old.server(&["127.0.0.1"], true)).await,
        start(new.server(&["127.0.0.1"], true)).await,
    );
    let client = old.client();
    let connect = async |net: &Net| {
        let stream = TcpStream::connect(&net.address).await.unwrap();
        client.connect(&net.address, stream).await.is_ok()
    };
    assert!(connect(&net).await && !connect(&new_net).await);
    let [old_ca, new_ca] =
        [&old, &new].map(|authority| fs::read_to_string(authority.ca()).unwrap());
    for (text, trusted) in [
        (old_ca.clone() + &new_ca, (true, true)),
        ("x".into(), (true, true)),
        (new_ca, (false, true)),
    ] {
        fs::write(old.ca(), text).unwrap();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!((connect(&net).await, connect(&new_net).await), trusted);
    }
    net.stop().await;
    new_net.stop().await;
}

#[test]
fn a_certificate_says_until_when_and_for_whom() {
    let authority = Authority::new();
    let names = ["metad-a.example", "10.0.0.1", "fd00::1"];
    // Before and after 2050 the time is written in two ways.
    for until_s in [2_000_000_000, UNTIL] {
        let (certificate, _) = authority.certify(&names, until_s);
        let shown = read_certificate(&certificate).unwrap();
        assert_eq!(shown.names, names);
        assert_eq!(shown.expires_s, u64::try_from(until_s).unwrap());
    }
    assert!(read_certificate(&authority.dir.path().join("server.key")).is_err());
}

#[test]
fn damaged_certificates() {
    let authority = Authority::new();
    let (certificate, _) = authority.certify(&["a.example", "10.0.0.1"], UNTIL);
    let seed = certificates(&certificate).unwrap()[0].to_vec();
    target!(vec![seed], |bytes| {
        let _ = bounded(bytes, || Shown::of(bytes));
    });
}

#[test]
fn storage_nodes_are_left_out_unless_all_is_encrypted() {
    let authority = Authority::new();
    let node = |id: u32, role: pb::NodeRole| {
        let address = format!("10.0.0.{id}:7000");
        (ff2_proto::NodeId(id), pb::Node { id, role: role.into(), address, ..Default::default() })
    };
    let nodes = [node(1, pb::NodeRole::Metad), node(101, pb::NodeRole::Storaged)].into();
    let routing = Routing { nodes, ..Routing::default() };
    let some = authority.client();
    assert!(some.covers(&routing, "10.0.0.1:7000") && some.covers(&routing, "10.0.0.9:7000"));
    assert!(!some.covers(&routing, "10.0.0.101:7000"));
    let all = ClientTls::load(&authority.ca(), true).unwrap();
    assert!(all.covers(&routing, "10.0.0.101:7000"));
}
