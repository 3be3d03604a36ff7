//! Which layer wins, and what is said about mistakes.

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use clap::Parser;
use settings::{Flags, HostPort, Listen, Loaded, Origin, SettingsError, Size};

settings::settings! {
    struct Example {
        /// Directory
        data_dir: std::path::PathBuf;
        /// Devices
        listen_mqtt: Listen = "1883";
        core: Option<HostPort>;
        retention: Duration = "7d";
        segment_size: Size = "64MiB";
        verbose: bool = "false";
        connections: u32 = "100";
    }
}

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    flags: Flags<Example>,
}

/// `file`: the text of the configuration file, if any.
fn load(
    file: Option<&str>,
    env: &[(&str, &str)],
    flags: &[&str],
) -> Result<Loaded<Example>, SettingsError> {
    let mut config = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let mut args = vec![OsString::from("example")];
    if let Some(text) = file {
        config.write_all(text.as_bytes()).unwrap();
        args.extend(["--config".into(), config.path().into()]);
    }
    args.extend(flags.iter().map(OsString::from));
    let environment = |name: &str| {
        env.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| OsString::from(value))
    };
    Args::try_parse_from(args)
        .unwrap()
        .flags
        .load_with(environment)
}

fn message(result: Result<Loaded<Example>, SettingsError>) -> String {
    let text = result.unwrap_err().to_string();
    // The temporary file's name.
    match text.find(".toml") {
        Some(at) => {
            let start = text[..at].rfind([' ']).map_or(0, |space| space + 1);
            format!("{}FILE{}", &text[..start], &text[at + 5..])
        }
        None => text,
    }
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let file = "data-dir = '/f'\nlisten-mqtt = 1\nretention = '1h'\nsegment-size = 4096\nconnections = 1_000\n";
    let env = [
        ("TOWLINE_LISTEN_MQTT", "2"),
        ("TOWLINE_RETENTION", "2h"),
        ("TOWLINE_SEGMENT_SIZE", ""),
    ];
    let loaded = load(
        Some(file),
        &env,
        &["--listen-mqtt", "localhost:3", "--verbose"],
    )
    .unwrap();
    let Example {
        data_dir,
        listen_mqtt,
        core,
        retention,
        segment_size,
        verbose,
        connections,
    } = &loaded.settings;
    assert_eq!(data_dir.to_str(), Some("/f"));
    assert_eq!(listen_mqtt.to_string(), "localhost:3");
    assert_eq!(*core, None);
    assert_eq!(*retention, Duration::from_secs(7200));
    assert_eq!(segment_size.bytes(), 4096);
    assert!(verbose);
    assert_eq!(*connections, 1000);

    assert_eq!(
        *loaded.origin("listen-mqtt"),
        Origin::Flag("listen-mqtt".into())
    );
    assert_eq!(
        *loaded.origin("retention"),
        Origin::Environment("TOWLINE_RETENTION".into())
    );
    assert!(matches!(
        loaded.origin("segment-size"),
        Origin::File { line: 4, .. }
    ));
    assert_eq!(*loaded.origin("core"), Origin::Unset);
    assert_eq!(
        *load(None, &[], &["--data-dir=x"])
            .unwrap()
            .origin("retention"),
        Origin::Default
    );
}

#[test]
fn the_environment_can_name_the_file() {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(b"data-dir = '/from-file'").unwrap();
    let path = config.path().to_str().unwrap().to_owned();
    let loaded = load(None, &[("TOWLINE_CONFIG", &path)], &[]).unwrap();
    assert_eq!(loaded.settings.data_dir.to_str(), Some("/from-file"));
}

#[test]
fn mistakes_are_told_with_place_and_remedy() {
    for (file, env, flags, expected) in [
        (
            Some("data-dir = '/x'\n\nlisten_mqtt = 1"),
            &[][..],
            &[][..],
            "FILE, line 3: unknown key `listen_mqtt`; did you mean `listen-mqtt`?",
        ),
        (Some("zzz = 1"), &[], &[], "FILE, line 1: unknown key `zzz`"),
        (
            Some("data-dir = ['a']"),
            &[],
            &[],
            "FILE, line 1: `data-dir` must be a text, a number or true/false, not array",
        ),
        (
            Some("[mqtt]\nlisten = 1"),
            &[],
            &[],
            "FILE, line 1: unknown key `mqtt`",
        ),
        (
            Some("data-dir = 'x'\nretention = '5 parsecs'"),
            &[],
            &[],
            "`retention` = \"5 parsecs\", set by FILE, line 2: expected a duration like 500ms, 30s, 5m, 1h, 7d or 1h30m",
        ),
        (
            None,
            &[("TOWLINE_DATA_DIR", "/x"), ("TOWLINE_CONNECTIONS", "-1")],
            &[],
            "`connections` = \"-1\", set by the environment variable TOWLINE_CONNECTIONS: expected a whole number from 0 to 4294967295",
        ),
        (
            None,
            &[],
            &["--data-dir=x", "--core=nowhere"],
            "`core` = \"nowhere\", set by the flag --core: expected HOST:PORT (an IPv6 address in brackets)",
        ),
        (
            None,
            &[],
            &[],
            "`data-dir` is required: give --data-dir, set TOWLINE_DATA_DIR, or write `data-dir = ...` into the configuration file",
        ),
    ] {
        assert_eq!(message(load(file, env, flags)), expected);
    }
    assert!(message(load(Some("a = 1\nb ="), &[], &[])).starts_with("FILE, line 2: "));
    let missing = message(load(None, &[("TOWLINE_CONFIG", "/nowhere/x.toml")], &[]));
    assert!(
        missing.starts_with("cannot read the configuration file"),
        "{missing}"
    );
}

#[test]
fn help_shows_each_name() {
    let help = <Args as clap::CommandFactory>::command()
        .render_long_help()
        .to_string();
    for text in [
        "--listen-mqtt <MQTT>",
        "TOWLINE_LISTEN_MQTT",
        "[default: 1883]",
        "--config <FILE>",
        "Devices",
    ] {
        assert!(help.contains(text), "{text} is not in:\n{help}");
    }
}
