//! An edge without an identity gets one for a token.

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::CertificateDer;
use sync::{EnrolGrant, EnrolRequest, Frame, FrameReader, limits};

use crate::dial::{DialError, candidates, race};
use crate::outcome::EnrolError;
use crate::signs::Signs;
use crate::tls::enrol_config;
use crate::token::fingerprint;
use crate::wire::{ReadFrameError, read_frame};
use crate::{CoreAddress, Identity, Now, Timing, Token};

/// Trades a token for an identity. Takes at most `timing.handshake`.
///
/// The private key is made here and never leaves. A name that is enrolled already is taken over: the certificate that it had before is
/// no longer accepted.
pub async fn enrol(
    cores: &[CoreAddress],
    token: &Token,
    name: &str,
    now: Now,
    timing: Timing,
) -> Result<Identity, EnrolError> {
    let core = shown(cores);
    let exchange = exchange(cores, &core, token, name, now, &timing);
    match tokio::time::timeout(timing.handshake, exchange).await {
        Ok(result) => result,
        Err(_) => Err(EnrolError::Unreachable {
            core,
            reason: format!("no answer within {:?}", timing.handshake),
        }),
    }
}

/// As they were given.
pub(crate) fn shown(cores: &[CoreAddress]) -> String {
    let texts: Vec<String> = cores.iter().map(CoreAddress::to_string).collect();
    texts.join(", ")
}

async fn exchange(
    cores: &[CoreAddress],
    core: &str,
    token: &Token,
    name: &str,
    now: Now,
    timing: &Timing,
) -> Result<Identity, EnrolError> {
    let broken = |error: rcgen::Error| {
        EnrolError::Protocol(format!("cannot make a certificate request: {error}"))
    };
    let key = KeyPair::generate().map_err(broken)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params.serialize_request(&key).map_err(broken)?;

    let config = enrol_config(token.ca_fingerprint, now)
        .map_err(|error| EnrolError::Protocol(error.to_string()))?;
    // The handshake verifies the core's chain against the token's fingerprint: the secret goes out only after it.
    let mut dialled = race(
        &candidates(cores),
        None,
        &config,
        timing,
        None,
        &Signs::default(),
    )
    .await
    .map_err(|error| match error {
        DialError::Resolve(reason) => EnrolError::Resolve {
            core: core.to_owned(),
            reason,
        },
        DialError::Unreachable(reason) | DialError::Busy(reason) => EnrolError::Unreachable {
            core: core.to_owned(),
            reason,
        },
        DialError::Untrusted(reason) => EnrolError::WrongCore {
            core: core.to_owned(),
            reason,
        },
    })?;
    let unreachable = |reason: String| EnrolError::Unreachable {
        core: core.to_owned(),
        reason,
    };
    let request = Frame::EnrolRequest(EnrolRequest {
        version: sync::VERSION,
        token_id: token.id.clone(),
        secret: token.secret.clone(),
        name: name.to_owned(),
        request: request.der().to_vec().into(),
    });
    let (_send, mut recv) = dialled
        .say(&request)
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    let mut reader = FrameReader::new(limits::MAX_ENROL_FRAME);
    let answer = match read_frame(&mut recv, &mut reader).await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Err(EnrolError::Protocol("no answer to the request".to_owned())),
        Err(ReadFrameError::Connection(error)) => return Err(unreachable(error.to_string())),
        Err(error) => return Err(EnrolError::Protocol(error.to_string())),
    };
    match answer {
        Frame::EnrolGrant(grant) => identity(grant, &key, token),
        Frame::EnrolRefused { code, reason } => Err(EnrolError::Refused { code, reason }),
        _ => Err(EnrolError::Protocol("an answer of another kind".to_owned())),
    }
}

fn identity(grant: EnrolGrant, key: &KeyPair, token: &Token) -> Result<Identity, EnrolError> {
    if fingerprint(&grant.ca) != token.ca_fingerprint {
        return Err(EnrolError::Protocol(
            "the authority in the answer is not the one of the token".to_owned(),
        ));
    }
    let identity = Identity {
        edge: grant.name,
        certificate_pem: to_pem(&grant.certificate),
        key_pem: key.serialize_pem(),
        ca_pem: to_pem(&grant.ca),
    };
    // What cannot be used is better found here than at every later start.
    crate::tls::edge_config(&identity, crate::tls::system_now())
        .map_err(|error| EnrolError::Protocol(error.to_string()))?;
    Ok(identity)
}

fn to_pem(der: &[u8]) -> String {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(CertificateDer::from(der));
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
