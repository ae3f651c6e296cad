//! Messages to token ids, by the template the model was trained with.
//!
//! A message's content is never read as markup: the template is rendered around placeholders, its own pieces are read
//! with control tokens and the contents as plain text. A player who types `<|im_end|>` says just that.

use std::{fs, io, path::Path};

use minijinja::{Environment, ErrorKind, Value, context, syntax::SyntaxConfig};
use serde_json::Value as Json;

use crate::{
    Error, Markup, Result, Tokenizer,
    gguf::{self, Gguf},
};

/// What ChatML models without a template of their own were trained with.
const CHATML: &str = "\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}";
/// Its mark in a vocabulary.
const CHATML_START: &str = "<|im_start|>";

/// Placeholders are letters of this private plane, one per message. Contents never pass through the template, so they may
/// hold such letters too.
const FIRST_PLACEHOLDER: u32 = 0xf_0000;
const MAX_MESSAGES: usize = 0xfffe;

/// Instructions a rendering may take: enough for tens of thousands of messages, and an end to endless loops.
const FUEL: u64 = 10_000_000;

/// Who speaks a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions: the persona and the facts.
    System,
    /// The other side.
    User,
    /// The character.
    Assistant,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its speaker.
    pub role: Role,
    /// Its text, always read as text. White space at both ends is left out, as most templates do themselves.
    pub content: String,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl ChatTemplate {
    /// From a GGUF file's metadata. A file without a template gets ChatML's if its vocabulary has `<|im_start|>`.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let tokens = gguf.array("tokenizer.ggml.tokens")?;
        let token = |key: &str| -> Result<&str> {
            if gguf.get(key).is_none() {
                return Ok("");
            }
            match tokens.get(gguf.usize(key)?) {
                Some(gguf::Value::String(token)) => Ok(token),
                _ => Err(Error::model_file(gguf.path(), format!("`{key}` is not a token of the vocabulary"))),
            }
        };
        let source = if gguf.get("tokenizer.chat_template").is_some() {
            gguf.str("tokenizer.chat_template")?
        } else if tokens.contains(&CHATML_START.into()) {
            CHATML
        } else {
            return Err(no_template(gguf.path()));
        };
        Self::compile(source, token("tokenizer.ggml.bos_token_id")?, token("tokenizer.ggml.eos_token_id")?)
    }

    /// From a Hugging Face folder's `chat_template.jinja` or `tokenizer_config.json`. A folder without a template gets
    /// ChatML's if its `tokenizer.json` adds `<|im_start|>`.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let config = read_json(&folder.join("tokenizer_config.json"))?;
        let source = match read(&folder.join("chat_template.jinja"))? {
            Some(source) => source,
            None => match in_config(&config["chat_template"]) {
                Some(source) => source.to_owned(),
                None if adds_chatml(&read_json(&folder.join("tokenizer.json"))?) => CHATML.to_owned(),
                None => return Err(no_template(folder)),
            },
        };
        let token = |key: &str| config[key].as_str().or(config[key]["content"].as_str()).unwrap_or_default();
        Self::compile(&source, token("bos_token"), token("eos_token"))
    }

    /// The ids of a conversation, begin token included where the model wants one; with `reply` they end where the
    /// assistant's next words begin.
    ///
    /// Fails where the template refuses the order of roles, and where it leaves out a message: a persona must not be
    /// lost without a word.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message], reply: bool) -> Result<Vec<u32>> {
        if messages.len() > MAX_MESSAGES {
            let count = messages.len();
            return Err(Error::ChatTemplate(format!("{count} messages are more than {MAX_MESSAGES}")));
        }
        let contents: Vec<&str> = messages.iter().map(|message| message.content.trim()).collect();
        let placeholders: Vec<String> = (FIRST_PLACEHOLDER..)
            .zip(&contents)
            // Templates ask whether there is a content, so an empty one must look empty.
            .map(|(letter, content)| if content.is_empty() { None } else { char::from_u32(letter) })
            .map(|letter| letter.map(String::from).unwrap_or_default())
            .collect();
        let rendered = self.render(messages, &placeholders, reply)?;

        let mut parts: Vec<(&str, Markup)> = Vec::new();
        let mut spoken: Vec<bool> = contents.iter().map(|content| content.is_empty()).collect();
        let mut rest = rendered.as_str();
        while let Some((at, letter, message)) = rest.char_indices().find_map(|(at, letter)| {
            let message = (letter as u32).checked_sub(FIRST_PLACEHOLDER)? as usize;
            (message < contents.len()).then_some((at, letter, message))
        }) {
            parts.push((&rest[..at], Markup::AsControl));
            parts.push((contents[message], Markup::AsText));
            spoken[message] = true;
            rest = &rest[at + letter.len_utf8()..];
        }
        parts.push((rest, Markup::AsControl));
        if let Some(lost) = spoken.iter().position(|spoken| !spoken) {
            let role = messages[lost].role.name();
            return Err(Error::ChatTemplate(format!(
                "the model's template leaves out message {} of {} (role {role}) (hint: does this model take such messages?)",
                lost + 1,
                messages.len()
            )));
        }
        let mut ids = tokenizer.encode_parts(&parts)?;
        if let Some(bos) = tokenizer.bos()
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    fn compile(source: &str, bos_token: &str, eos_token: &str) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        // As transformers configures Jinja.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(template_error)?;
        environment.set_syntax(syntax);
        environment.add_template_owned("chat", source.to_owned()).map_err(template_error)?;
        if let Some(letter) = source.chars().find(|&letter| letter as u32 >= FIRST_PLACEHOLDER) {
            return Err(Error::ChatTemplate(format!("it holds the private letter U+{:X}", letter as u32)));
        }
        Ok(Self { environment, bos_token: bos_token.to_owned(), eos_token: eos_token.to_owned() })
    }

    /// Renders the conversation with these contents in place of the messages' own.
    fn render(&self, messages: &[Message], contents: &[impl AsRef<str>], reply: bool) -> Result<String> {
        let messages: Vec<Value> = messages
            .iter()
            .zip(contents)
            .map(|(message, content)| context! { role => message.role.name(), content => content.as_ref() })
            .collect();
        let context = context! {
            messages => messages,
            add_generation_prompt => reply,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
        };
        self.environment.get_template("chat").and_then(|template| template.render(context)).map_err(template_error)
    }
}

fn template_error(error: minijinja::Error) -> Error {
    Error::ChatTemplate(error.to_string())
}

fn no_template(path: &Path) -> Error {
    Error::model_file(
        path,
        "it has no chat template and no <|im_start|> token (hint: a base model that was not trained for conversation? \
         use an instruct model)",
    )
}

fn raise_exception(message: &str) -> std::result::Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// A prompt must not change at midnight: a loaded game continues token for token, and a prefix read once stays read. So
/// "today" is the day Llama 3's template falls back to where there is no clock.
fn strftime_now(format: &str) -> std::result::Result<String, minijinja::Error> {
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
            'H' | 'M' | 'S' => "00",
            '%' => "%",
            other => {
                let message = format!("strftime_now does not know %{other}");
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
            }
        });
    }
    Ok(date)
}

/// A config's template: a text, or several by name, of which the one for conversation is called `default`.
fn in_config(chat_template: &Json) -> Option<&str> {
    let named = |entry: &&Json| entry["name"] == "default";
    chat_template.as_str().or_else(|| chat_template.as_array()?.iter().find(named)?["template"].as_str())
}

fn adds_chatml(tokenizer: &Json) -> bool {
    tokenizer["added_tokens"].as_array().is_some_and(|added| added.iter().any(|token| token["content"] == CHATML_START))
}

/// A file's JSON; null where there is no such file.
fn read_json(path: &Path) -> Result<Json> {
    match read(path)? {
        Some(json) => serde_json::from_str(&json).map_err(|error| Error::model_file(path, error.to_string())),
        None => Ok(Json::Null),
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, error)),
    }
}

#[cfg(test)]
mod tests;
