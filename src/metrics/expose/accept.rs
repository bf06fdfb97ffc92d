//! Which of the formats a request wants, by its `Accept`.

/// A format that can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' text, version 0.0.4.
    Text,
    OpenMetrics,
    #[cfg(feature = "telemetry")]
    Protobuf,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            #[cfg(feature = "telemetry")]
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// The format with the highest `q`; of several the first that is named.
pub(super) fn wanted(accept: &str) -> Format {
    let mut best = (Format::Text, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: Vec<(String, &str)> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| {
                (
                    name.trim().to_ascii_lowercase(),
                    value.trim().trim_matches('"'),
                )
            })
            .collect();
        let says = |name: &str| {
            let found = parameters.iter().find(|(of, _)| of == name);
            found.map(|(_, value)| *value)
        };
        let quality = says("q").map_or(Some(1.0), |q| q.parse().ok());
        let (Some(format), Some(quality)) = (format(&media, says), quality) else {
            continue;
        };
        if quality > best.1 {
            best = (format, quality);
        }
    }
    best.0
}

fn format<'a>(media: &str, says: impl Fn(&str) -> Option<&'a str>) -> Option<Format> {
    match media {
        "application/openmetrics-text" => {
            let version = says("version").unwrap_or("1.0.0");
            ["1.0.0", "0.0.1"]
                .contains(&version)
                .then_some(Format::OpenMetrics)
        }
        "text/plain" => {
            let version = says("version").unwrap_or("0.0.4");
            (version == "0.0.4").then_some(Format::Text)
        }
        #[cfg(feature = "telemetry")]
        "application/vnd.google.protobuf" => {
            let is_it = says("proto") == Some("io.prometheus.client.MetricFamily")
                && says("encoding").unwrap_or("delimited") == "delimited";
            is_it.then_some(Format::Protobuf)
        }
        "*/*" | "text/*" => Some(Format::Text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_asks_for_is_what_it_gets() {
        let text = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(wanted(text), Format::OpenMetrics);
        #[cfg(feature = "telemetry")]
        {
            let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                encoding=delimited;q=0.7,";
            assert_eq!(wanted(&format!("{native}{text}")), Format::Protobuf);
            let other = native.replace("MetricFamily", "Other");
            assert_eq!(wanted(&format!("{other}{text}")), Format::OpenMetrics);
        }
    }

    #[test]
    fn whoever_says_nothing_gets_text() {
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "nonsense;;;,=,",
            "text/plain;version=1.0.0",
            "application/openmetrics-text;version=9.9.9",
            "application/openmetrics-text;q=0, text/plain",
            "application/openmetrics-text;q=lots",
        ] {
            assert_eq!(wanted(accept), Format::Text, "{accept}");
        }
        assert_eq!(wanted("Application/OpenMetrics-Text"), Format::OpenMetrics);
        assert_eq!(
            wanted("text/plain;q=0.5, application/openmetrics-text; version=\"1.0.0\"; q=0.9"),
            Format::OpenMetrics
        );
    }
}
