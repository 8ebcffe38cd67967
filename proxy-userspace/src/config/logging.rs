//! `flows` and `logging`: what is told of what passed.

/// `flows`: the record of what passed.
#[derive(Debug, Clone, PartialEq)]
pub struct Flows {
    /// Finished flows kept in memory for `weir flows`. Default 1024.
    pub keep: usize,
}

/// `logging`.
#[derive(Debug, Clone, PartialEq)]
pub struct Logging {
    /// A level (error, warn, info, debug, trace) or a filter such as `info,weir::relay=debug`. Default info.
    pub level: String,
    /// Default text.
    pub format: LogFormat,
    /// Write a line per finished flow. Default on.
    pub access: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
