//! A figure: what was measured, what the machine itself gives, and what was hoped for.

use serde::Serialize;

use crate::timing::Latency;

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Which measurement it belongs to: what `--only` takes.
    pub group: String,
    /// What was measured.
    pub what: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// What the machine itself gives, measured in turns with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<Raw>,
    /// `value` by `raw`: the median of the ratios of the turns where there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What is asked of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// Whether it is met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
    /// The distribution, where the figure is a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// What one must know to read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What the machine itself gives.
#[derive(Debug, Clone, Serialize)]
pub struct Raw {
    /// How that was measured.
    pub what: String,
    /// In the unit of the figure.
    pub value: f64,
}

/// A bound on the figure or on its ratio.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// Value at least.
    AtLeast(f64),
    /// Value at most.
    AtMost(f64),
    /// Ratio at least.
    RatioAtLeast(f64),
    /// Ratio at most.
    RatioAtMost(f64),
}

impl Goal {
    fn met(self, value: f64, ratio: Option<f64>) -> bool {
        match self {
            Goal::AtLeast(bound) => value >= bound,
            Goal::AtMost(bound) => value <= bound,
            Goal::RatioAtLeast(bound) => ratio.is_some_and(|ratio| ratio >= bound),
            Goal::RatioAtMost(bound) => ratio.is_some_and(|ratio| ratio <= bound),
        }
    }

    /// As it stands in the table.
    pub fn text(self) -> String {
        match self {
            Goal::AtLeast(bound) => format!("≥ {}", number(bound)),
            Goal::AtMost(bound) => format!("≤ {}", number(bound)),
            Goal::RatioAtLeast(bound) if bound <= 1.0 => format!("≥ {:.0} %", bound * 100.0),
            Goal::RatioAtLeast(bound) => format!("≥ {} ×", number(bound)),
            Goal::RatioAtMost(bound) => format!("≤ {} ×", number(bound)),
        }
    }
}

impl Figure {
    /// A bare figure.
    pub fn new(group: &str, what: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure {
            group: group.to_owned(),
            what: what.into(),
            value,
            unit,
            raw: None,
            ratio: None,
            goal: None,
            met: None,
            latency: None,
            note: None,
        }
    }

    /// The 99th percentile of a distribution, in microseconds.
    pub fn p99(group: &str, what: impl Into<String>, latency: Latency) -> Figure {
        let mut figure = Figure::new(group, what, latency.p99_us, "µs p99");
        figure.latency = Some(latency);
        figure
    }

    /// Sets what the machine gives, and with it the ratio.
    pub fn against(mut self, what: impl Into<String>, raw: f64) -> Figure {
        self.ratio = (raw > 0.0).then_some(self.value / raw);
        self.raw = Some(Raw {
            what: what.into(),
            value: raw,
        });
        self.judge()
    }

    /// Sets a ratio that was taken turn by turn.
    pub fn ratio(mut self, ratio: f64) -> Figure {
        self.ratio = Some(ratio);
        self.judge()
    }

    /// Sets the goal.
    pub fn goal(mut self, goal: Goal) -> Figure {
        self.goal = Some(goal);
        self.judge()
    }

    /// Adds a remark.
    pub fn note(mut self, note: impl Into<String>) -> Figure {
        self.note = Some(note.into());
        self
    }

    fn judge(mut self) -> Figure {
        self.met = self.goal.map(|goal| goal.met(self.value, self.ratio));
        self
    }
}

/// A number with about three figures that count.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100_000.0 {
        let digits = format!("{value:.0}");
        let mut grouped = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) && digit != '-' {
                grouped.push('\u{202f}');
            }
            grouped.push(digit);
        }
        grouped
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        let text = format!("{value:.2}");
        text.strip_suffix(".00").map(str::to_owned).unwrap_or(text)
    }
}
