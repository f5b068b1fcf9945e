//! The member names that requests and answers are searched for.

/// A step of a path into a JSON text: a name, or any item of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonStep {
    /// An item of an array.
    Item,
    /// A name that nothing depends on.
    Other,
    /// `max_tokens`.
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
    /// `max_output_tokens`.
    MaxOutputTokens,
    /// `maxOutputTokens`.
    MaxOutputTokensCamel,
    /// `generationConfig`, `generation_config`.
    GenerationConfig,
    /// `n`.
    N,
    /// `best_of`.
    BestOf,
    /// `candidateCount`, `candidate_count`.
    CandidateCount,
    /// `prompt`.
    Prompt,
    /// `messages`.
    Messages,
    /// `input`.
    Input,
    /// `contents`.
    Contents,
    /// `model`.
    Model,
    /// `stream`.
    Stream,
    /// `stream_options`.
    StreamOptions,
    /// `include_usage`.
    IncludeUsage,
    /// `requests`.
    Requests,
    /// `reasoning`, `reasoning_effort`.
    Reasoning,
    /// `index`.
    Index,
    /// `usage`.
    Usage,
    /// `usageMetadata`.
    UsageMetadata,
    /// `response`.
    Response,
    /// `message`.
    Message,
    /// `choices`.
    Choices,
    /// `delta`.
    Delta,
    /// `content_block`.
    ContentBlock,
    /// `content`.
    Content,
    /// `output`.
    Output,
    /// `candidates`.
    Candidates,
    /// `prompt_tokens`.
    PromptTokens,
    /// `completion_tokens`.
    CompletionTokens,
    /// `input_tokens`.
    InputTokens,
    /// `output_tokens`.
    OutputTokens,
    /// `total_tokens`.
    TotalTokens,
    /// `cache_creation_input_tokens`.
    CacheCreationInputTokens,
    /// `cache_read_input_tokens`.
    CacheReadInputTokens,
    /// `promptTokenCount`.
    PromptTokenCount,
    /// `candidatesTokenCount`.
    CandidatesTokenCount,
    /// `thoughtsTokenCount`.
    ThoughtsTokenCount,
    /// `toolUsePromptTokenCount`.
    ToolUsePromptTokenCount,
    /// `totalTokenCount`.
    TotalTokenCount,
    /// `finishReason`, `finish_reason`.
    FinishReason,
    /// `stop_reason`.
    StopReason,
    /// `type`.
    Type,
    /// A name whose text the model has not written.
    Label,
}

/// The names that requests are searched for, for comparisons without regard to case.
const REQUEST_NAMES: [(&str, JsonStep); 21] = [
    ("max_tokens", JsonStep::MaxTokens),
    ("max_completion_tokens", JsonStep::MaxCompletionTokens),
    ("max_output_tokens", JsonStep::MaxOutputTokens),
    ("maxOutputTokens", JsonStep::MaxOutputTokensCamel),
    ("generationConfig", JsonStep::GenerationConfig),
    ("generation_config", JsonStep::GenerationConfig),
    ("n", JsonStep::N),
    ("best_of", JsonStep::BestOf),
    ("candidateCount", JsonStep::CandidateCount),
    ("candidate_count", JsonStep::CandidateCount),
    ("prompt", JsonStep::Prompt),
    ("messages", JsonStep::Messages),
    ("input", JsonStep::Input),
    ("contents", JsonStep::Contents),
    ("model", JsonStep::Model),
    ("stream", JsonStep::Stream),
    ("stream_options", JsonStep::StreamOptions),
    ("include_usage", JsonStep::IncludeUsage),
    ("requests", JsonStep::Requests),
    ("reasoning", JsonStep::Reasoning),
    ("reasoning_effort", JsonStep::Reasoning),
];

impl JsonStep {
    /// The step of a name.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"max_tokens" => Self::MaxTokens,
            b"max_completion_tokens" => Self::MaxCompletionTokens,
            b"max_output_tokens" => Self::MaxOutputTokens,
            b"maxOutputTokens" => Self::MaxOutputTokensCamel,
            b"generationConfig" | b"generation_config" => Self::GenerationConfig,
            b"n" => Self::N,
            b"best_of" => Self::BestOf,
            b"candidateCount" | b"candidate_count" => Self::CandidateCount,
            b"prompt" => Self::Prompt,
            b"messages" => Self::Messages,
            b"input" => Self::Input,
            b"contents" => Self::Contents,
            b"model" => Self::Model,
            b"stream" => Self::Stream,
            b"stream_options" => Self::StreamOptions,
            b"include_usage" => Self::IncludeUsage,
            b"requests" => Self::Requests,
            b"reasoning" | b"reasoning_effort" => Self::Reasoning,
            b"index" => Self::Index,
            b"usage" => Self::Usage,
            b"usageMetadata" => Self::UsageMetadata,
            b"response" => Self::Response,
            b"message" => Self::Message,
            b"choices" => Self::Choices,
            b"delta" => Self::Delta,
            b"content_block" => Self::ContentBlock,
            b"content" => Self::Content,
            b"output" => Self::Output,
            b"candidates" => Self::Candidates,
            b"prompt_tokens" => Self::PromptTokens,
            b"completion_tokens" => Self::CompletionTokens,
            b"input_tokens" => Self::InputTokens,
            b"output_tokens" => Self::OutputTokens,
            b"total_tokens" => Self::TotalTokens,
            b"cache_creation_input_tokens" => Self::CacheCreationInputTokens,
            b"cache_read_input_tokens" => Self::CacheReadInputTokens,
            b"promptTokenCount" => Self::PromptTokenCount,
            b"candidatesTokenCount" => Self::CandidatesTokenCount,
            b"thoughtsTokenCount" => Self::ThoughtsTokenCount,
            b"toolUsePromptTokenCount" => Self::ToolUsePromptTokenCount,
            b"totalTokenCount" => Self::TotalTokenCount,
            b"finishReason" | b"finish_reason" => Self::FinishReason,
            b"stop_reason" => Self::StopReason,
            b"type" => Self::Type,
            b"role" | b"id" | b"object" | b"status" | b"call_id" | b"item_id" | b"signature" | b"thoughtSignature"
            | b"category" | b"probability" | b"mimeType" => Self::Label,
            _ => Self::Other,
        }
    }

    /// The step of a name of a request, however its letters are written: Go's `encoding/json`, which some origins read with,
    /// finds members without regard to case, also by `ſ` (long s) and `K` (kelvin).
    #[must_use]
    pub fn of_folded(name: &[u8]) -> Self {
        let Ok(name) = std::str::from_utf8(name) else { return Self::Other };
        let fold = |letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => char::to_ascii_lowercase(&other),
        };
        let is_same = |known: &str| known.chars().map(fold).eq(name.chars().map(fold));
        REQUEST_NAMES.iter().find(|(known, _)| is_same(known)).map_or(Self::Other, |(_, step)| *step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_request_is_found_in_all_its_spellings() {
        for (name, step) in REQUEST_NAMES {
            assert_eq!(JsonStep::of(name.as_bytes()), step, "{name}");
            assert_eq!(JsonStep::of_folded(name.to_ascii_uppercase().as_bytes()), step, "{name}");
        }
        assert_eq!(JsonStep::of(b"MAX_TOKENS"), JsonStep::Other);
        assert_eq!(JsonStep::of_folded("max_to\u{212a}ens".as_bytes()), JsonStep::MaxTokens);
        assert_eq!(JsonStep::of_folded("be\u{17f}t_of".as_bytes()), JsonStep::BestOf);
        assert_eq!(JsonStep::of_folded(b"nn"), JsonStep::Other);
        assert_eq!(JsonStep::of_folded(b"\xff"), JsonStep::Other);
    }
}
