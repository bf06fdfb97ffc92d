//! What is scraped: metrics as text, taken apart.

use std::collections::BTreeMap;

use streamhand::metrics::Metrics;

/// All samples of one scrape, each by its name and its labels.
#[derive(Clone, Debug, Default)]
pub struct Scrape(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    /// What has been counted by now.
    pub fn of(metrics: &Metrics) -> Self {
        let (content_type, body) = metrics.render("application/openmetrics-text; version=1.0.0");
        assert!(content_type.starts_with("application/openmetrics-text"));
        let text = String::from_utf8(body).expect("text");
        assert!(text.ends_with("# EOF\n"));
        Scrape::parse(&text)
    }

    /// Takes text apart; label values have no escapes in tests.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Scrape(lines.map(sample).collect())
    }

    /// The sum of all samples of a name, without `streamhand_`, that have these labels, as `"type=test.job,outcome=acked"`.
    pub fn sum(&self, name: &str, labels: &str) -> f64 {
        let wanted: Vec<(&str, &str)> = labels
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let has = |sample: &Sample| {
            let mut wanted = wanted.iter();
            wanted.all(|(name, value)| sample.labels.get(*name).is_some_and(|of| of == value))
        };
        let of_name = |sample: &&Sample| sample.name.strip_prefix("streamhand_") == Some(name);
        let samples = self.0.iter().filter(of_name);
        // Else a minus stands before nothing.
        samples
            .filter(|sample| has(sample))
            .map(|of| of.value)
            .sum::<f64>()
            + 0.0
    }

    /// All samples of a name, each by the values of its labels.
    pub fn all(&self, name: &str) -> BTreeMap<String, f64> {
        let of_name = |sample: &&Sample| sample.name.strip_prefix("streamhand_") == Some(name);
        let values = |sample: &Sample| {
            let values: Vec<&str> = sample.labels.values().map(String::as_str).collect();
            values.join(" ")
        };
        let samples = self.0.iter().filter(of_name);
        samples
            .map(|sample| (values(sample), sample.value))
            .collect()
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("an end")),
        None => (series, ""),
    };
    let labels = labels.split("\",").filter(|label| !label.is_empty());
    let labels = labels.map(|label| {
        let (name, value) = label.split_once("=\"").expect("a label");
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    let value = match value {
        "+Inf" => f64::INFINITY,
        value => value.parse().expect("a number"),
    };
    Sample {
        name: name.to_owned(),
        labels: labels.collect(),
        value,
    }
}
