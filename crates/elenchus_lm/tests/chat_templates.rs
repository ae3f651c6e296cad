//! Renderings of chat templates, compared with Jinja2's.

mod common;

use std::{collections::BTreeMap, fs};

use common::shared;
use elenchus_lm::ChatTemplate;
use serde_json::value::RawValue;

#[derive(serde::Deserialize)]
struct Rendering {
    template: String,
    context: Option<String>,
    output: Option<String>,
    error: Option<String>,
}

#[test]
#[ignore = "needs ../shared"]
fn shared_templates_render_as_jinja2_renders_them() {
    let folder = shared().join("data/chat_templates");
    // Raw, because the order of keys is visible in some prompts.
    let contexts: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(&fs::read_to_string(folder.join("contexts.json")).unwrap()).unwrap();
    let rows = fs::read_to_string(folder.join("renderings.jsonl")).unwrap();
    let (mut right, mut wrong) = (0, Vec::new());
    // Its text is escaped for HTML there, because Jinja2's `safe` makes what is added to it so. We pass no tools.
    let left_out = "meetkai-functionary-medium-v3.1.jinja Some(\"tool_use\")";
    for row in rows.lines() {
        let row: Rendering = serde_json::from_str(row).unwrap();
        let name = format!("{} {:?}", row.template, row.context);
        let source = fs::read_to_string(folder.join("templates").join(&row.template)).unwrap();
        let rendered = |context: &str| {
            ChatTemplate::from_source(&source).and_then(|template| template.render_context(contexts[context].get()))
        };
        match (row.output, row.context) {
            (Some(expected), Some(context)) => match rendered(&context) {
                Ok(text) if text == expected => right += 1,
                Ok(_) if name == left_out => {}
                Ok(text) => wrong.push(format!("{name}\n--- expected\n{expected}\n--- rendered\n{text}")),
                Err(error) => wrong.push(format!("{name}: {error}")),
            },
            (None, Some(context)) => match rendered(&context) {
                Err(_) => right += 1,
                Ok(_) => println!("{name} renders; Jinja2: {:?}", row.error),
            },
            // Jinja2 does not know `generation` blocks.
            _ => match contexts.keys().filter(|name| *name != "tool_use").find_map(|name| rendered(name).err()) {
                None => right += 1,
                Some(error) => wrong.push(format!("{name}: {error}")),
            },
        }
    }
    assert!(wrong.is_empty(), "{right} right, {} wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}
