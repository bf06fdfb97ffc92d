//! The menu.

/// Its entries: path and title.
pub(super) const ENTRIES: &[(&str, &str)] = &[
    ("/", "Now"),
    ("/flow", "Flow"),
    ("/types", "Types"),
    ("/workers", "Workers"),
    ("/dead", "Dead letters"),
    ("/find", "Find"),
    ("/scheduled", "Scheduled"),
    ("/crons", "Crons"),
    ("/projections", "Projections"),
    ("/aggregates", "Aggregates"),
    ("/limits", "Limits"),
    ("/redis", "Redis"),
    ("/audit", "Audit"),
];
