//! From a request to the file that answers it.

use std::sync::Arc;

use bytes::Bytes;
use quota::Share;

use crate::broker::Call;
use crate::connection::Close;
use crate::wire::{Api, Message, Reader, Request, RequestHeader, WireError};
use crate::*;

/// What a produce request comes to: a frame, or nothing for acks=0.
pub type Answer = Result<Option<Vec<Bytes>>, Close>;

/// Reads a Produce request and takes its records into the log, in the order of calls; the future is its answer.
pub fn produce(
    call: Arc<Call>,
    header: RequestHeader,
    reader: Reader,
    share: &mut Share,
) -> Result<impl Future<Output = Answer> + Send + 'static + use<>, WireError> {
    let request = read(&header, reader)?;
    let started = handle_produce::start(call, request, share);
    Ok(async move {
        let response = started.await.map_err(Close::UnacknowledgedFailure)?;
        Ok(response.map(|response| frame::<wire::produce::ProduceRequest>(&header, &response)))
    })
}

/// Answers every other request.
pub async fn answer(
    call: Arc<Call>,
    header: RequestHeader,
    api: Result<Api, WireError>,
    reader: Reader,
) -> Result<Vec<Bytes>, WireError> {
    let api = match api {
        Ok(api) => api,
        // A client newer than us asks what we speak: it gets the oldest form of the answer and asks again (KIP-511).
        Err(WireError::UnknownVersion { key, .. }) if key == Api::ApiVersions.key() => {
            return Ok(handle_api_versions::unknown_version(&header));
        }
        Err(error) => return Err(error),
    };
    let (h, r) = (&header, reader);
    match api {
        // Answered by `produce` and by the connection itself.
        Api::Produce | Api::SaslHandshake | Api::SaslAuthenticate => {
            Err(WireError::UnknownApi(header.key))
        }
        Api::Fetch => reply(call, h, r, handle_fetch::handle).await,
        Api::ListOffsets => reply(call, h, r, handle_list_offsets::handle).await,
        Api::Metadata => reply(call, h, r, handle_metadata::handle).await,
        Api::OffsetCommit => reply(call, h, r, handle_offset_commit::handle).await,
        Api::OffsetFetch => reply(call, h, r, handle_offset_fetch::handle).await,
        Api::FindCoordinator => reply(call, h, r, handle_find_coordinator::handle).await,
        Api::JoinGroup => reply(call, h, r, handle_join_group::handle).await,
        Api::Heartbeat => reply(call, h, r, handle_heartbeat::handle).await,
        Api::LeaveGroup => reply(call, h, r, handle_leave_group::handle).await,
        Api::SyncGroup => reply(call, h, r, handle_sync_group::handle).await,
        Api::DescribeGroups => reply(call, h, r, handle_describe_groups::handle).await,
        Api::ListGroups => reply(call, h, r, handle_list_groups::handle).await,
        Api::ApiVersions => reply(call, h, r, handle_api_versions::handle).await,
        Api::CreateTopics => reply(call, h, r, handle_create_topics::handle).await,
        Api::DeleteTopics => reply(call, h, r, handle_delete_topics::handle).await,
        Api::DeleteRecords => reply(call, h, r, handle_delete_records::handle).await,
        Api::InitProducerId => reply(call, h, r, handle_init_producer_id::handle).await,
        Api::OffsetForLeaderEpoch => {
            reply(call, h, r, handle_offset_for_leader_epoch::handle).await
        }
        Api::DescribeConfigs => reply(call, h, r, handle_describe_configs::handle).await,
        Api::AlterConfigs => reply(call, h, r, handle_alter_configs::handle).await,
        Api::CreatePartitions => reply(call, h, r, handle_create_partitions::handle).await,
        Api::DeleteGroups => reply(call, h, r, handle_delete_groups::handle).await,
        Api::IncrementalAlterConfigs => {
            reply(call, h, r, handle_incremental_alter_configs::handle).await
        }
        Api::OffsetDelete => reply(call, h, r, handle_offset_delete::handle).await,
        Api::DescribeCluster => reply(call, h, r, handle_describe_cluster::handle).await,
    }
}

async fn reply<R, F, Fut>(
    call: Arc<Call>,
    header: &RequestHeader,
    reader: Reader,
    handle: F,
) -> Result<Vec<Bytes>, WireError>
where
    R: Request,
    F: FnOnce(Arc<Call>, R) -> Fut,
    Fut: Future<Output = R::Response>,
{
    let request = read(header, reader)?;
    let response = handle(call, request).await;
    Ok(frame::<R>(header, &response))
}

pub fn read<R: Request>(header: &RequestHeader, mut reader: Reader) -> Result<R, WireError> {
    // Bytes after the message are passed over, as the original broker does: librdkafka leaves some behind its Metadata.
    R::read(&mut reader, header.version)
}

pub fn frame<R: Request>(header: &RequestHeader, response: &R::Response) -> Vec<Bytes> {
    let mut writer = header.begin_response(R::API, header.version);
    response.write(&mut writer, header.version);
    writer.into_frame()
}
