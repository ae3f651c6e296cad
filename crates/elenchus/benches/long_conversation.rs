//! What a reply costs in a conversation of 1,000 turns, beside one in a conversation of 50.
//!
//! ```text
//! cargo bench -p elenchus --bench long_conversation [-- [--replies N] [--threads N]]
//! ```
//!
//! One engine, the default model, Socrates' persona. Both conversations are longer than the context, so that both prompts are
//! cut. Replies alternate between them; each is cut to a few tokens, so that its time is that of its prompt: the request's
//! clone of the turns, the cut, the tokens that are new. The ratio is that of the medians.

mod engine;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Parser;
use elenchus_dialogue::{Character, Conversation, Engine, EngineEvent, Request, RequestId};

use engine::EngineArgs;

const TURNS: [usize; 2] = [50, 1000];

#[derive(Debug, Parser)]
struct Args {
    /// Replies in either conversation
    #[arg(long, value_name = "N", default_value = "40")]
    replies: usize,
    #[command(flatten)]
    engine: EngineArgs,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (engine, character) = args.engine.start()?;
    let character = Arc::new(character);
    let mut conversations = TURNS.map(|turns| conversation(&character, turns));
    let mut times = [Vec::new(), Vec::new()];
    for reply in 0..2 + args.replies {
        for (conversation, times) in conversations.iter_mut().zip(&mut times) {
            conversation.push("Stranger", format!("And what is the {reply}th thing that we have not spoken of yet?"));
            let time = answer(&engine, &character, conversation, reply as u64)?;
            // The first replies read the whole prompt.
            if reply >= 2 {
                times.push(time);
            }
        }
    }
    println!("a reply of four tokens, median and 90th percentile of {} replies", args.replies);
    let medians = times.map(|mut times| {
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() * 9 / 10])
    });
    for (turns, (median, tail)) in TURNS.iter().zip(medians) {
        println!("  {turns:5} turns   {:7.2} ms   {:7.2} ms", median.as_secs_f64() * 1e3, tail.as_secs_f64() * 1e3);
    }
    println!("  ratio         {:7.2}", medians[1].0.as_secs_f64() / medians[0].0.as_secs_f64());
    Ok(())
}

/// Lines of about 60 tokens, so that 50 of them exceed the context.
fn conversation(character: &Character, turns: usize) -> Conversation {
    let mut conversation = Conversation::from_seed(7);
    for turn in 0..turns {
        let speaker = if turn % 2 == 0 { "Stranger" } else { &character.name };
        let text = format!(
            "This is what was said as the {turn}th thing of a long day on the market, when the sun stood high above the \
             stalls, the fish had begun to smell, and nobody could remember any more who had asked what, or why, or whether \
             anything had ever been answered."
        );
        conversation.push(speaker, text);
    }
    conversation
}

/// From the request to its end; the reply enters the conversation.
fn answer(
    engine: &Engine,
    character: &Arc<Character>,
    conversation: &mut Conversation,
    reply: u64,
) -> Result<Duration> {
    let began = Instant::now();
    let id = RequestId(reply);
    let request = Request {
        id,
        rng: conversation.rng.clone(),
        max_tokens: Some(4),
        ..Request::new(character.clone(), conversation.turns.clone())
    };
    if engine.try_send(request).is_err() {
        bail!("the engine took no request");
    }
    loop {
        match engine.events().recv()? {
            EngineEvent::Finished(of, _) if of == id => break,
            EngineEvent::Failed(_, error) | EngineEvent::LoadFailed(error) => bail!("{error}"),
            _ => {}
        }
    }
    let time = began.elapsed();
    conversation
        .push(&character.name, "I do not know, and you have asked me so often that I begin to wonder who does.");
    Ok(time)
}
