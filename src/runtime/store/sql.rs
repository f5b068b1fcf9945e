//! Expressions that several statements share.

/// A time column (text) as milliseconds since the Unix epoch.
macro_rules! millis {
    ($column:literal) => {
        concat!("MAX(0, CAST(ROUND(unixepoch(", $column, ", 'subsec') * 1000) AS INTEGER))")
    };
}
pub(super) use millis;

/// A time column (text) in RFC 3339, as [`rfc3339`] writes it.
macro_rules! rfc {
    ($column:literal) => {
        concat!("replace(strftime('%Y-%m-%dT%H:%M:%fZ', ", $column, "), '.000Z', 'Z')")
    };
}
pub(super) use rfc;
