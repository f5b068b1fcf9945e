//! The key of a row of a table of routes: a path pattern and a method.

/// The longest pattern, in characters, as in the schema.
pub const PATTERN_LENGTH: usize = 512;
/// The method of a row that applies to all methods.
pub const ANY_METHOD: &str = "*";

/// What is wrong with a pattern.
#[must_use]
pub fn pattern_fault(pattern: &str) -> Option<String> {
    let is_path =
        pattern.starts_with('/') && pattern.chars().count() <= PATTERN_LENGTH && !pattern.chars().any(char::is_control);
    (!is_path).then(|| format!("must be a path such as /v1/*/export, of at most {PATTERN_LENGTH} characters"))
}

/// What is wrong with a row's method.
#[must_use]
pub fn method_fault(method: &str) -> Option<&'static str> {
    let is_name = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    (!is_name && method != ANY_METHOD).then_some("must be * (all methods) or upper-case letters")
}
