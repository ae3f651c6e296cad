//! Text in a Markdown page.

/// Text as Markdown shows it, in a cell of a table too.
pub fn markdown_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.trim().chars() {
        match letter {
            '\n' => escaped.push_str("<br>"),
            '\r' => {}
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '#' | '~' | '>' => escaped.extend(['\\', letter]),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_texts_is_text() {
        let check = |text: &str, expected: &str| assert_eq!(markdown_escaped(text), expected);
        check("What is courage?", "What is courage?");
        check("a | b\nc", "a \\| b<br>c");
        check("*_x_* <b> [l](u) `c` \\", "\\*\\_x\\_\\* &lt;b\\> \\[l\\](u) \\`c\\` \\\\");
        check("&lt;", "&amp;lt;");
    }
}
