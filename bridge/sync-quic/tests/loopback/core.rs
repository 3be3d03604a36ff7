//! A core as the tests run it: a listener with an authority of its own, and the answers spelled out by the test.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sync_quic::{
    Accepted, BatchFlags, BatchFrame, CORE_NAME, ConnectError, CoreAddress, CoreIdentity, Dialer,
    DownAcks, EdgeConnection, EnrolError, EnrolGrant, EnrolRefusal, Handshakes, Hello, Identity,
    Lanes, Listener, Timing, TlsListen, Token, Welcome, WelcomeEdge, Window, system_now,
};

pub struct Core {
    pub listener: Listener,
    pub address: String,
    pub token: Token,
    pub ca: Vec<u8>,
    pub issuer: Issuer<'static, KeyPair>,
    ca_key: Vec<u8>,
}

pub const TIMING: Timing = Timing {
    keep_alive: Duration::from_millis(200),
    idle_timeout: Duration::from_secs(15),
    handshake: Duration::from_secs(15),
};

/// A core waits as long as the most patient edge.
pub const CORE_TIMING: Timing = Timing {
    idle_timeout: Duration::from_secs(60),
    ..TIMING
};

pub fn core() -> Core {
    core_on("127.0.0.1:0".parse().unwrap())
}

pub fn core_on(address: SocketAddr) -> Core {
    core_with(address, Handshakes::default())
}

pub fn core_with(address: SocketAddr, handshakes: Handshakes) -> Core {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.not_before = date_time_ymd(1970, 1, 1);
    let ca = ca.self_signed(&ca_key).unwrap().der().to_vec();
    let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(ca.clone()), ca_key).unwrap();
    start(address, ca, issuer, handshakes)
}

fn start(
    address: SocketAddr,
    ca: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    handshakes: Handshakes,
) -> Core {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![CORE_NAME.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let identity = CoreIdentity {
        chain: vec![certificate.der().to_vec(), ca.clone()],
        key: key.serialize_der(),
        ca: ca.clone(),
        reset_secret: [3; 32],
    };
    let ca_key = issuer.key().serialize_der();
    let listener =
        Listener::bind(address, TlsListen::Same, identity, CORE_TIMING, handshakes).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    Core {
        listener,
        address,
        token: Token::new([1; 9], [2; 24], &ca),
        ca,
        issuer,
        ca_key,
    }
}

impl Core {
    /// Another process of the same core, at another address.
    pub fn again(&self) -> Core {
        let key = KeyPair::try_from(&self.ca_key[..]).unwrap();
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(self.ca.clone()), key).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        start(address, self.ca.clone(), issuer, Handshakes::default())
    }

    pub async fn accept(&self) -> Result<Accepted, String> {
        self.listener
            .accept()
            .await
            .unwrap()
            .establish()
            .await
            .map_err(|error| error.to_string())
    }

    /// Grants one enrolment, as a core does whose token it is.
    pub async fn grant(&self) {
        let Ok(Accepted::Enrol(handshake)) = self.accept().await else {
            panic!("not an enrolment")
        };
        if handshake.request.secret != self.token.secret {
            return handshake
                .refuse(EnrolRefusal::InvalidToken, "make a new one")
                .await;
        }
        let request = handshake.request.request.clone();
        let request = CertificateSigningRequestParams::from_der(
            &CertificateSigningRequestDer::from(&request[..]),
        )
        .unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, &handshake.request.name);
        let certificate = params.signed_by(&request.public_key, &self.issuer).unwrap();
        let name = handshake.request.name.clone();
        let grant = EnrolGrant {
            name,
            certificate: certificate.der().to_vec().into(),
            ca: self.ca.clone().into(),
        };
        handshake.grant(grant).await;
    }

    pub async fn enrol(&self, name: &str) -> Result<Identity, EnrolError> {
        self.enrol_at(&self.address, name).await
    }

    pub async fn enrol_at(&self, address: &str, name: &str) -> Result<Identity, EnrolError> {
        tokio::join!(enrol(address, &self.token, name), self.grant()).0
    }

    pub async fn let_in(&self) -> WelcomeEdge {
        let Ok(Accepted::Edge(handshake)) = self.accept().await else {
            panic!("not an edge")
        };
        handshake.welcome(welcome()).await.unwrap()
    }
}

pub fn welcome() -> Welcome {
    Welcome {
        version: sync::VERSION,
        time_ms: 42,
        max_batch: 1 << 20,
        ..Welcome::default()
    }
}

pub fn cores(list: &str) -> Vec<CoreAddress> {
    CoreAddress::parse_list(list).unwrap()
}

pub fn dialer(list: &str, identity: &Identity, timing: Timing) -> Dialer {
    Dialer::new(cores(list), identity, system_now(), timing).unwrap()
}

pub async fn connect(
    list: &str,
    identity: &Identity,
    window: Window,
    timing: Timing,
) -> Result<(sync_quic::Connection, sync_quic::Events), ConnectError> {
    let hello = hello(&identity.edge);
    dialer(list, identity, timing).connect(hello, window).await
}

pub async fn enrol(list: &str, token: &Token, name: &str) -> Result<Identity, EnrolError> {
    sync_quic::enrol(&cores(list), token, name, system_now(), TIMING).await
}

pub fn hello(edge: &str) -> Hello {
    Hello {
        version: sync::VERSION,
        edge: edge.to_owned(),
        producer_id: 1 << 62,
        software: "test".to_owned(),
        ..Hello::default()
    }
}

pub fn batch(frame: u64, size: usize) -> BatchFrame {
    BatchFrame {
        lane: 0,
        frame,
        stream: "s".to_owned(),
        flags: BatchFlags::empty(),
        link: None,
        batch: Bytes::from(vec![frame as u8; size]),
    }
}

pub async fn connected(
    core: &Core,
    window: Window,
) -> (
    sync_quic::Connection,
    sync_quic::Events,
    EdgeConnection,
    Lanes,
    DownAcks,
) {
    connected_over("", core, window).await
}

/// `scheme`: `quic://`, `tls://`, or nothing.
pub async fn connected_over(
    scheme: &str,
    core: &Core,
    window: Window,
) -> (
    sync_quic::Connection,
    sync_quic::Events,
    EdgeConnection,
    Lanes,
    DownAcks,
) {
    let address = format!("{scheme}{}", core.address);
    let identity = core.enrol_at(&address, "e1").await.unwrap();
    let (edge, welcome) = tokio::join!(connect(&address, &identity, window, TIMING), core.let_in());
    let (sending, events) = edge.unwrap();
    (
        sending,
        events,
        welcome.connection,
        welcome.lanes,
        welcome.down_acks,
    )
}
