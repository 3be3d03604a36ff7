//! ApiVersions: what is served, in which versions. What is not here, clients do not use.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::Call;
use crate::error_code;
use crate::wire::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use crate::wire::{Api, Message, RequestHeader};

pub async fn handle(_call: Arc<Call>, _request: ApiVersionsRequest) -> ApiVersionsResponse {
    served()
}

/// The answer to a version that is not served: version 0 of it, with error 35 and the list all the same (KIP-511).
pub fn unknown_version(header: &RequestHeader) -> Vec<Bytes> {
    let mut writer = header.begin_response(Api::ApiVersions, 0);
    ApiVersionsResponse {
        error_code: error_code::UNSUPPORTED_VERSION,
        ..served()
    }
    .write(&mut writer, 0);
    writer.into_frame()
}

fn served() -> ApiVersionsResponse {
    let api_keys = Api::ALL.iter().map(|api| ApiVersion {
        api_key: api.key(),
        min_version: api.advertised_from(),
        max_version: *api.versions().end(),
    });
    ApiVersionsResponse {
        api_keys: api_keys.collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KIP-511: correlation id, error 35, then the list in the form of version 0, without tagged fields.
    #[test]
    fn an_unknown_version_is_answered_with_version_0_and_error_35() {
        let header = RequestHeader {
            key: 18,
            version: 99,
            correlation_id: 7,
            client_id: None,
        };
        let frame: Vec<u8> = unknown_version(&header).concat();
        assert_eq!(frame[..4], ((frame.len() - 4) as u32).to_be_bytes());
        assert_eq!(frame[4..10], [0, 0, 0, 7, 0, 35]);
        assert_eq!(frame.len(), 4 + 4 + 2 + 4 + 6 * Api::ALL.len());
    }
}
