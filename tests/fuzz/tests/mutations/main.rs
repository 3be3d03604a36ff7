//! Thousands of damaged valid inputs for every function of the crate, in every `cargo test`. The seed is printed; TOWLINE_SEED
//! replays it. `CORPUS=DIR cargo test -p fuzz` writes the valid inputs to DIR, a folder for each function: a start for `tests/fuzz/run`.

mod inputs;
mod random;
mod requests;

use inputs::TARGETS;
use random::{Random, damage};

/// Damaged inputs for each function.
const ROUNDS: u64 = 20_000;

fn seed() -> u64 {
    match std::env::var("TOWLINE_SEED") {
        Ok(text) => text.parse().expect("TOWLINE_SEED is a number"),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |time| time.as_nanos() as u64),
    }
}

#[test]
fn no_damage_does_worse_than_being_refused() {
    let seed = seed();
    println!("TOWLINE_SEED={seed}");
    for (name, run, valid) in TARGETS {
        let valid = valid();
        let random = &mut Random(seed);
        for input in &valid {
            run(input);
        }
        for round in 0..ROUNDS {
            let input = damage(&valid, random);
            let outcome = std::panic::catch_unwind(|| run(&input));
            assert!(
                outcome.is_ok(),
                "{name}, round {round}, TOWLINE_SEED={seed}: {input:02x?}"
            );
        }
    }
}

/// The valid inputs are valid: otherwise the test above would only test the first check of each decoder.
#[test]
fn the_valid_inputs_are_read() {
    for input in inputs::batches() {
        record::Batch::parse(input.into())
            .and_then(|batch| batch.check_records())
            .expect("a batch");
    }
    for input in inputs::kafka_bodies() {
        let (key, version) = (i16::from(input[0]), i16::from(input[1]));
        assert!(
            kafka::fuzzing::body(key, version, input[2..].to_vec().into()).is_some(),
            "key {key} version {version}"
        );
    }
    for input in inputs::amqp_streams() {
        assert!(amqp::fuzzing::stream(&input) > 0);
    }
    for input in inputs::entries() {
        assert!(kernel::fuzzing::entry(input.into()).is_some());
    }
    for input in inputs::checkpoints() {
        assert!(kernel::fuzzing::checkpoint(input.into()).is_some());
    }
    for input in inputs::segments() {
        assert!(kernel::fuzzing::segment(input.into()).is_some());
    }
}

/// What coverage-guided fuzzing has found worth keeping: `tests/fuzz/run`.
#[test]
fn the_kept_inputs_do_no_harm() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut count = 0;
    for (name, run, _) in TARGETS {
        // Not every target has been run for long.
        let Ok(inputs) = std::fs::read_dir(corpus.join(name)) else {
            continue;
        };
        for input in inputs {
            let path = input.expect("an entry of the corpus").path();
            let input = std::fs::read(&path).expect("an input of the corpus");
            let outcome = std::panic::catch_unwind(|| run(&input));
            assert!(outcome.is_ok(), "{}", path.display());
            count += 1;
        }
    }
    println!("{count} inputs");
}

#[test]
fn the_corpus_is_written_where_it_is_asked_for() {
    let Ok(folder) = std::env::var("CORPUS") else {
        return;
    };
    for (name, _, valid) in TARGETS {
        let folder = std::path::Path::new(&folder).join(name);
        std::fs::create_dir_all(&folder).expect("a folder for the corpus");
        for (number, input) in valid().into_iter().enumerate() {
            std::fs::write(folder.join(format!("valid-{number}")), input)
                .expect("an input of the corpus");
        }
    }
}
