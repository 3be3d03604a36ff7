//! The live status below the endpoints of `towline up`: a few lines that refresh in place.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::client;
use crate::screen::Screen;

/// How often the lines refresh on a terminal.
const EVERY: Duration = Duration::from_millis(500);
/// How often a line is written where nothing can refresh in place (a file, a log).
const EVERY_WITHOUT_TERMINAL: Duration = Duration::from_secs(30);

/// The figures of one moment, from the edge's `/metrics`.
#[derive(Clone, Copy, Default)]
struct Figures {
    received: f64,
    waiting: f64,
    delivered: f64,
    connected: bool,
}

/// Shows the status until the caller drops the future.
pub async fn show(edge_admin: String) {
    let mut screen = Screen::new();
    let began = Instant::now();
    let mut before: Option<(Instant, Figures)> = None;
    loop {
        let now = Instant::now();
        let figures = scrape(&edge_admin).await;
        let lines = match figures {
            Some(figures) => describe(now - began, figures, before.map(|(at, f)| (now - at, f))),
            None => vec!["  the edge does not answer".to_owned()],
        };
        screen.draw(&lines);
        if let Some(figures) = figures {
            before = Some((now, figures));
        }
        let every = if screen.is_terminal() {
            EVERY
        } else {
            EVERY_WITHOUT_TERMINAL
        };
        tokio::time::sleep(every).await;
    }
}

async fn scrape(edge_admin: &str) -> Option<Figures> {
    let text = client::metrics(edge_admin).await.ok()?;
    let values = parse(&text);
    let value = |name: &str| values.get(name).copied().unwrap_or(0.0);
    Some(Figures {
        received: value("towline_edge_messages_in_total"),
        waiting: value("towline_edge_outbox_messages"),
        delivered: value("towline_edge_messages_delivered_total"),
        connected: value("towline_edge_link_up") > 0.0,
    })
}

/// Prometheus text as name -> sum over all labels.
fn parse(text: &str) -> HashMap<&str, f64> {
    let mut values = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = series.split('{').next().unwrap_or(series);
        if let Ok(value) = value.parse::<f64>() {
            *values.entry(name).or_insert(0.0) += value;
        }
    }
    values
}

fn describe(up: Duration, now: Figures, before: Option<(Duration, Figures)>) -> Vec<String> {
    let rate = |pick: fn(&Figures) -> f64| match &before {
        Some((passed, then)) if passed.as_secs_f64() > 0.0 => {
            (pick(&now) - pick(then)).max(0.0) / passed.as_secs_f64()
        }
        _ => 0.0,
    };
    let seconds = up.as_secs();
    vec![
        format!(
            "  up {:02}:{:02}:{:02}       link {}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            if now.connected { "up" } else { "DOWN" }
        ),
        format!(
            "  messages in     {:>12}   {:>9.0}/s",
            now.received,
            rate(|f| f.received)
        ),
        format!("  in the outbox   {:>12}", now.waiting),
        format!(
            "  delivered       {:>12}   {:>9.0}/s",
            now.delivered,
            rate(|f| f.delivered)
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_summed_and_comments_skipped() {
        let values = parse("# HELP a b\na{x=\"1\"} 2\na{x=\"2\"} 3\nb 7\n");
        assert_eq!(values["a"], 5.0);
        assert_eq!(values["b"], 7.0);
    }

    #[test]
    fn rates_are_per_second_and_never_negative() {
        let then = Figures {
            received: 100.0,
            ..Figures::default()
        };
        let now = Figures {
            received: 300.0,
            connected: true,
            ..Figures::default()
        };
        let lines = describe(
            Duration::from_secs(61),
            now,
            Some((Duration::from_secs(2), then)),
        );
        assert!(
            lines[0].contains("00:01:01") && lines[0].contains("link up"),
            "{lines:?}"
        );
        assert!(
            lines[1].contains("300") && lines[1].contains("100/s"),
            "{lines:?}"
        );
        // The edge was restarted: its counters began again.
        let lines = describe(Duration::ZERO, then, Some((Duration::from_secs(2), now)));
        assert!(lines[1].contains("0/s"), "{lines:?}");
    }
}
