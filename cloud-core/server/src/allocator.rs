//! What the C library's allocator gives back to the system.

/// So much free memory at the end of an arena stays with the process, bytes. By default it is 128 KiB: less than the messages that come and go within a
/// millisecond, so that their pages go back to the system and are asked for again all the time. That was a tenth of the processor's time
/// with messages of 16 KiB.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 2 * 1024 * 1024;
/// Larger allocations have pages of their own, which go back at once, bytes. To be said, since setting one of the two ends the allocator's own adjustment
/// of both.
#[cfg(target_env = "gnu")]
const APART: i32 = 4 * 1024 * 1024;

/// To be called before there are other threads. Other C libraries than GNU's stay as they are.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn keep_some_free_memory() {
    for (parameter, bytes) in [
        (libc::M_TRIM_THRESHOLD, KEPT),
        (libc::M_MMAP_THRESHOLD, APART),
    ] {
        // SAFETY: the call takes numbers only, and touches nothing but the allocator's own settings, under the allocator's lock.
        let is_taken = unsafe { libc::mallopt(parameter, bytes) };
        // Without it the process is slower, and nothing else.
        debug_assert_eq!(is_taken, 1, "parameter {parameter}");
    }
}

#[cfg(not(target_env = "gnu"))]
pub fn keep_some_free_memory() {}
