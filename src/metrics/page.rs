//! The part of `docs/metrics.md` that is made from the table.

use std::fmt::Write;
use std::path::Path;

use super::table::{Kind, Metric, PREFIX, Scope, TABLE};

/// Behind this line of the page.
const BEGIN: &str = "<!-- What follows is made from src/metrics/table.rs: STREAMHAND_RENEW=1 cargo test --lib metrics::page -->\n";

#[test]
fn the_page_has_what_the_table_has() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(&file).expect("the page");
    let (prose, _) = page
        .split_once(BEGIN)
        .expect("the line behind which it is made");
    let made = format!("{prose}{BEGIN}{}", tables());
    if std::env::var_os("STREAMHAND_RENEW").is_some() {
        std::fs::write(&file, &made).expect("the page to be written");
        return;
    }
    assert!(
        page == made,
        "docs/metrics.md is not what the table says; renew it: STREAMHAND_RENEW=1 cargo test --lib metrics::page"
    );
}

fn tables() -> String {
    let of_each = "\n## Of each process\n\nEvery worker and every publisher tells of itself. Add them up.\n\n";
    let of_group = "\n## Of the group\n\nOne place tells of these, `streamhand exporter` or the dashboard, and never each \
                    worker: a sum over workers would count the same thing many times.\n\n";
    let mut text = String::new();
    for (head, scope) in [(of_each, Scope::Process), (of_group, Scope::Group)] {
        text += head;
        text += "| name | kind | labels | means |\n|---|---|---|---|\n";
        let rows = TABLE.iter().map(|(_, metric)| metric);
        for metric in rows.filter(|metric| metric.scope == scope) {
            row(&mut text, metric);
        }
    }
    text
}

fn row(text: &mut String, metric: &Metric) {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let labels = metric.labels.iter().map(|label| format!("`{label}`"));
    let labels = labels.collect::<Vec<_>>().join(", ");
    let (name, help) = (metric.name, metric.help);
    let _ = writeln!(text, "| `{PREFIX}{name}` | {kind} | {labels} | {help} |");
}
