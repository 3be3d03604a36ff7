//! Random tests print their seed; `TOWLINE_SEED` replays one.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A generator, seeded from `TOWLINE_SEED` or at random. Prints the seed, which the test harness shows on failure.
#[must_use]
pub fn rng() -> StdRng {
    let seed = match std::env::var("TOWLINE_SEED") {
        Ok(text) => text.parse().expect("TOWLINE_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("TOWLINE_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
