//! A player's steps, one per line: for tests, for photographs, and to see the same thing twice.
//!
//! ```text
//! # Words after a number sign are comments.
//! wait model          # until the model is there; or `wait 2.5` seconds, `wait reply`, `wait words 12`
//! walk socrates       # walks up to a character, like a click on it
//! say What is courage?
//! wait reply
//! vote up             # or down: a vote on the newest reply
//! leave               # as Esc does
//! place 0.6 4.5       # the player stands there: x and z in metres
//! gaze 20 -8 4.6      # the camera's direction and height in degrees, its distance in metres
//! meet hermes socrates  # two characters walk up to each other and talk
//! overlay             # as F1 does
//! save                # as F5 does; `load` as F9
//! photo FILE          # what is on the screen now
//! ```

use std::{path::PathBuf, time::Duration};

use bevy::prelude::*;
use bevy_elenchus::prelude::*;

use crate::{
    crowd::Character,
    meetings::Meet,
    overlay::ToggleOverlay,
    player::{Errand, Gaze, NAME, Player},
    save::{LoadGame, SaveGame},
    screen::Photograph,
    talk::{EndTalk, PlayerLine, Talk},
    votes::{Opinion, Vote},
};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A parsed script.
#[derive(Clone, Debug, PartialEq)]
pub struct Script(pub Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    WaitModel,
    Wait(Duration),
    /// No reply to the player is pending.
    WaitReply,
    /// The reply has so many words, or is over.
    WaitWords(usize),
    /// Two or more characters talk among themselves.
    WaitChat,
    Walk(String),
    Say(String),
    Vote(Opinion),
    Leave,
    Place(Vec3),
    Gaze {
        yaw: f32,
        pitch: f32,
        distance: f32,
    },
    Meet(String, String),
    Overlay,
    Save,
    Load,
    Photo(PathBuf),
}

/// Progress in the script.
#[derive(Resource, Debug)]
pub struct Running {
    steps: Vec<Step>,
    next: usize,
    /// Since the step began.
    since: Duration,
    begun: bool,
}

impl Script {
    /// Reads a script, as an argument names it.
    ///
    /// # Errors
    /// The file cannot be read, or a line is no step: with its number and the valid steps.
    pub fn read(file: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        Self::parse(&text)
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let steps = text.lines().enumerate().filter_map(|(number, line)| {
            let line = line.split('#').next().unwrap_or_default().trim();
            let step = (!line.is_empty()).then(|| Step::parse(line))?;
            Some(step.map_err(|hint| format!("line {}: `{line}`: {hint}", number + 1)))
        });
        steps.collect::<Result<_, _>>().map(Self)
    }

    pub fn photographs(&self) -> bool {
        self.0.iter().any(|step| matches!(step, Step::Photo(_)))
    }
}

impl Step {
    fn parse(line: &str) -> Result<Self, String> {
        let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let words: Vec<&str> = rest.split_whitespace().collect();
        let number = |text: &str| text.parse::<f32>().map_err(|_| format!("`{text}` is no number"));
        let seconds = |text: &str| {
            Duration::try_from_secs_f32(number(text)?).map_err(|_| format!("`{text}` is no number of seconds"))
        };
        Ok(match (verb, words.as_slice()) {
            ("wait", ["model"]) => Self::WaitModel,
            ("wait", ["reply"]) => Self::WaitReply,
            ("wait", ["chat"]) => Self::WaitChat,
            ("wait", ["words", count]) => {
                Self::WaitWords(count.parse().map_err(|_| format!("`{count}` is no number of words"))?)
            }
            ("wait", [time]) => Self::Wait(seconds(time)?),
            ("walk", [name]) => Self::Walk((*name).into()),
            ("say", [_, ..]) => Self::Say(rest.into()),
            ("vote", ["up"]) => Self::Vote(Opinion::Up),
            ("vote", ["down"]) => Self::Vote(Opinion::Down),
            ("leave", []) => Self::Leave,
            ("place", [x, z]) => Self::Place(Vec3::new(number(x)?, 0.0, number(z)?)),
            ("gaze", [yaw, pitch, distance]) => Self::Gaze {
                yaw: -number(yaw)?.to_radians(),
                pitch: number(pitch)?.to_radians(),
                distance: number(distance)?,
            },
            ("meet", [one, other]) => Self::Meet((*one).into(), (*other).into()),
            ("overlay", []) => Self::Overlay,
            ("save", []) => Self::Save,
            ("load", []) => Self::Load,
            ("photo", [_, ..]) => Self::Photo(rest.into()),
            _ => return Err("no step (hint: `examples/agora/script.rs` lists them)".into()),
        })
    }
}

impl Running {
    pub fn new(script: Script) -> Self {
        Self { steps: script.0, next: 0, since: Duration::ZERO, begun: false }
    }

    pub fn is_over(&self) -> bool {
        self.next >= self.steps.len()
    }
}

pub fn script_plugin(app: &mut App) {
    app.add_systems(PreUpdate, act.after(ElenchusSystems::Send).run_if(resource_exists::<Running>))
        .add_observer(print_line)
        .add_observer(print_reply);
}

/// Without a window, prints the talk.
fn print_line(line: On<PlayerLine>, running: Option<Res<Running>>) {
    if running.is_some() {
        println!("{NAME} > {}", line.0);
    }
}

fn print_reply(
    finished: On<ReplyFinished>,
    running: Option<Res<Running>>,
    npcs: Query<&Npc>,
    characters: Res<Assets<CharacterAsset>>,
) {
    let name = npcs.get(finished.entity).ok().and_then(|npc| characters.get(&npc.character));
    if let (Some(_), Some(name)) = (running, name) {
        println!("{} > {}", name.character.name, finished.text);
    }
}

fn act(
    mut commands: Commands,
    time: Res<Time<Real>>,
    mut running: ResMut<Running>,
    status: Res<EngineStatus>,
    talk: Res<Talk>,
    mut gaze: ResMut<Gaze>,
    mut player: Single<(&mut Player, &mut Transform)>,
    characters: Query<(Entity, &Character)>,
    speaking: Query<&Speaking>,
) -> Result {
    let Some(step) = running.steps.get(running.next).cloned() else { return Ok(()) };
    let begins = !std::mem::replace(&mut running.begun, true);
    running.since = if begins { Duration::ZERO } else { running.since + time.delta() };
    let find = |name: &str| {
        let found = characters.iter().find(|(_, character)| character.folder == name);
        found.map(|(entity, _)| entity).ok_or_else(|| format!("script: there is no character `{name}` here"))
    };
    let reply = talk.with.and_then(|with| speaking.get(with).ok());
    let done = match &step {
        Step::WaitModel => match &*status {
            EngineStatus::Ready { .. } => true,
            EngineStatus::Failed { error } => return Err(format!("script: there is no model: {error}").into()),
            EngineStatus::Stopped | EngineStatus::Loading { .. } => false,
        },
        Step::Wait(time) => running.since >= *time,
        Step::WaitReply => !begins && reply.is_none(),
        Step::WaitWords(count) => {
            !begins && reply.is_none_or(|reply| reply.text().split_whitespace().count() >= *count)
        }
        Step::WaitChat => speaking.iter().any(|speaking| speaking.group().is_some() && !speaking.text().is_empty()),
        Step::Walk(name) => {
            let entity = find(name)?;
            if begins {
                player.0.errand = Some(Errand::Meet(entity));
            }
            talk.with == Some(entity)
        }
        Step::Say(text) => {
            if talk.with.is_none() {
                return Err(format!("script: `say {text}` outside a talk (hint: `walk NAME` first)").into());
            }
            commands.trigger(PlayerLine(text.clone()));
            true
        }
        Step::Vote(opinion) => {
            commands.trigger(Vote { opinion: *opinion, turn: None });
            true
        }
        Step::Leave => {
            commands.trigger(EndTalk);
            true
        }
        Step::Place(place) => {
            player.0.errand = None;
            player.1.translation = *place;
            true
        }
        Step::Gaze { yaw, pitch, distance } => {
            *gaze = Gaze { yaw: *yaw, pitch: *pitch, distance: *distance };
            player.1.rotation = Quat::from_rotation_y(*yaw);
            true
        }
        Step::Meet(one, other) => {
            commands.trigger(Meet { opener: find(one)?, other: find(other)? });
            true
        }
        Step::Overlay => {
            commands.trigger(ToggleOverlay);
            true
        }
        Step::Save => {
            commands.trigger(SaveGame);
            true
        }
        Step::Load => {
            commands.trigger(LoadGame);
            true
        }
        // The second time the text of this frame is laid out and drawn.
        Step::Photo(file) => {
            if begins {
                commands.trigger(Photograph(file.clone()));
            }
            !begins
        }
    };
    if done {
        running.next += 1;
        running.begun = false;
    } else if running.since > PATIENCE && !matches!(step, Step::Wait(_)) {
        return Err(format!("script: {step:?} has not happened within {} s", PATIENCE.as_secs()).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_step() {
        let check = |line: &str, expected: Step| assert_eq!(Script::parse(line), Ok(Script(vec![expected])), "{line}");
        check("wait model", Step::WaitModel);
        check("wait 2.5 # a little", Step::Wait(Duration::from_millis(2500)));
        check("wait reply", Step::WaitReply);
        check("wait words 12", Step::WaitWords(12));
        check("wait chat", Step::WaitChat);
        check("  walk socrates", Step::Walk("socrates".into()));
        check("say What is  courage?", Step::Say("What is  courage?".into()));
        check("vote up", Step::Vote(Opinion::Up));
        check("leave", Step::Leave);
        check("place 1 -2.5", Step::Place(Vec3::new(1.0, 0.0, -2.5)));
        check("gaze 0 0 4", Step::Gaze { yaw: 0.0, pitch: 0.0, distance: 4.0 });
        check("meet a b", Step::Meet("a".into(), "b".into()));
        check("photo a picture.png", Step::Photo("a picture.png".into()));
        assert_eq!(Script::parse("\n# nothing\n\n"), Ok(Script(vec![])));
    }

    #[test]
    fn an_invalid_step_is_reported_with_its_line() {
        for (text, says) in [
            ("leave\nsing", "line 2: `sing`: no step"),
            ("wait long", "line 1: `wait long`: `long` is no number"),
            ("wait -1", "`-1` is no number of seconds"),
            ("wait words many", "`many` is no number of words"),
            ("say", "no step"),
            ("place 1", "no step"),
        ] {
            let error = Script::parse(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
