//! Which tokens are markup where a file does not say so: converters store some as plain or user-defined tokens.
//!
//! Source: `special_eog_ids` and the tokens found by their text in llama.cpp's `llama-vocab.cpp`.

/// Tokens that end a turn or a text, whatever end the file names.
const ENDS: [&str; 33] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "</s>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "[e~[",
    "<｜end▁of▁sentence｜>",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Tokens around code to be filled in.
const OTHERS: [&str; 15] = [
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
];

/// The tokens of known names that are ends in a vocabulary that has these tokens.
pub fn ends(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    // Where a reply has several parts, `<|end|>` ends one of them.
    let parts = has("<|return|>") && has("<|call|>") || has("<|calls|>") && has("<|flush|>");
    // A tag of HTML in Gemma's vocabularies.
    let tag = has("<|tool_response>");
    ENDS.into_iter().filter(|&name| !(name == "<|end|>" && parts || name == "</s>" && tag)).collect()
}

/// Tokens that are control tokens whatever their type says, in a vocabulary that has these tokens.
pub fn controls(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    ends(has).into_iter().chain(OTHERS).collect()
}

/// Whether an added token is markup of this chat template. Words of a language, spaces and line breaks, which some
/// vocabularies add too, are not.
pub fn is_of_template(token: &str, template: &str) -> bool {
    let enclosed = |open, close| token.starts_with(open) && token.ends_with(close);
    token.len() > 2 && (enclosed('<', '>') || enclosed('[', ']')) && template.contains(token)
}

/// The same for a token that the file calls a plain one: only what no text of a language contains.
pub fn is_of_template_though_plain(token: &str, template: &str) -> bool {
    token.len() > 4 && token.starts_with("<|") && token.ends_with("|>") && template.contains(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_of_a_part_or_a_tag_is_no_end() {
        let check = |tokens: &[&str], name: &str, expected: bool| {
            assert_eq!(ends(|name| tokens.contains(&name)).contains(&name), expected, "{tokens:?} {name}");
        };
        check(&["<|end|>"], "<|end|>", true);
        check(&["<|end|>", "<|return|>", "<|call|>"], "<|end|>", false);
        check(&["<|end|>", "<|calls|>", "<|flush|>"], "<|end|>", false);
        check(&["</s>"], "</s>", true);
        check(&["</s>", "<|tool_response>"], "</s>", false);
    }

    #[test]
    fn only_what_looks_like_markup_is() {
        let check =
            |token: &str, expected: bool| assert_eq!(is_of_template(token, "<a>\n[b] <> cd"), expected, "{token:?}");
        check("<a>", true);
        check("[b]", true);
        check("<c>", false);
        check("\n", false);
        check("<>", false);
        check("cd", false);
    }
}
