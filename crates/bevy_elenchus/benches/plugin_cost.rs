//! What the plugin costs a frame: CPU time of the game's thread in the plugin's systems, its observers and the game's own,
//! `Say` included.
//!
//! ```text
//! cargo bench -p bevy_elenchus --bench plugin_cost [-- --base FILE] [--seconds N]
//! ```
//!
//! First eight NPCs stream at 60 frames a second; counted are the frames that delivered a delta. Then the engine is
//! stalled with its channel full and a hundred lines waiting, for 300 frames. Without `--base` a tiny random model speaks,
//! much faster than a real one: more events a frame, not fewer.

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use bevy::{asset::AssetTrackingSystems, ecs::schedule::SingleThreadedExecutor, prelude::*};
use bevy_elenchus::{load_model, prelude::*};
use common::{Game, SOCRATES, Setup, character, write};
use cpu_time::ThreadTime;

const FRAME: Duration = Duration::from_nanos(16_666_667);
const MEDIAN_GATE: f64 = 0.2;
const P99_GATE: f64 = 0.5;
const STALLED_GATE: f64 = 0.5;

/// The game thread's time in the plugin, this frame.
#[derive(Resource, Default)]
struct Meter {
    since: Duration,
    spent: Duration,
    deltas: usize,
    letters: usize,
    said: usize,
}

impl Meter {
    fn start(&mut self) {
        self.since = thread_time();
    }

    fn stop(&mut self) {
        self.spent += thread_time() - self.since;
    }
}

/// CPU time of this thread since its first look.
fn thread_time() -> Duration {
    thread_local!(static BEGIN: ThreadTime = ThreadTime::now());
    BEGIN.with(ThreadTime::elapsed)
}

/// A meter around the plugin's systems, which stay on the thread that is measured.
fn measure(game: &mut Game) {
    game.app
        .init_resource::<Meter>()
        .edit_schedule(PreUpdate, |schedule| {
            schedule.set_executor(SingleThreadedExecutor::new());
        })
        .add_systems(
            PreUpdate,
            (
                (|mut meter: ResMut<Meter>| meter.start()).after(AssetTrackingSystems).before(ElenchusSystems::Receive),
                (|mut meter: ResMut<Meter>| meter.stop()).after(ElenchusSystems::Send),
            ),
        )
        .add_observer(|delta: On<ReplyDelta>, mut meter: ResMut<Meter>| {
            meter.deltas += 1;
            meter.letters += delta.text.len();
        });
}

/// Says the next line to everyone who is silent.
fn keep_talking(world: &mut World) {
    let mut silent = world.query_filtered::<Entity, (With<Npc>, Without<Speaking>)>();
    let silent: Vec<Entity> = silent.iter(world).collect();
    world.resource_mut::<Meter>().start();
    for entity in &silent {
        world.trigger(Say::new(*entity, "Plato", "And what, my friend, would you say that courage is?"));
        world.flush();
    }
    let mut meter = world.resource_mut::<Meter>();
    meter.stop();
    meter.said += silent.len();
}

/// One frame; the plugin's milliseconds and the whole update's.
fn frame(game: &mut Game) -> (f64, f64) {
    let mut meter = game.app.world_mut().resource_mut::<Meter>();
    (meter.spent, meter.deltas) = (Duration::ZERO, 0);
    let begin = thread_time();
    game.app.update();
    let whole = thread_time() - begin;
    let plugin = game.app.world().resource::<Meter>().spent;
    (plugin.as_secs_f64() * 1e3, whole.as_secs_f64() * 1e3)
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

fn report(name: &str, value: f64, gate: f64) {
    println!("  {name:<28} {value:.4} ms   (gate {gate} ms: {})", if value < gate { "met" } else { "MISSED" });
}

fn start(base: Option<&PathBuf>, request_capacity: usize) -> Game {
    let mut setup = Setup::default();
    setup.engine.request_capacity = request_capacity;
    setup.engine.base = base.cloned();
    setup.loader = base.map(|_| load_model(&setup.engine));
    let mut game = setup.start();
    write(game.folder.path().join("adapters/socrates/character.toml"), character("Socrates", 160));
    measure(&mut game);
    game.run_until_ready();
    game
}

fn streaming(base: Option<&PathBuf>, seconds: usize) {
    let mut game = start(base, 64);
    for _ in 0..8 {
        game.spawn(SOCRATES);
    }
    game.app.add_systems(First, keep_talking);
    game.update(30);
    let (mut costs, mut wholes, mut deltas) = (Vec::new(), Vec::new(), 0);
    let begin = Instant::now();
    for number in 1..=(seconds * 60) as u32 {
        let (plugin, whole) = frame(&mut game);
        let in_frame = game.app.world().resource::<Meter>().deltas;
        if in_frame > 0 {
            costs.push(plugin);
            wholes.push(whole);
            deltas += in_frame;
        }
        sleep((FRAME * number).saturating_sub(begin.elapsed()));
    }
    let meter = game.app.world().resource::<Meter>();
    println!(
        "8 NPCs at 60 Hz for {seconds} s: {} frames with a delta, {deltas} deltas, {} bytes of text, {} lines said",
        costs.len(),
        meter.letters,
        meter.said
    );
    if costs.is_empty() {
        println!("  nobody spoke: give it more --seconds");
        return;
    }
    costs.sort_by(f64::total_cmp);
    wholes.sort_by(f64::total_cmp);
    report("plugin, median", percentile(&costs, 0.5), MEDIAN_GATE);
    report("plugin, 99th percentile", percentile(&costs, 0.99), P99_GATE);
    println!("  whole update, median         {:.4} ms", percentile(&wholes, 0.5));
}

fn stalled() {
    let mut game = start(None, 64);
    let first = game.spawn(SOCRATES);
    game.say_and_stop_midway(first, "What is courage?");
    let npcs: Vec<Entity> = (0..164).map(|_| game.spawn(SOCRATES)).collect();
    for &npc in &npcs {
        game.say(npc, "What is courage?");
    }
    let mut costs: Vec<(f64, f64)> = (0..300)
        .map(|_| {
            let cost = frame(&mut game);
            sleep(FRAME);
            cost
        })
        .collect();
    costs.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!("engine stalled for 300 frames, 164 lines said, channel of 64 full");
    report("plugin, most", costs[299].0, STALLED_GATE);
    println!("  whole update, most           {:.4} ms", costs.iter().map(|cost| cost.1).fold(0.0, f64::max));
    game.valve.open();
    game.run_until("every line has its outcome", |game| npcs.iter().all(|&npc| game.outcomes(npc).len() == 1));
    println!("  all 164 lines were answered once the engine went on");
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (mut base, mut seconds) = (None, 10);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--base" => base = args.next().map(PathBuf::from),
            "--seconds" => seconds = args.next().and_then(|n| n.parse().ok()).expect("--seconds N"),
            // Cargo's own.
            "--bench" => {}
            other => panic!("unknown argument {other} (hint: --base FILE, --seconds N)"),
        }
    }
    streaming(base.as_ref(), seconds);
    stalled();
}
