//! The certificates of the clients' listeners.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use transport::{Clients, NamedCertificate, Tls, TlsFiles};

use crate::config::{ClientAuth, CoreSettings};

/// With the signal on which its files are read again, waited for from here on. `None` where no listener speaks TLS. Inside a tokio runtime.
pub fn open(settings: &CoreSettings) -> Result<Option<(Arc<Tls>, Signal)>> {
    let listeners = [
        ("listen-mqtt-tls", &settings.listen_mqtt_tls),
        ("listen-mqtt-wss", &settings.listen_mqtt_wss),
        ("listen-mqtt-quic", &settings.listen_mqtt_quic),
        ("listen-kafka-tls", &settings.listen_kafka_tls),
        ("listen-amqps", &settings.listen_amqps),
    ];
    let on = listeners
        .iter()
        .find(|(_, listen)| listen.address().is_some());
    let Some((key, _)) = on else {
        let set = settings.tls_certificate.is_some()
            || settings.tls_key.is_some()
            || settings.tls_client_ca.is_some()
            || settings.tls_client_auth.is_some()
            || !settings.certificate.is_empty();
        if set {
            bail!(
                "tls-certificate and the other TLS keys are for listen-mqtt-tls, listen-mqtt-wss, listen-mqtt-quic, listen-kafka-tls and listen-amqps, which are all off"
            );
        }
        return Ok(None);
    };
    let (Some(certificate), Some(private)) = (&settings.tls_certificate, &settings.tls_key) else {
        bail!("--{key} needs --tls-certificate and --tls-key");
    };
    let names = settings.certificate.iter().map(|section| NamedCertificate {
        name: section.settings.name.clone(),
        certificate: section.settings.certificate.clone(),
        key: section.settings.key.clone(),
    });
    let files = TlsFiles {
        certificate: certificate.clone(),
        key: private.clone(),
        names: names.collect(),
        clients: clients(settings)?,
    };
    let tls = Tls::open(files).context("the TLS listeners cannot start")?;
    Ok(Some((tls, signal(SignalKind::hangup())?)))
}

fn clients(settings: &CoreSettings) -> Result<Clients> {
    let auth = settings.tls_client_auth;
    Ok(match (&settings.tls_client_ca, auth) {
        (None, None | Some(ClientAuth::Off)) => Clients::Unasked,
        (None, Some(ClientAuth::Optional | ClientAuth::Required)) => {
            bail!(
                "--tls-client-auth needs --tls-client-ca: without authorities no client's certificate could be verified"
            )
        }
        (Some(_), Some(ClientAuth::Off)) => {
            bail!("--tls-client-ca is of no use with --tls-client-auth=off: leave one out")
        }
        (Some(authorities), Some(ClientAuth::Optional)) => Clients::Optional(authorities.clone()),
        (Some(authorities), None | Some(ClientAuth::Required)) => {
            Clients::Required(authorities.clone())
        }
    })
}
