use std::sync::Arc;

use admin_api::{
    CacheStorage, CheckpointStorage, ColdStorage, Sealed, SealingStorage, Storage, TailStorage,
    WalStorage,
};
use axum::Json;
use axum::extract::State;
use kernel::{KernelConfig, KernelStats};

use super::Admin;
use admin_http::Refusal;

pub async fn get(State(admin): State<Arc<Admin>>) -> Json<Storage> {
    let kernel = &admin.ctx.kernel;
    let mut storage = storage(kernel.stats(), kernel.config());
    storage.cold.location = kernel.cold_location();
    storage.verification = admin.verifications.get();
    Json(storage)
}

/// Answers when everything that was there is sealed; a caller that leaves does not end it.
pub async fn seal(State(admin): State<Arc<Admin>>) -> Result<Json<Sealed>, Refusal> {
    let kernel = admin.ctx.kernel.clone();
    let before = kernel.stats().sealed_bytes;
    let sealing = tokio::spawn(async move { kernel.seal_all().await });
    match sealing.await {
        Ok(Ok(())) => {
            let stats = admin.ctx.kernel.stats();
            Ok(Json(Sealed {
                written_bytes: stats.sealed_bytes.saturating_sub(before),
                unsealed_bytes: stats.unsealed_bytes,
            }))
        }
        Ok(Err(error)) => Err(Refusal::unavailable(
            error.to_string(),
            "nothing is lost: what is not sealed is in the write-ahead log, and it is tried again",
        )),
        Err(_) => Err(Refusal::unavailable("sealing ended early", "")),
    }
}

fn storage(stats: KernelStats, config: &KernelConfig) -> Storage {
    let written_bytes = stats.wal_bytes_written
        + stats.sealed_bytes
        + stats.rewritten_bytes
        + stats.checkpoint_bytes_written;
    let ms =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Storage {
        tail: TailStorage {
            bytes: stats.tail_bytes,
            limit_bytes: config.tail_bytes as u64,
            hits: stats.tail_hits,
            misses: stats.tail_misses,
        },
        wal: WalStorage {
            bytes: stats.wal_bytes_on_disk,
            limit_bytes: config.wal_bytes,
            files: stats.wal_files,
            written_bytes: stats.wal_bytes_written,
            syncs: stats.fsyncs,
            queued_entries: stats.queued_entries,
            queued_bytes: stats.queued_bytes,
            device_silent_ms: ms(stats.device_silent),
            device_silent_limit_ms: config.wal_stall_ms,
            held_back: stats.held_back,
            failed: stats.failed,
        },
        sealing: SealingStorage {
            unsealed_bytes: stats.unsealed_bytes,
            unsealed_age_ms: ms(stats.unsealed_age),
            due_bytes: config.seal_at(),
            due_age_ms: config.seal_age_ms.unsigned_abs(),
            written_bytes: stats.sealed_bytes,
            upload_lag_bytes: stats.upload_lag_bytes,
            upload_sent_bytes: stats.upload_sent_bytes,
            upload_lag_ms: ms(stats.upload_lag),
            failures: stats.seal_failures,
            last_error: stats.seal_error,
        },
        cold: ColdStorage {
            location: String::new(),
            log: stats.cold_log.map(|log| log.to_string()),
            epoch: stats.cold_epoch,
            fenced: stats.fenced,
            segments: stats.segments,
            bytes: stats.cold_bytes,
            live_bytes: stats.cold_live_bytes,
            rewritten_bytes: stats.rewritten_bytes,
        },
        cache: CacheStorage {
            memory_bytes: stats.cold_reads.memory_bytes,
            memory_limit_bytes: config.cold_cache_memory_bytes as u64,
            disk_bytes: stats.cold_reads.disk_bytes,
            disk_limit_bytes: config.cold_cache_disk_bytes,
            memory_hits: stats.cold_reads.memory_hits,
            disk_hits: stats.cold_reads.disk_hits,
            joined: stats.cold_reads.joined,
            misses: stats.cold_reads.misses,
            requests: stats.cold_reads.requests,
            read_bytes: stats.cold_reads.bytes,
            damaged: stats.cold_reads.damaged,
        },
        checkpoints: CheckpointStorage {
            written: stats.checkpoints,
            written_bytes: stats.checkpoint_bytes_written,
        },
        appended_bytes: stats.bytes_appended,
        written_bytes,
        write_amplification: (stats.bytes_appended > 0)
            .then(|| written_bytes as f64 / stats.bytes_appended as f64),
        verification: None,
    }
}
