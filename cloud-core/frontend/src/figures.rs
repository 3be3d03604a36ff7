//! Metrics of parts that count for themselves and know no registry (the kernel, the MQTT broker): read when asked for.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// One metric family over a source `S`.
pub struct Figure<S> {
    /// Starts with `towline_`; a counter ends with `_total`.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub read: Read<S>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

pub enum Read<S> {
    One(fn(&S) -> u64),
    /// The name of the label, and a value and a figure for each child.
    Labelled(&'static str, fn(&S) -> Vec<(String, u64)>),
}

impl<S> Figure<S> {
    pub const fn counter(name: &'static str, help: &'static str, read: fn(&S) -> u64) -> Figure<S> {
        Figure {
            name,
            help,
            kind: Kind::Counter,
            read: Read::One(read),
        }
    }

    pub const fn gauge(name: &'static str, help: &'static str, read: fn(&S) -> u64) -> Figure<S> {
        Figure {
            name,
            help,
            kind: Kind::Gauge,
            read: Read::One(read),
        }
    }

    fn labels(&self) -> Vec<&'static str> {
        match self.read {
            Read::One(_) => vec![],
            Read::Labelled(label, _) => vec![label],
        }
    }

    fn family(&self, source: &S) -> prometheus::Result<Vec<MetricFamily>> {
        let children = match self.read {
            Read::One(read) => vec![(vec![], read(source))],
            Read::Labelled(_, read) => read(source)
                .into_iter()
                .map(|(value, figure)| (vec![value], figure))
                .collect(),
        };
        // Made anew each time, so that two readers at once do not meet, and a child that is gone is gone.
        let options = Opts::new(self.name, self.help);
        match self.kind {
            Kind::Counter => {
                let family = IntCounterVec::new(options, &self.labels())?;
                for (labels, figure) in children {
                    family.get_metric_with_label_values(&labels)?.inc_by(figure);
                }
                Ok(family.collect())
            }
            Kind::Gauge => {
                let family = IntGaugeVec::new(options, &self.labels())?;
                for (labels, figure) in children {
                    family
                        .get_metric_with_label_values(&labels)?
                        .set(i64::try_from(figure).unwrap_or(i64::MAX));
                }
                Ok(family.collect())
            }
        }
    }
}

/// Registers `figures`; `source` is called once for each scrape.
pub fn register<S: 'static>(
    registry: &Registry,
    figures: &'static [Figure<S>],
    source: impl Fn() -> S + Send + Sync + 'static,
) -> prometheus::Result<()> {
    let describe = |figure: &Figure<S>| {
        let labels = figure.labels().into_iter().map(str::to_owned).collect();
        Desc::new(
            figure.name.to_owned(),
            figure.help.to_owned(),
            labels,
            Default::default(),
        )
    };
    let descriptions = figures
        .iter()
        .map(describe)
        .collect::<prometheus::Result<_>>()?;
    registry.register(Box::new(Figures {
        figures,
        descriptions,
        source: Arc::new(source),
    }))
}

struct Figures<S: 'static> {
    figures: &'static [Figure<S>],
    descriptions: Vec<Desc>,
    source: Arc<dyn Fn() -> S + Send + Sync>,
}

impl<S> Collector for Figures<S> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let source = (self.source)();
        let families = self
            .figures
            .iter()
            .map(|figure| figure.family(&source).map_err(|error| (figure.name, error)));
        families
            .flat_map(|family| {
                family.unwrap_or_else(|(name, error)| {
                    tracing::error!(name, %error, "a metric cannot be given");
                    Vec::new()
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static FIGURES: [Figure<u64>; 3] = [
        Figure::counter("towline_a_total", "A.", |source| *source),
        Figure::gauge("towline_b", "B.", |source| source + 1),
        Figure {
            name: "towline_c",
            help: "C.",
            kind: Kind::Gauge,
            read: Read::Labelled("queue", |source| vec![("x\"y".into(), *source)]),
        },
    ];

    #[test]
    fn figures_are_read_at_each_scrape() {
        let registry = Registry::new();
        register(&registry, &FIGURES, || 4).unwrap();
        for _ in 0..2 {
            let text = prometheus::TextEncoder::new()
                .encode_to_string(&registry.gather())
                .unwrap();
            for line in [
                "towline_a_total 4",
                "towline_b 5",
                "towline_c{queue=\"x\\\"y\"} 4",
                "# TYPE towline_a_total counter",
            ] {
                assert!(
                    text.lines().any(|found| found == line),
                    "{line} is not in\n{text}"
                );
            }
        }
    }
}
