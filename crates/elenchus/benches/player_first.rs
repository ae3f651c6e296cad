//! How much later the player's first token comes while eight ambient replies are in progress.
//!
//! ```text
//! cargo bench -p elenchus --bench player_first [-- [--turns N] [--threads N]]
//! ```
//!
//! One engine, the default model, Socrates' persona. In each turn the player says a line to an engine that is idle, and then
//! one while eight ambient replies are decoded; a machine that gets slower slows both. The ratio is that of the medians.

mod engine;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use clap::Parser;
use elenchus_dialogue::{Character, Engine, EngineEvent, Priority, Request, RequestId, Turn};
use elenchus_lm::Rng;

use engine::EngineArgs;

const AMBIENT: u64 = 8;

#[derive(Debug, Parser)]
struct Args {
    /// The player's lines in either state
    #[arg(long, value_name = "N", default_value = "30")]
    turns: usize,
    #[command(flatten)]
    engine: EngineArgs,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (engine, player) = args.engine.start()?;
    let mut ambient = player.clone();
    // They talk for as long as they are needed.
    ambient.stop.max_sentences = 0;
    ambient.stop.max_tokens = 400;
    let mut stage = Stage { engine, player: Arc::new(player), ambient: Arc::new(ambient), next: 0, ended: Vec::new() };
    stage.first_token("Good day.")?;
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    for turn in 0..args.turns {
        // Lines of one length, each new.
        let line = |number: usize| format!("What is the {}th thing that you know?", 100 + number);
        idle.push(stage.first_token(&line(turn))?);
        let talk = (0..AMBIENT).map(|number| stage.begin_ambient(turn as u64, number)).collect::<Result<Vec<_>>>()?;
        stage.wait_for_words(&talk)?;
        busy.push(stage.first_token(&line(args.turns + turn))?);
        talk.iter().for_each(|&id| stage.engine.cancel(id));
        stage.wait_for_ends(talk)?;
    }
    let (idle, busy) = (median(&mut idle), median(&mut busy));
    println!("first token of the player's reply, median of {} lines", args.turns);
    println!("  idle engine                        {:6.1} ms", idle.as_secs_f64() * 1e3);
    println!("  {AMBIENT} ambient replies in progress      {:6.1} ms", busy.as_secs_f64() * 1e3);
    println!(
        "  ratio                              {:6.2}   (gate: at most 1.30)",
        busy.as_secs_f64() / idle.as_secs_f64()
    );
    Ok(())
}

struct Stage {
    engine: Engine,
    player: Arc<Character>,
    ambient: Arc<Character>,
    next: u64,
    /// Replies that are over.
    ended: Vec<RequestId>,
}

impl Stage {
    fn send(&mut self, request: Request) -> Result<RequestId> {
        let id = RequestId(self.next);
        self.next += 1;
        match self.engine.try_send(Request { id, ..request }) {
            Ok(()) => Ok(id),
            Err(_) => bail!("the engine took no request"),
        }
    }

    fn request(character: &Arc<Character>, text: &str) -> Request {
        Request::new(character.clone(), vec![Turn { speaker: "Stranger".to_owned(), text: text.to_owned() }])
    }

    fn begin_ambient(&mut self, turn: u64, number: u64) -> Result<RequestId> {
        let request = Request {
            priority: Priority::Ambient,
            rng: Rng::from_seed(turn * AMBIENT + number),
            ..Self::request(&self.ambient, &format!("Tell me a long story about ship number {number}."))
        };
        self.send(request)
    }

    /// From the engine's receipt of the player's line to its first token; waits for the reply.
    fn first_token(&mut self, text: &str) -> Result<Duration> {
        let id = self.send(Self::request(&self.player, text))?;
        loop {
            match self.engine.events().recv()? {
                EngineEvent::Finished(of, report) if of == id => return Ok(report.first_token),
                EngineEvent::Finished(of, _) => self.ended.push(of),
                EngineEvent::Failed(_, error) | EngineEvent::LoadFailed(error) => bail!("{error}"),
                _ => {}
            }
        }
    }

    fn wait_for_words(&mut self, of: &[RequestId]) -> Result<()> {
        let mut silent = of.to_vec();
        while !silent.is_empty() {
            match self.engine.events().recv()? {
                EngineEvent::Delta(id, _) => silent.retain(|of| *of != id),
                EngineEvent::Finished(id, _) => {
                    silent.retain(|of| *of != id);
                    self.ended.push(id);
                }
                EngineEvent::Failed(_, error) => bail!("{error}"),
                _ => {}
            }
        }
        Ok(())
    }

    fn wait_for_ends(&mut self, mut of: Vec<RequestId>) -> Result<()> {
        of.retain(|id| !self.ended.contains(id));
        while !of.is_empty() {
            match self.engine.events().recv()? {
                EngineEvent::Finished(id, _) | EngineEvent::Failed(id, _) => of.retain(|of| *of != id),
                _ => {}
            }
        }
        Ok(())
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
