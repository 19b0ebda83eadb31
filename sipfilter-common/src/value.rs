//! Map values.

/// The most sources that one pinhole can name.
pub const MAX_SOURCES: usize = 4;
