//! Messages to token ids, by the template the model was trained with.
//!
//! A message's content is never read as markup. The template is rendered around placeholders; its own text is tokenised
//! with control tokens and the contents as plain text. A player who types `<|im_end|>` says just that.
//!
//! What a template does with roles and contents is found by rendering it once when it is loaded: some refuse or omit
//! system messages, some read contents as lists of parts.

use std::{fs, io, path::Path};

use minijinja::{Value, context, value::ValueKind};
use serde_json::Value as Json;

use self::jinja::Jinja;
use crate::{
    Error, Markup, Result, Tokenizer,
    gguf::{self, Gguf},
};

mod jinja;

/// What ChatML models without a template of their own were trained with.
const CHATML: &str = "\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}";
/// The key of a GGUF file's template for conversations; others are named after a dot.
const TEMPLATE: &str = "tokenizer.chat_template";
/// The token that marks ChatML in a vocabulary.
const CHATML_START: &str = "<|im_start|>";

/// Placeholders are letters of this private plane, one per message. Contents never pass through the template, so they
/// may contain such letters too.
const FIRST_PLACEHOLDER: u32 = 0xf_0000;
const MAX_MESSAGES: usize = 0xfffe;

/// The speaker's role in a message.
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
    jinja: Jinja,
    bos_token: String,
    eos_token: String,
    /// Contents are lists of parts, not texts.
    takes_parts: bool,
    /// System messages appear in the prompt.
    takes_system: bool,
    think_marks: Option<ThinkMarks>,
    origin: String,
}

/// The texts between which a model writes its thoughts, which are not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThinkMarks {
    /// Before the thoughts.
    pub open: &'static str,
    /// After them.
    pub close: &'static str,
    /// A prompt ends with the first mark, so a reply begins with thoughts and never contains it.
    pub opened_by_prompt: bool,
}

/// The marks of known models, each of which only its own templates contain.
const THINK_MARKS: [(&str, &str); 7] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
];

/// What a message looks like to the template: its role and its content.
type Turn = (Role, String);

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
        let (source, origin) = if gguf.get(TEMPLATE).is_some() {
            (gguf.str(TEMPLATE)?, TEMPLATE.to_owned())
        } else if tokens.contains(&CHATML_START.into()) {
            let keys = gguf.metadata().iter().map(|(key, _)| key.as_str());
            let named = keys.filter_map(|key| key.strip_prefix(TEMPLATE)?.strip_prefix('.'));
            (CHATML, chatml_origin(named.collect()))
        } else {
            return Err(no_template(gguf.path()));
        };
        let mut template = Self::compile(
            source,
            token("tokenizer.ggml.bos_token_id")?,
            token("tokenizer.ggml.eos_token_id")?,
            origin,
        )?;
        // A template need not contain the marks that a model writes itself.
        let in_vocabulary = || THINK_MARKS.iter().find(|(open, _)| tokens.contains(&(*open).into()));
        template.think_marks = template
            .think_marks
            .or_else(|| in_vocabulary().map(|&(open, close)| ThinkMarks { open, close, opened_by_prompt: false }));
        Ok(template)
    }

    /// From a Hugging Face folder's `chat_template.jinja`, `chat_template.json` or `tokenizer_config.json`. A folder
    /// without a template gets ChatML's if its `tokenizer.json` adds `<|im_start|>`.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let config = read_json(&folder.join("tokenizer_config.json"))?;
        let (source, origin) = match source_of_folder(folder)? {
            Some(found) => found,
            None if adds_chatml(&read_json(&folder.join("tokenizer.json"))?) => {
                let named = config["chat_template"].as_array().into_iter().flatten();
                (CHATML.to_owned(), chatml_origin(named.filter_map(|entry| entry["name"].as_str()).collect()))
            }
            None => return Err(no_template(folder)),
        };
        let token = |key: &str| config[key].as_str().or(config[key]["content"].as_str()).unwrap_or_default();
        Self::compile(&source, token("bos_token"), token("eos_token"), origin)
    }

    /// From a template's own text.
    pub fn from_source(source: &str) -> Result<Self> {
        Self::compile(source, "", "", "text".to_owned())
    }

    /// Where the template was found: a key or a file's name, or why it is ChatML's.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The marks around a model's thoughts, if its template or its vocabulary has any.
    pub fn think_marks(&self) -> Option<ThinkMarks> {
        self.think_marks
    }

    /// The ids of a conversation, begin token included where the model wants one; with `reply` they end where the
    /// assistant's next words begin.
    ///
    /// A template that refuses or omits system messages gets their text in front of the next user message. Thinking is
    /// switched off where the template has the switch `enable_thinking`.
    ///
    /// Fails if the template refuses the order of roles or leaves out a message: a persona must not be lost silently.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message], reply: bool) -> Result<Vec<u32>> {
        if messages.len() > MAX_MESSAGES {
            let count = messages.len();
            return Err(Error::ChatTemplate(format!("{count} messages are more than {MAX_MESSAGES}")));
        }
        let contents: Vec<&str> = messages.iter().map(|message| message.content.trim()).collect();
        let placeholders: Vec<String> = (FIRST_PLACEHOLDER..)
            .zip(&contents)
            // Templates test whether there is content, so an empty content must stay empty.
            .map(|(letter, content)| if content.is_empty() { None } else { char::from_u32(letter) })
            .map(|letter| letter.map(String::from).unwrap_or_default())
            .collect();
        let turns = messages.iter().zip(placeholders).map(|(message, content)| (message.role, content)).collect();
        let turns = if self.takes_system { turns } else { without_system(turns) };
        let rendered = self.render(&turns, reply)?;

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

    fn compile(source: &str, bos_token: &str, eos_token: &str, origin: String) -> Result<Self> {
        let jinja = Jinja::compile(source).map_err(template_error)?;
        if let Some(letter) = source.chars().find(|&letter| letter as u32 >= FIRST_PLACEHOLDER) {
            return Err(Error::ChatTemplate(format!("it holds the private letter U+{:X}", letter as u32)));
        }
        let mut template = Self {
            jinja,
            bos_token: bos_token.to_owned(),
            eos_token: eos_token.to_owned(),
            takes_parts: false,
            takes_system: true,
            think_marks: None,
            origin,
        };
        template.try_out(source);
        Ok(template)
    }

    /// Finds out what the template does with two messages. One that fails whatever it is given stays as it is: its
    /// error is reported with the first conversation.
    fn try_out(&mut self, source: &str) {
        let [system, user] = ["\u{F0000}", "\u{F0001}"].map(str::to_owned);
        let turns = [(Role::System, system), (Role::User, user)];
        let (both, line) = (&turns[..], &turns[1..]);
        // In this order: a template that takes texts may also take parts.
        let manners = [(false, true), (false, false), (true, true), (true, false)];
        for (takes_parts, takes_system) in manners {
            self.takes_parts = takes_parts;
            let tried = if takes_system { both } else { line };
            let Ok(prompt) = self.render(tried, true) else { continue };
            if tried.iter().all(|(_, content)| prompt.contains(content)) {
                self.takes_system = takes_system;
                self.think_marks = think_marks(source, &prompt);
                return;
            }
        }
        (self.takes_parts, self.takes_system) = (false, true);
    }

    /// Renders a conversation.
    fn render(&self, turns: &[Turn], reply: bool) -> Result<String> {
        let messages: Vec<Value> = turns
            .iter()
            .map(|(role, content)| {
                let content = match self.takes_parts {
                    false => Value::from(content.as_str()),
                    true => Value::from(vec![context! { type => "text", text => content.as_str() }]),
                };
                context! { role => role.name(), content => content }
            })
            .collect();
        let context = context! {
            messages => messages,
            add_generation_prompt => reply,
            enable_thinking => false,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
        };
        self.jinja.render(context).map_err(template_error)
    }

    /// Renders a context as it stands, without the promises of [`Self::encode`]: a JSON object with `messages` and
    /// whatever else the template reads. To compare renderings with other implementations.
    pub fn render_context(&self, context: &str) -> Result<String> {
        let value: Value = serde_json::from_str(context)
            .map_err(|error| Error::ChatTemplate(format!("the context is not JSON: {error}")))?;
        if value.kind() != ValueKind::Map {
            return Err(Error::ChatTemplate("the context should be a JSON object with `messages`".into()));
        }
        self.jinja.render(value).map_err(template_error)
    }
}

/// Puts each run of system messages in front of the user message after it, on lines of their own as llama.cpp does.
/// Without one it is a user message itself.
fn without_system(turns: Vec<Turn>) -> Vec<Turn> {
    let mut merged: Vec<Turn> = Vec::with_capacity(turns.len());
    // Whether the last merged turn is made of system messages alone.
    let mut open = false;
    for (role, content) in turns {
        match merged.last_mut() {
            Some((_, persona)) if open && role != Role::Assistant => {
                let between = if persona.is_empty() || content.is_empty() { "" } else { "\n" };
                *persona = format!("{persona}{between}{content}");
            }
            _ if role == Role::System => merged.push((Role::User, content)),
            _ => merged.push((role, content)),
        }
        open = role == Role::System;
    }
    merged
}

/// The marks that a template contains; `prompt` is one of its prompts.
fn think_marks(source: &str, prompt: &str) -> Option<ThinkMarks> {
    let &(open, close) = THINK_MARKS.iter().find(|(open, close)| source.contains(open) || source.contains(close))?;
    let opened_by_prompt = prompt.rfind(open).is_some_and(|at| !prompt[at..].contains(close));
    Some(ThinkMarks { open, close, opened_by_prompt })
}

/// Why a model without a template for conversations gets ChatML's.
fn chatml_origin(named: Vec<&str>) -> String {
    if named.is_empty() {
        return "ChatML, because there is no template but a <|im_start|> token".to_owned();
    }
    let named = named.join(", ");
    tracing::warn!("the model has chat templates for {named} and none for conversations: ChatML is used");
    format!("ChatML, because there are only templates for {named}")
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

/// A folder's own template and the file it stands in.
pub(crate) fn source_of_folder(folder: &Path) -> Result<Option<(String, String)>> {
    if let Some(source) = read(&folder.join("chat_template.jinja"))? {
        return Ok(Some((source, "chat_template.jinja".to_owned())));
    }
    for name in ["chat_template.json", "tokenizer_config.json"] {
        if let Some(source) = in_config(&read_json(&folder.join(name))?["chat_template"]) {
            return Ok(Some((source.to_owned(), name.to_owned())));
        }
    }
    Ok(None)
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
