//! Jinja as transformers sets it up: block trimming, loop controls, Python's methods and JSON, `generation` blocks.

use std::{io, sync::LazyLock};

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, ValueKind, merge_maps},
};
use regex::Regex;

/// Instructions a rendering may take: enough for tens of thousands of messages, and a limit on endless loops.
const FUEL: u64 = 10_000_000;
/// The longest rendering; prompts of the longest contexts have some megabytes.
const MAX_BYTES: usize = 1 << 26;
/// The deepest value that is written as JSON.
const MAX_DEPTH: usize = 100;

/// The tags around what a model is trained on. They print nothing themselves.
static GENERATION_TAG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("a valid pattern"));

/// A compiled template.
#[derive(Debug)]
pub struct Jinja(Environment<'static>);

impl Jinja {
    /// Compiles a template.
    pub fn compile(source: &str) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(method);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment.add_test("iterable", is_iterable);
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.add_template_owned("chat", without_generation_tags(source))?;
        Ok(Self(environment))
    }

    /// Renders it. `tools` and `documents` are none unless the context has them, as transformers passes them:
    /// templates ask `tools is not none`, which is true for what is undefined.
    pub fn render(&self, context: Value) -> Result<String, Error> {
        let absent = minijinja::context! { tools => (), documents => () };
        let mut text = Bounded::default();
        let rendered = self.0.get_template("chat")?.render_captured_to(merge_maps([absent, context]), &mut text);
        if text.is_full {
            return Err(invalid(format!("the rendering has more than {MAX_BYTES} bytes")));
        }
        rendered?;
        String::from_utf8(text.bytes).map_err(|error| invalid(error.to_string()))
    }
}

/// A rendering, up to [`MAX_BYTES`].
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_BYTES {
            self.is_full = true;
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A `generation` block becomes an `if` that is always true, which has no scope of its own either.
fn without_generation_tags(source: &str) -> String {
    GENERATION_TAG
        .replace_all(source, |tag: &regex::Captures<'_>| {
            let statement = if tag.get(2).is_some() { "endif" } else { "if true" };
            format!("{{%{} {statement} {}%}}", &tag[1], &tag[3])
        })
        .into_owned()
}

/// Methods of Python's types.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// Python cannot iterate over none; an undefined value is an empty sequence.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn raise_exception(message: &str) -> Result<String, Error> {
    Err(invalid(message))
}

/// A prompt must not change at midnight: a loaded game continues token for token, and a cached prefix stays valid. So
/// "today" is the day that Llama 3's template uses where there is no clock.
fn strftime_now(format: &str) -> Result<String, Error> {
    let mut date = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            date.push(letter);
            continue;
        }
        let directive = letters.next().unwrap_or('%');
        date.push_str(match directive {
            'd' => "26",
            'm' => "07",
            'y' => "24",
            'Y' => "2024",
            'b' => "Jul",
            'B' => "July",
            'a' => "Fri",
            'A' => "Friday",
            'j' => "208",
            'F' => "2024-07-26",
            'H' | 'M' | 'S' => "00",
            '%' => "%",
            other => return Err(invalid(format!("strftime_now does not know %{other}"))),
        });
    }
    Ok(date)
}

/// Python's `json.dumps`, as transformers calls it: letters stay as they are and nothing is escaped for HTML.
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    let separators: Option<(String, String)> = match options.get::<Option<Value>>("separators")? {
        None => None,
        Some(pair) => match &pair.try_iter()?.collect::<Vec<_>>()[..] {
            [item, key] => Some((item.to_string(), key.to_string())),
            _ => return Err(invalid("tojson: `separators` should be two texts")),
        },
    };
    options.assert_all_used()?;
    let default = (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    let mut writer = JsonWriter {
        out: String::new(),
        indent,
        separators: separators.unwrap_or(default),
        ascii: ascii.unwrap_or(false),
        sorted: sorted.unwrap_or(false),
    };
    writer.value(value, 1)?;
    Ok(writer.out)
}

struct JsonWriter {
    out: String,
    indent: Option<usize>,
    /// After an item and after a key.
    separators: (String, String),
    ascii: bool,
    sorted: bool,
}

impl JsonWriter {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("tojson: the value is nested more than {MAX_DEPTH} deep")));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&value.to_string()),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.collect::<Vec<_>>();
                self.items('[', ']', &items, depth, |this, item| this.value(item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys = value.try_iter()?.collect::<Vec<_>>();
                if self.sorted {
                    keys.sort();
                }
                self.items('{', '}', &keys, depth, |this, key| {
                    this.text(&key.to_string());
                    this.out.push_str(&this.separators.1.clone());
                    this.value(&value.get_item(key)?, depth + 1)
                })?;
            }
            other => return Err(invalid(format!("tojson: {other} cannot be written as JSON"))),
        }
        Ok(())
    }

    fn items(
        &mut self,
        open: char,
        close: char,
        items: &[Value],
        depth: usize,
        mut write: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.out.push_str(&self.separators.0.clone());
            }
            self.line(depth);
            write(self, item)?;
        }
        if !items.is_empty() {
            self.line(depth - 1);
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent.min(MAX_DEPTH) * depth));
        }
    }

    fn text(&mut self, text: &str) {
        let json = serde_json::to_string(text).unwrap_or_default();
        if !self.ascii {
            self.out.push_str(&json);
            return;
        }
        for unit in json.encode_utf16() {
            match char::from_u32(u32::from(unit)).filter(char::is_ascii) {
                Some(letter) => self.out.push(letter),
                None => self.out.push_str(&format!("\\u{unit:04x}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> String {
        Jinja::compile(source).and_then(|jinja| jinja.render(minijinja::context! {})).unwrap()
    }

    fn error(source: &str) -> String {
        Jinja::compile(source).and_then(|jinja| jinja.render(minijinja::context! {})).unwrap_err().to_string()
    }

    #[test]
    fn json_is_pythons() {
        // def tojson(x, **options): return json.dumps(x, **{"ensure_ascii": False, **options})
        let check = |expression: &str, expected: &str| {
            assert_eq!(render(&format!("{{{{ {expression} }}}}")), expected, "{expression}");
        };
        check(
            "{'b': 'ä<&>\\'\"', 'a': [1, 2.0, true, none]} | tojson",
            r#"{"b": "ä<&>'\"", "a": [1, 2.0, true, null]}"#,
        );
        check("{'b': 1, 'a': 2} | tojson(sort_keys=true)", r#"{"a": 2, "b": 1}"#);
        check("{'a': [1, {}], 'b': []} | tojson(indent=2)", "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}");
        check("[1, {'a': 2}] | tojson(separators=(',', ':'))", r#"[1,{"a":2}]"#);
        check("'ä🫒\n' | tojson(ensure_ascii=true)", r#""\u00e4\ud83e\uded2\n""#);
        assert!(error("{{ nothing | tojson }}").contains("undefined cannot be written as JSON"));
        assert!(error("{{ 1 | tojson(color=1) }}").contains("color"));
    }

    #[test]
    fn a_generation_block_is_transparent() {
        // As the same template without the tags.
        let check = |source: &str, expected: &str| assert_eq!(render(source), expected, "{source:?}");
        check("a{% generation %}b{% endgeneration %}c", "abc");
        check("a {%- generation -%} b {%- endgeneration -%} c", "abc");
        check("{% if true %}{%generation%}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}{% endif %}", "11");
    }

    #[test]
    fn a_rendering_has_bounds() {
        let error = error("{% for i in range(99) %}{{ 'a' * 9999999 }}{% endfor %}");
        assert!(error.contains("the rendering has more than 67108864 bytes"), "{error}");
    }

    #[test]
    fn tools_and_documents_are_none_unless_given() {
        assert_eq!(render("{{ tools is none }}{{ documents is none }}{{ other is defined }}"), "TrueTrueFalse");
        let given = Jinja::compile("{{ tools }}").unwrap().render(minijinja::context! { tools => 1 }).unwrap();
        assert_eq!(given, "1");
        // As in Python, where iter(None) fails.
        assert_eq!(render("{{ tools is iterable }}{{ other is iterable }}{{ [] is iterable }}"), "FalseTrueTrue");
    }
}
