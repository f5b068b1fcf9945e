//! Changes of a request's body: a smaller cap, a question for the usage. Every other byte stays.

use crate::tokens::body_call::{Amount, CapField};
use crate::tokens::body_fields::{BodyFields, BodyObject};
use crate::tokens::request::TokenRequest;
use std::ops::Range;

impl TokenRequest {
    /// The body to send: with `cap` as its greatest output, where it has none or a larger one, and
    /// with a question for the usage, if it [needs](Self::needs_usage) one. `None` if it stays as
    /// it is. Where the body's caps are none that its origin knows, what was held for them is
    /// written without a `cap` too.
    ///
    /// `cap` is the `output_per_answer` of a hold that was made smaller to fit into a budget, of a
    /// body that [can be clamped](Self::can_be_clamped).
    #[must_use]
    pub fn rewritten(&self, cap: Option<u64>) -> Option<Vec<u8>> {
        let fields = self.fields.as_ref().filter(|_| self.is_json)?;
        let mut edits = Vec::new();
        let cap = cap.or_else(|| fields.lacks_own_cap.then_some(self.hold.output_per_answer));
        if let Some(cap) = cap.filter(|_| self.can_be_clamped()) {
            self.write_cap(fields, cap, &mut edits);
        }
        if self.needs_usage() {
            ask_usage(fields, &mut edits);
        }
        if edits.is_empty() { None } else { apply(&self.body, edits) }
    }

    fn write_cap(&self, fields: &BodyFields, cap: u64, edits: &mut Vec<Edit>) {
        for found in &fields.caps {
            let is_smaller = matches!(found.amount, Amount::Number(amount) if amount <= cap);
            if !is_smaller {
                edits.push((found.span.clone(), cap.to_string()));
            }
        }
        for field in self.caps_to_write(fields) {
            if field == CapField::InConfig {
                let member = format!("\"maxOutputTokens\":{cap}");
                let root = fields.root.filter(|_| !fields.has_own_config);
                insert_in(&fields.configs, "generationConfig", &member, root, edits);
                continue;
            }
            let name = match field {
                CapField::MaxCompletionTokens => "max_completion_tokens",
                CapField::MaxOutputTokens => "max_output_tokens",
                CapField::MaxTokens | CapField::InConfig => "max_tokens",
            };
            if let Some(root) = fields.root.filter(|_| !fields.has_cap(field)) {
                // The body has members, or it would have no shape.
                edits.push((root..root, format!("\"{name}\":{cap},")));
            }
        }
    }
}

/// Bytes and what is to stand in their place.
type Edit = (Range<u64>, String);

fn ask_usage(fields: &BodyFields, edits: &mut Vec<Edit>) {
    edits.extend(fields.unasked.iter().map(|span| (span.clone(), "true".to_owned())));
    let root = fields.root.filter(|_| !fields.has_own_stream_options);
    insert_in(&fields.stream_options, "stream_options", "\"include_usage\":true", root, edits);
}

/// Writes a member into all the objects of a name that lack it, and into a new one at `root`: it is
/// there if none has the exact name, which some origins need. Others compare names without regard
/// to case and take the last, so those in other letters get the member too.
fn insert_in(objects: &[BodyObject], name: &str, member: &str, root: Option<u64>, edits: &mut Vec<Edit>) {
    for object in objects {
        match object {
            BodyObject::Object { has_member: true, .. } => {}
            BodyObject::Object { inside, is_empty, .. } => {
                edits.push((*inside..*inside, [member, if *is_empty { "" } else { "," }].concat()));
            }
            BodyObject::Other(span) => edits.push((span.clone(), ["{", member, "}"].concat())),
        }
    }
    if let Some(root) = root {
        edits.push((root..root, ["\"", name, "\":{", member, "},"].concat()));
    }
}

fn apply(body: &[u8], mut edits: Vec<Edit>) -> Option<Vec<u8>> {
    edits.sort_by_key(|(span, _)| (span.start, span.end));
    let mut out = Vec::with_capacity(body.len() + edits.iter().map(|(_, text)| text.len()).sum::<usize>());
    let mut from = 0;
    for (span, text) in edits {
        let (start, end) = (usize::try_from(span.start).ok()?, usize::try_from(span.end).ok()?);
        out.extend_from_slice(body.get(from..start)?);
        out.extend_from_slice(text.as_bytes());
        from = end;
    }
    out.extend_from_slice(body.get(from..)?);
    Some(out)
}
