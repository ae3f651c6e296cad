//! What speech costs the frames, and whether a long run of talk leaks or stalls: `--bench frames`, `--bench chatter`.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use bevy::{
    app::SubApps,
    prelude::*,
    render::{
        render_resource::PollType,
        renderer::{RenderAdapterInfo, RenderDevice},
    },
};
use bevy_elenchus::prelude::*;
use clap::ValueEnum;

use crate::{args::Args, crowd::Character};

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bench {
    /// Alternates between silence and eight speaking characters; waits for every drawn frame; prints both and their
    /// ratio.
    Frames,
    /// Characters chat among themselves and with the player, nothing is drawn; prints replies, memory and the longest
    /// reply, minute by minute.
    Chatter,
}

/// The characters that speak in `frames`.
const SPEAKERS: usize = 8;
/// Warm-up: frames and replies settle before they are counted.
const SETTLE: Duration = Duration::from_secs(1);
const FRAME: Duration = Duration::from_micros(16_667);
const FRAME_GATE: f64 = 1.15;
const SPEED_GATE: f64 = 0.1;

/// The player says a line to a character this often, beside what they say to each other.
const ASKS: Duration = Duration::from_secs(15);
const QUESTIONS: [&str; 4] = [
    "And what, my friend, would you say that courage is?",
    "What is new in the market today?",
    "Who is the wisest man in Athens?",
    "Can you tell me the way to the harbour?",
];
const REPLIES_GATE: usize = 100;
const GROWTH_GATE: f64 = 5.0;

pub fn run(app: App, bench: Bench, args: &Args) {
    let game = Game::new(app);
    match bench {
        Bench::Frames => frames(game, Duration::from_secs(args.seconds.unwrap_or(10)), args.turns),
        Bench::Chatter => chatter(game, Duration::from_secs(args.seconds.unwrap_or(600))),
    }
}

fn frames(mut game: Game, span: Duration, turns: usize) {
    let info = game.world().resource::<RenderAdapterInfo>();
    println!("{} ({:?}), waiting for every frame", info.name, info.device_type);
    let (mut silent, mut speaking, mut ratios, mut speeds) = (vec![], vec![], vec![], vec![]);
    for turn in 1..=turns {
        let (idle, _) = game.measure(false, true, span);
        let (busy, speed) = game.measure(true, true, span);
        let (ratio, idle_median, busy_median) = (median(&busy) / median(&idle), median(&idle), median(&busy));
        println!(
            "  turn {turn}: {idle_median:6.1} ms a frame in silence, {busy_median:6.1} in speech, {speed:5.1} tokens/s"
        );
        ratios.push(ratio);
        speeds.push(speed);
        silent.extend(idle);
        speaking.extend(busy);
    }
    let (_, alone) = game.measure(true, false, span);
    for (name, frames) in [("silence", &silent), ("eight speak", &speaking)] {
        println!(
            "{name:<12} {:6.1} ms a frame (median), {:6.1} (95th percentile)",
            median(frames),
            quantile(frames, 0.95)
        );
    }
    let (ratio, speed) = (median(&ratios), median(&speeds));
    let (least, most) = (quantile(&ratios, 0.0), quantile(&ratios, 1.0));
    println!(
        "frames       {ratio:.3} x the silent ones (median of turns, {least:.2} to {most:.2}; gate {FRAME_GATE}: {})",
        met(ratio <= FRAME_GATE)
    );
    println!(
        "speech       {speed:.1} tokens/s, {:.2} of the {alone:.1} with nothing drawn (gate {SPEED_GATE}: {})",
        speed / alone,
        met(speed >= SPEED_GATE * alone)
    );
}

fn chatter(mut game: Game, span: Duration) {
    let begin = Instant::now();
    let (mut minute, mut asked, mut at_two, mut longest) = (0, 0, None, Duration::ZERO);
    while begin.elapsed() < span {
        let frame = game.frame(false);
        sleep(FRAME.saturating_sub(frame));
        longest = longest.max(game.longest_reply());
        if begin.elapsed() >= ASKS * asked {
            game.ask(asked as usize);
            asked += 1;
        }
        let elapsed = begin.elapsed().as_secs() / 60;
        if elapsed > minute {
            minute = elapsed;
            let memory = resident_mb();
            if minute == 2 {
                at_two = memory;
            }
            let tally = game.world().resource::<Tally>();
            println!(
                "minute {minute:2}: {:4} replies, {:3} failed, {} MB resident, the longest reply took {:.1} s",
                tally.finished,
                tally.failed,
                memory.map_or("?".into(), |mb| format!("{mb:.1}")),
                longest.as_secs_f32()
            );
        }
    }
    let tally = game.world().resource::<Tally>();
    let (finished, failed) = (tally.finished, tally.failed);
    let limit = game.longest_allowed();
    println!("replies      {finished} (gate {REPLIES_GATE} in ten minutes: {})", met(finished >= REPLIES_GATE));
    println!("failed       {failed} (gate 0: {})", met(failed == 0));
    println!(
        "longest      {:.1} s (gate: the longest limit of a character, {:.0} s: {})",
        longest.as_secs_f32(),
        limit.as_secs_f32(),
        met(longest <= limit)
    );
    if let (Some(before), Some(after)) = (at_two, resident_mb()) {
        let growth = after - before;
        println!("memory       {growth:+.1} MB since minute 2 (gate {GROWTH_GATE}: {})", met(growth <= GROWTH_GATE));
    }
}

/// The app without its runner: the bench drives the frames.
struct Game(SubApps);

/// How replies ended.
#[derive(Resource, Default)]
struct Tally {
    finished: usize,
    failed: usize,
}

/// When a reply began.
#[derive(Component)]
struct Since(Instant);

/// Whether the eight speak.
#[derive(Resource, Default)]
struct AllSpeak(bool);

impl Game {
    fn new(mut app: App) -> Self {
        app.init_resource::<Tally>()
            .init_resource::<AllSpeak>()
            .add_systems(Update, keep_talking)
            .add_observer(|_: On<ReplyFinished>, mut tally: ResMut<Tally>| tally.finished += 1)
            .add_observer(|_: On<ReplyFailed>, mut tally: ResMut<Tally>| tally.failed += 1)
            .add_observer(|added: On<Add, Speaking>, mut commands: Commands| {
                commands.entity(added.entity).insert(Since(Instant::now()));
            })
            .add_observer(|removed: On<Remove, Speaking>, mut commands: Commands| {
                commands.entity(removed.entity).try_remove::<Since>();
            });
        app.finish();
        app.cleanup();
        let mut game = Self(std::mem::take(app.sub_apps_mut()));
        game.wait_for_model();
        game
    }

    fn world(&self) -> &World {
        self.0.main.world()
    }

    fn world_mut(&mut self) -> &mut World {
        self.0.main.world_mut()
    }

    /// One frame, from the game's update to the last pixel.
    fn frame(&mut self, draw: bool) -> Duration {
        let begin = Instant::now();
        self.0.update();
        if draw {
            let wait = PollType::Wait { submission_index: None, timeout: None };
            self.world().resource::<RenderDevice>().wgpu_device().poll(wait).expect("the device answers");
        }
        begin.elapsed()
    }

    fn wait_for_model(&mut self) {
        loop {
            sleep(FRAME.saturating_sub(self.frame(false)));
            match self.world().resource::<EngineStatus>() {
                EngineStatus::Ready { .. } => return,
                EngineStatus::Failed { error } => panic!("{error}"),
                EngineStatus::Stopped | EngineStatus::Loading { .. } => {}
            }
        }
    }

    /// Frame times in milliseconds, and tokens a second.
    fn measure(&mut self, speak: bool, draw: bool, span: Duration) -> (Vec<f64>, f64) {
        self.world_mut().resource_mut::<AllSpeak>().0 = speak;
        let mut cameras = self.0.main.world_mut().query::<&mut Camera>();
        cameras.iter_mut(self.0.main.world_mut()).for_each(|mut camera| camera.is_active = draw);
        if !speak {
            self.hush();
        }
        self.run(draw, SETTLE);
        let tokens = |game: &Self| game.world().resource::<EngineStats>().reply_tokens;
        let (before, begin) = (tokens(self), Instant::now());
        let frames = self.run(draw, span);
        let speed = (tokens(self) - before) as f64 / begin.elapsed().as_secs_f64();
        (frames, speed)
    }

    fn run(&mut self, draw: bool, span: Duration) -> Vec<f64> {
        let begin = Instant::now();
        let mut frames = Vec::new();
        while begin.elapsed() < span {
            let frame = self.frame(draw);
            frames.push(frame.as_secs_f64() * 1e3);
            if !draw {
                sleep(FRAME.saturating_sub(frame));
            }
        }
        frames
    }

    /// Running replies are cancelled.
    fn hush(&mut self) {
        let world = self.world_mut();
        let mut speaking = world.query_filtered::<Entity, With<Speaking>>();
        let speaking: Vec<Entity> = speaking.iter(world).collect();
        for entity in speaking {
            world.entity_mut(entity).remove::<Speaking>();
        }
    }

    fn ask(&mut self, number: usize) {
        let world = self.world_mut();
        let mut npcs = world.query_filtered::<Entity, With<Character>>();
        let npcs: Vec<Entity> = npcs.iter(world).collect();
        if let Some(&npc) = npcs.get(number % npcs.len().max(1)) {
            world.trigger(Say::new(npc, crate::player::NAME, QUESTIONS[number % QUESTIONS.len()]));
        }
    }

    fn longest_reply(&mut self) -> Duration {
        let world = self.world_mut();
        let mut since = world.query::<&Since>();
        since.iter(world).map(|since| since.0.elapsed()).max().unwrap_or_default()
    }

    fn longest_allowed(&self) -> Duration {
        let characters = self.world().resource::<Assets<CharacterAsset>>();
        let limits = characters.iter().map(|(_, asset)| asset.character.stop.max_seconds);
        Duration::from_secs_f32(limits.fold(0.0, f32::max))
    }
}

/// Says the next line to each of the eight that is silent.
fn keep_talking(
    mut commands: Commands,
    all_speak: Res<AllSpeak>,
    characters: Query<(Entity, Has<Speaking>), With<Character>>,
) {
    for (npc, speaks) in characters.iter().take(SPEAKERS) {
        if all_speak.0 && !speaks {
            commands.trigger(Say::new(npc, crate::player::NAME, QUESTIONS[0]));
        }
    }
}

/// The process's memory, where the system reports it.
fn resident_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

fn median(numbers: &[f64]) -> f64 {
    quantile(numbers, 0.5)
}

fn quantile(numbers: &[f64], share: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}
