//! From the URL and the environment to a client.

use std::sync::Arc;

use kernel::ports::ColdStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use crate::error::OpenError;
use crate::limits;
use crate::place::Place;
use crate::remote::{RemoteStore, Shared};
use crate::retry::Patience;

pub(crate) fn open(place: Place, patience: Patience) -> Result<Arc<dyn ColdStore>, OpenError> {
    let location = place.describe();
    let wrong = |error: object_store::Error| OpenError::Settings {
        location: location.clone(),
        reason: error.to_string(),
    };
    match &place {
        Place::Directory(_) | Place::Memory => {
            Ok(store(InMemory::new(), "", &location, true, patience))
        }
        Place::S3 {
            bucket,
            prefix,
            endpoint,
            region,
            virtual_hosted,
        } => {
            use_ring();
            let mut builder = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_conditional_put(S3ConditionalPut::ETagMatch)
                .with_retry(no_retry())
                .with_client_options(client(endpoint));
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
            }
            if let Some(region) = region {
                builder = builder.with_region(region);
            }
            if let Some(virtual_hosted) = virtual_hosted {
                builder = builder.with_virtual_hosted_style_request(*virtual_hosted);
            }
            let from_environment = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
            no_hidden_http(endpoint, from_environment, &location)?;
            let client = builder.build().map_err(wrong)?;
            Ok(store(client, prefix, &location, false, patience))
        }
        Place::Google {
            bucket,
            prefix,
            endpoint,
        } => {
            use_ring();
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_retry(no_retry())
                .with_client_options(client(endpoint));
            if let Some(endpoint) = endpoint {
                builder = builder.with_base_url(endpoint.as_str().trim_end_matches('/'));
            }
            let from_environment = builder.get_config_value(&GoogleConfigKey::BaseUrl);
            no_hidden_http(endpoint, from_environment, &location)?;
            let client = builder.build().map_err(wrong)?;
            Ok(store(client, prefix, &location, false, patience))
        }
        Place::Azure {
            container,
            prefix,
            account,
            endpoint,
        } => {
            use_ring();
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_container_name(container)
                .with_retry(no_retry())
                .with_client_options(client(endpoint));
            if let Some(account) = account {
                builder = builder.with_account(account);
            }
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/').to_owned());
            }
            let from_environment = builder.get_config_value(&AzureConfigKey::Endpoint);
            no_hidden_http(endpoint, from_environment, &location)?;
            let client = builder.build().map_err(wrong)?;
            Ok(store(client, prefix, &location, false, patience))
        }
    }
}

fn store<S: ObjectStore + MultipartStore>(
    store: S,
    prefix: &str,
    location: &str,
    local: bool,
    patience: Patience,
) -> Arc<dyn ColdStore> {
    let slash = if prefix.is_empty() { "" } else { "/" };
    Arc::new(RemoteStore {
        shared: Arc::new(Shared {
            store,
            prefix: format!("{prefix}{slash}"),
            location: location.to_owned(),
            local,
            patience,
        }),
    })
}

/// TLS is rustls with ring; the process has one provider, and whoever came first chose the same.
fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Plain HTTP only where the URL itself says so. Attempts are bounded by [`Patience`], so the client has no timeout of its own.
fn client(endpoint: &Option<Url>) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(
            endpoint
                .as_ref()
                .is_some_and(|endpoint| endpoint.scheme() == "http"),
        )
        .with_timeout_disabled()
        .with_connect_timeout(limits::CONNECT_TIMEOUT)
        .with_pool_max_idle_per_host(limits::IDLE_CONNECTIONS)
}

/// Retrying is [`Patience::persist`]'s alone.
fn no_retry() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

fn no_hidden_http(
    endpoint: &Option<Url>,
    from_environment: Option<String>,
    location: &str,
) -> Result<(), OpenError> {
    match from_environment {
        Some(address) if endpoint.is_none() && address.starts_with("http://") => {
            Err(OpenError::Settings {
                location: location.to_owned(),
                reason: "the environment names an endpoint without TLS. If that is meant, say so in cold-url: ?endpoint=http://host:port"
                    .to_owned(),
            })
        }
        _ => Ok(()),
    }
}
