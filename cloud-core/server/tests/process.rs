//! The program as its users meet it: started, asked, stopped.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Value, json};

struct Core {
    child: Child,
    ready: BTreeMap<String, String>,
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towline-core"));
    command.arg("--data-dir").arg(data_dir);
    for listener in ["mqtt", "kafka", "amqp", "sync", "admin"] {
        command.args([format!("--listen-{listener}"), "127.0.0.1:0".into()]);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Core {
    fn start(data_dir: &Path) -> Core {
        let mut child = command(data_dir).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let words = line
            .trim()
            .strip_prefix("ready ")
            .unwrap_or_else(|| panic!("not a ready line: {line:?}"));
        let ready = words
            .split(' ')
            .map(|word| word.split_once('=').unwrap())
            .map(|(k, v)| (k.into(), v.into()));
        Core {
            ready: ready.collect(),
            child,
        }
    }

    fn stop(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap()
    }

    fn ask(&self, request: &str, secret: Option<&str>, body: Option<Value>) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.ready["admin"]).unwrap();
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let secret = secret
            .map(|secret| format!("Authorization: Bearer {secret}\r\n"))
            .unwrap_or_default();
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{secret}\r\n{body}"
        )
        .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
        (status, reply.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind; one that stopped it finds it gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn secret(data_dir: &Path) -> String {
    let text = std::fs::read_to_string(data_dir.join("admin.credentials")).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix("secret = \""))
        .unwrap()
        .trim_end_matches('"')
        .to_owned()
}

fn refusal(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "no ready line");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn it_starts_answers_stops_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path());
    let names: Vec<&str> = core.ready.keys().map(String::as_str).collect();
    assert_eq!(names, ["admin", "amqp", "kafka", "mqtt", "sync"]);
    for listener in ["mqtt", "kafka", "amqp", "admin"] {
        TcpStream::connect(&core.ready[listener]).unwrap();
    }
    assert!(
        refusal(command(dir.path())).contains("in use by another"),
        "a second one on the same directory"
    );

    let secret = secret(dir.path());
    let create = json!({"name": "plant", "partitions": 3, "config": {"retention.ms": "60000"}});
    let (status, body) = core.ask("POST /v1/streams", Some(&secret), Some(create));
    assert_eq!(status, 201, "{body}");
    assert_eq!(core.stop().code(), Some(0));

    let core = Core::start(dir.path());
    let (status, body) = core.ask("GET /v1/streams", Some(&secret), None);
    let streams: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (
            status,
            &streams["streams"][0]["name"],
            &streams["streams"][0]["partitions"]
        ),
        (200, &json!("plant"), &json!(3))
    );
    let (_, body) = core.ask("GET /v1/partitions?stream=plant", Some(&secret), None);
    assert_eq!(body.matches("\"partition\":").count(), 3, "{body}");
    assert_eq!(
        core.ask("DELETE /v1/streams/plant", Some(&secret), None).0,
        204
    );
    assert_eq!(
        core.ask("DELETE /v1/streams/plant", Some(&secret), None).0,
        404
    );
    assert_eq!(core.stop().code(), Some(0));
}

#[test]
fn the_admin_listener_refuses_in_its_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path());
    let secret = secret(dir.path());
    let secret = Some(secret.as_str());
    let stream = |config: Value| Some(json!({"name": "s", "config": config}));
    for (request, secret, body, status, code) in [
        ("GET /v1/streams", None, None, 401, "unauthorized"),
        ("GET /v1/streams", Some("wrong"), None, 401, "unauthorized"),
        ("GET /v1/nothing", secret, None, 404, "not_found"),
        ("PUT /v1/streams", secret, None, 405, "method_not_allowed"),
        ("GET /v1/edges/nobody", secret, None, 404, "not_found"),
        ("GET /v1/edges?selector==x", secret, None, 400, "invalid"),
        (
            "GET /v1/partitions?stream=none",
            secret,
            None,
            404,
            "not_found",
        ),
        (
            "POST /v1/streams",
            secret,
            Some(json!({"name": "a/b"})),
            400,
            "invalid",
        ),
        (
            "POST /v1/streams",
            secret,
            Some(json!({"name": "s", "partitions": 0})),
            400,
            "invalid",
        ),
        (
            "POST /v1/streams",
            secret,
            stream(json!({"cleanup.policy": "shred"})),
            400,
            "invalid",
        ),
        (
            "POST /v1/streams",
            secret,
            stream(json!({"retention.ms": "soon"})),
            400,
            "invalid",
        ),
        (
            "POST /v1/streams",
            secret,
            Some(json!({"name": "s", "shards": 1})),
            422,
            "invalid",
        ),
        (
            "POST /v1/tokens",
            secret,
            Some(json!({"ttl_seconds": 0})),
            400,
            "invalid",
        ),
    ] {
        let (found, reply) = core.ask(request, secret, body);
        let reply: Value = serde_json::from_str(&reply)
            .unwrap_or_else(|error| panic!("{request}: {error}: {reply}"));
        assert_eq!(
            (found, &reply["code"]),
            (status, &json!(code)),
            "{request}: {reply}"
        );
        assert!(!reply["message"].as_str().unwrap().is_empty());
    }
    let (status, token) = core.ask(
        "POST /v1/tokens",
        secret,
        Some(json!({"labels": {"site": "a"}})),
    );
    assert_eq!(status, 201);
    assert!(token.contains("\"tl1."), "{token}");
    for (path, part) in [
        ("/healthz", "ok"),
        ("/readyz", "ok"),
        ("/metrics", "towline_wal_failed 0"),
    ] {
        let (status, body) = core.ask(&format!("GET {path}"), None, None);
        assert_eq!(status, 200);
        assert!(body.contains(part), "{path}: {body}");
    }
    assert_eq!(core.stop().code(), Some(0));
}

#[test]
fn it_says_why_it_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
    assert!(refusal(command(dir.path())).contains("notes.txt"));
    std::fs::write(dir.path().join("towline-core.toml"), "format = 99\n").unwrap();
    assert!(refusal(command(dir.path())).contains("newer"));

    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut busy = Command::new(env!("CARGO_BIN_EXE_towline-core"));
    busy.arg("--data-dir").arg(dir.path()).args([
        "--listen-kafka",
        "off",
        "--listen-amqp",
        "off",
        "--listen-sync",
        "off",
    ]);
    busy.args([
        "--listen-admin",
        "off",
        "--listen-mqtt",
        &taken.local_addr().unwrap().to_string(),
    ]);
    let error = refusal(busy);
    assert!(
        error.contains("cannot listen on") && error.contains("--listen-mqtt"),
        "{error}"
    );
}
