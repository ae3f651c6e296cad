//! Conversation groups: one test per row of their table in `docs/plugin-guide.md`, in its order.

mod common;

use std::{sync::atomic::Ordering, thread::sleep, time::Duration};

use bevy::{prelude::*, time::TimeUpdateStrategy};
use bevy_elenchus::prelude::*;
use common::{Game, Heard, SOCRATES, Setup, character, failed, finished, settings, write};

/// The game's time moves on by this with every frame.
const FRAME: Duration = Duration::from_millis(10);

const OPENING: (&str, &str) = ("Hippias", "What is courage?");

#[derive(Resource, Default)]
struct Groups {
    overheard: Vec<Overheard>,
    silent: Vec<(Entity, SilenceReason)>,
}

fn start(setup: Setup) -> Game {
    let mut game = setup.start();
    prepare(&mut game);
    game
}

fn prepare(game: &mut Game) {
    for name in ["Hippias", "Hermes"] {
        let file = format!("adapters/{}/character.toml", name.to_lowercase());
        write(game.folder.path().join(file), character(name, 24));
    }
    game.app
        .insert_resource(TimeUpdateStrategy::ManualDuration(FRAME))
        .init_resource::<Groups>()
        .add_observer(|e: On<Overheard>, mut groups: ResMut<Groups>| groups.overheard.push(e.event().clone()))
        .add_observer(|e: On<GroupSilent>, mut groups: ResMut<Groups>| groups.silent.push((e.entity, e.reason)));
}

/// The group of most tests: three lines, little silence.
fn group() -> ConversationGroup {
    ConversationGroup {
        pause: 2 * FRAME,
        quiet: 20 * FRAME,
        max_turns: Some(3),
        ..ConversationGroup::new(OPENING.0, OPENING.1)
    }
}

fn spawn(game: &mut Game, name: &str) -> Entity {
    game.spawn(&format!("adapters://{}/character.toml", name.to_lowercase()))
}

/// Hippias and Socrates, who will answer Hippias.
fn two(game: &mut Game, group: ConversationGroup) -> (Entity, [Entity; 2]) {
    let members = [spawn(game, "Hippias"), game.spawn(SOCRATES)];
    (assemble(game, group, &members), members)
}

/// Hippias, Socrates and Hermes.
fn three(game: &mut Game, group: ConversationGroup) -> (Entity, [Entity; 3]) {
    let members = [spawn(game, "Hippias"), game.spawn(SOCRATES), spawn(game, "Hermes")];
    (assemble(game, group, &members), members)
}

fn assemble(game: &mut Game, group: ConversationGroup, members: &[Entity]) -> Entity {
    game.app.world_mut().spawn(group).add_related::<MemberOf>(members).id()
}

fn state(game: &Game, group: Entity) -> &ConversationGroup {
    game.app.world().get(group).unwrap()
}

fn silent(game: &Game) -> &[(Entity, SilenceReason)] {
    &game.app.world().resource::<Groups>().silent
}

fn overheard(game: &Game, listener: Entity) -> Vec<(String, String)> {
    let overheard = game.app.world().resource::<Groups>().overheard.iter();
    overheard.filter(|line| line.entity == listener).map(|line| turn(&line.name, &line.text)).collect()
}

fn run_until_silent(game: &mut Game, group: Entity) -> SilenceReason {
    let of = |game: &Game| silent(game).iter().rev().find(|(entity, _)| *entity == group).map(|(_, reason)| *reason);
    game.run_until("the group is silent", |game| of(game).is_some());
    of(game).unwrap()
}

fn turn(speaker: &str, text: impl Into<String>) -> (String, String) {
    (speaker.into(), text.into())
}

fn opening() -> (String, String) {
    turn(OPENING.0, OPENING.1)
}

fn speakers(turns: &[(String, String)]) -> Vec<&str> {
    turns.iter().map(|(speaker, _)| speaker.as_str()).collect()
}

fn text(outcome: &Heard) -> &str {
    finished(outcome).0
}

#[test]
fn two_answer_each_other_in_turn() {
    let mut game = start(Setup::default());
    let (group, members) = two(&mut game, group());
    game.run_until("silence", |game| {
        let speaking = members.iter().filter(|&&member| game.is_speaking(member)).count();
        assert!(speaking <= 1, "one at a time");
        !silent(game).is_empty()
    });
    let [hippias, socrates] = members.map(|member| game.outcomes(member));
    assert_eq!((hippias.len(), socrates.len()), (1, 2), "every turn has its outcome");
    let lines = [
        opening(),
        turn("Socrates", text(&socrates[0])),
        turn("Hippias", text(&hippias[0])),
        turn("Socrates", text(&socrates[1])),
    ];
    assert!(lines.iter().all(|(_, text)| !text.is_empty()));
    assert_eq!(game.turns(members[0]), lines);
    assert_eq!(game.turns(members[1]), lines);
    let state = state(&game, group);
    assert_eq!((state.speaker.as_str(), &state.line), ("Socrates", &lines[3].1));
    assert_eq!((state.turns, state.tokens), (3, 3 * 48));
}

#[test]
fn of_three_everybody_hears_everybody() {
    let mut game = start(Setup::default());
    let (group, members) = three(&mut game, ConversationGroup { max_turns: Some(4), ..group() });
    assert_eq!(run_until_silent(&mut game, group), SilenceReason::Turns);
    let turns = game.turns(members[0]);
    assert_eq!(speakers(&turns), ["Hippias", "Socrates", "Hermes", "Hippias", "Socrates"]);
    assert_eq!(game.turns(members[1]), turns);
    assert_eq!(game.turns(members[2]), turns);
}

#[test]
fn an_opening_by_nobody_in_the_group_is_answered_by_the_first() {
    let mut game = start(Setup::default());
    let (group, members) = two(&mut game, ConversationGroup { speaker: "A herald".into(), ..group() });
    run_until_silent(&mut game, group);
    assert_eq!(speakers(&game.turns(members[1])), ["A herald", "Hippias", "Socrates", "Hippias"]);
}

#[test]
fn each_turn_comes_after_a_pause_of_the_games_time() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    let pause = ConversationGroup { pause: 30 * FRAME, reply_tokens: Some(2), ..group() };
    let (_, [hippias, socrates]) = two(&mut game, pause);
    game.app.world_mut().resource_mut::<Time<Virtual>>().pause();
    game.update(60);
    assert!(!game.is_speaking(socrates), "in a paused game nobody speaks");
    game.app.world_mut().resource_mut::<Time<Virtual>>().unpause();
    game.run_until("the first turn", |game| game.is_speaking(socrates));
    // Time for a reply that begins and ends within a frame.
    sleep(Duration::from_millis(300));
    game.run_until_outcomes(socrates, 1);
    game.update(25);
    assert!(!game.is_speaking(hippias) && game.log(hippias).is_empty());
    game.update(10);
    assert!(game.is_speaking(hippias) || !game.log(hippias).is_empty());
}

#[test]
fn the_game_may_give_the_turn() {
    let mut game = start(Setup::default());
    let (group, members) = three(&mut game, group());
    let [_, _, hermes] = members;
    game.trigger(GiveTurn { entity: group, member: hermes });
    game.run_until_outcomes(hermes, 1);
    game.trigger(GiveTurn { entity: group, member: hermes });
    run_until_silent(&mut game, group);
    let turns = game.turns(hermes);
    assert_eq!(speakers(&turns), ["Hippias", "Hermes", "Hippias", "Socrates"], "nobody answers himself");
}

#[test]
fn a_budget_of_tokens_ends_between_two_lines() {
    let mut game = start(Setup::default());
    let budget = ConversationGroup { max_turns: None, max_tokens: Some(40), reply_tokens: Some(10), ..group() };
    let (group, members) = two(&mut game, budget);
    assert_eq!(run_until_silent(&mut game, group), SilenceReason::Tokens);
    assert_eq!((state(&game, group).turns, state(&game, group).tokens), (2, 2 * 34));
    game.update(50);
    assert_eq!(silent(&game).len(), 1, "told once");
    assert_eq!(game.outcomes(members[0]).len() + game.outcomes(members[1]).len(), 2);
}

#[test]
fn a_silent_group_goes_on_with_more_or_begins_anew() {
    let mut game = start(Setup::default());
    let (group, members) = two(&mut game, ConversationGroup { max_turns: Some(1), ..group() });
    run_until_silent(&mut game, group);
    game.app.world_mut().get_mut::<ConversationGroup>(group).unwrap().pause = FRAME;
    game.update(30);
    assert_eq!(silent(&game).len(), 1, "it was silent for that reason already");
    // Also if somebody is spoken to at that moment.
    game.say(members[0], "A word with you.");
    game.app.world_mut().get_mut::<ConversationGroup>(group).unwrap().max_turns = Some(2);
    game.run_until("silence", |game| silent(game).len() == 2);
    assert_eq!(
        speakers(&game.turns(members[0])),
        ["Hippias", "Socrates", "Plato", "Hippias", "Socrates", "Hippias"],
        "the line, the player's talk, the line again, its answer"
    );

    let anew = ConversationGroup { line: "What is a shield?".into(), max_turns: Some(1), ..self::group() };
    game.app.world_mut().entity_mut(group).insert(anew);
    game.run_until("silence", |game| silent(game).len() == 3);
    let turns = game.turns(members[1]);
    assert_eq!(turns[3], turn("Hippias", "What is a shield?"));
    assert_eq!(speakers(&turns[4..]), ["Socrates"]);
}

#[test]
fn listeners_within_earshot_overhear() {
    #[derive(Component)]
    struct Far;
    let mut game = start(Setup::default());
    game.app.insert_resource(Earshot::new(|world, _, listener| world.get::<Far>(listener).is_none()));
    let world = game.app.world_mut();
    let player = world.spawn(Listener).id();
    let far = world.spawn((Listener, Far)).id();
    let (group, members) = two(&mut game, group());
    let hermes = spawn(&mut game, "Hermes");
    game.app.world_mut().entity_mut(hermes).insert(Listener);
    let namesake = game.spawn(SOCRATES);
    game.app.world_mut().entity_mut(namesake).insert(Listener);
    game.app.world_mut().entity_mut(members[0]).insert(Listener);
    run_until_silent(&mut game, group);
    let said = game.turns(members[0])[1..].to_vec();
    assert_eq!(overheard(&game, player), said);
    assert_eq!(overheard(&game, hermes), said);
    assert_eq!(game.turns(hermes), said, "a bystander remembers it");
    assert!(game.log(hermes).is_empty(), "and does not answer");
    let remembers = game.app.world().get::<Conversation>(hermes).unwrap();
    assert!(remembers.character.is_some(), "a save game says who it is");
    assert_eq!(game.turns(namesake), said[1..2], "another Socrates would take what Socrates says for his own");
    assert!(overheard(&game, far).is_empty());
    assert!(overheard(&game, members[0]).is_empty(), "members talk, they do not overhear");
    let speaker = game.app.world().resource::<Groups>().overheard[0].speaker;
    assert_eq!(speaker, members[1]);
}

#[test]
fn what_is_heard_while_speaking_stands_behind_the_reply() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    let npc = game.spawn(SOCRATES);
    game.trigger(Hear::new(npc, "Hermes", "Make way!"));
    game.say_and_stop_midway(npc, "one");
    game.say(npc, "two");
    game.trigger(Hear::new(npc, "Hermes", "Zeus is calling."));
    game.valve.open();
    let outcomes = game.run_until_outcomes(npc, 2);
    assert_eq!(
        game.turns(npc),
        [
            turn("Hermes", "Make way!"),
            turn("Plato", "one"),
            turn("Socrates", text(&outcomes[0])),
            turn("Hermes", "Zeus is calling."),
            turn("Plato", "two"),
            turn("Socrates", text(&outcomes[1])),
        ]
    );
    game.trigger(Hear::new(npc, "Hermes", " "));
    let stone = game.app.world_mut().spawn_empty().id();
    game.trigger(Hear::new(stone, "Hermes", "Make way!"));
    assert_eq!(game.turns(npc).len(), 6);
}

#[test]
fn the_player_speaks_and_the_group_is_quiet() {
    // The group yields also where the game refuses lines to who is speaking.
    let settings = ElenchusSettings { while_speaking: WhileSpeaking::Refuse, ..settings() };
    let mut game = start(Setup { settings, ..default() });
    game.run_until_ready();
    game.valve.allow(10);
    let (group, [hippias, socrates]) = two(&mut game, group());
    let so_far = game.run_until_midway(socrates);
    assert_eq!(game.app.world().get::<Speaking>(socrates).unwrap().group(), Some(group));
    game.say(socrates, "A word with you.");
    assert_eq!(finished(&game.outcomes(socrates)[0]), (so_far.as_str(), StopReason::Cancelled), "at once");
    assert_eq!(game.app.world().get::<Speaking>(socrates).unwrap().group(), None, "he answers the player");
    game.valve.open();
    let answer = text(&game.run_until_outcomes(socrates, 2)[1]).to_owned();
    game.update(10);
    assert!(!game.is_speaking(hippias), "not yet");
    run_until_silent(&mut game, group);
    assert_eq!(
        game.turns(socrates)[..4],
        [opening(), turn("Socrates", &so_far), turn("Plato", "A word with you."), turn("Socrates", answer)]
    );
    assert_eq!(speakers(&game.turns(socrates)[4..]), ["Hippias", "Socrates"]);
    let turns = game.turns(hippias);
    assert_eq!(turns[1], turn("Socrates", so_far), "what was heard of it is what Hippias answers");
    assert_eq!(speakers(&turns), ["Hippias", "Socrates", "Hippias", "Socrates"], "the player's talk was not theirs");
}

#[test]
fn the_player_speaks_before_the_answer_and_the_line_is_heard_again() {
    let mut game = start(Setup::default());
    let (group, [hippias, socrates]) = two(&mut game, ConversationGroup { pause: 20 * FRAME, ..group() });
    game.run_until_outcomes(socrates, 1);
    let line = game.turns(hippias)[1].clone();
    game.say(hippias, "A word with you.");
    run_until_silent(&mut game, group);
    let turns = game.turns(hippias);
    assert_eq!(turns[1], line);
    assert_eq!(speakers(&turns[2..4]), ["Plato", "Hippias"]);
    assert_eq!(turns[4], line, "it is this line that he answers, not his own");
    assert_eq!(speakers(&turns[5..]), ["Hippias", "Socrates"]);
}

#[test]
fn the_game_may_interrupt() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    game.valve.allow(10);
    let (group, [hippias, socrates]) = two(&mut game, group());
    let so_far = game.run_until_midway(socrates);
    game.trigger(Interrupt { entity: group });
    assert_eq!(finished(&game.outcomes(socrates)[0]), (so_far.as_str(), StopReason::Cancelled));
    game.valve.open();
    game.update(15);
    game.trigger(Interrupt { entity: group });
    game.update(15);
    assert!(!game.is_speaking(hippias), "each one counts from the last");
    game.update(10);
    assert!(game.is_speaking(hippias) || !game.log(hippias).is_empty());
    game.run_until_outcomes(hippias, 1);
    game.update(10);
    assert!(game.is_speaking(socrates) || game.outcomes(socrates).len() > 1, "after that the pause is short again");
}

#[test]
fn other_talk_with_a_member_is_waited_for() {
    let mut game = start(Setup::default());
    let (_, [hippias, socrates]) = two(&mut game, group());
    game.run_until_outcomes(socrates, 1);
    game.valve.allow(10);
    game.trigger(Say::new(hippias, "Hermes", "Make way!").ambient());
    game.run_until_midway(hippias);
    game.valve.open();
    game.run_until_outcomes(hippias, 1);
    game.update(10);
    assert!(!game.is_speaking(hippias) && game.outcomes(hippias).len() == 1);
    game.update(15);
    assert!(game.is_speaking(hippias) || game.outcomes(hippias).len() > 1);
}

#[test]
fn the_players_talk_elsewhere_goes_first() {
    let mut setup = Setup::default();
    setup.engine.max_sequences = 1;
    let mut game = start(setup);
    game.run_until_ready();
    let [first, second] = [spawn(&mut game, "Hermes"), spawn(&mut game, "Hermes")];
    game.say_and_stop_midway(first, "one");
    let (_, [_, socrates]) = two(&mut game, group());
    game.run_until("Socrates has the turn", |game| game.is_speaking(socrates));
    game.update(20);
    game.say(second, "one");
    game.valve.open();
    game.run_until_outcomes(socrates, 1);
    let log = &game.app.world().resource::<common::Log>().0;
    let ended = |npc| log.iter().position(|(e, heard)| *e == npc && matches!(heard, Heard::Finished { .. })).unwrap();
    assert!(ended(second) < ended(socrates), "who was asked later by the player is answered sooner");
}

#[test]
fn a_group_waits_for_the_model() {
    let mut game = start(Setup { failing_loads: 1, closed: true, ..default() });
    let (group, [hippias, socrates]) = two(&mut game, group());
    game.run_until("the load fails", |game| {
        matches!(game.app.world().resource::<EngineStatus>(), EngineStatus::Failed { .. })
    });
    game.trigger(RetryLoad);
    game.update(50);
    assert!(matches!(game.app.world().resource::<EngineStatus>(), EngineStatus::Loading { .. }));
    assert!(game.log(hippias).is_empty() && game.log(socrates).is_empty(), "no fallback lines among themselves");
    game.valve.open();
    assert_eq!(run_until_silent(&mut game, group), SilenceReason::Turns);
}

#[test]
fn who_fails_to_answer_is_passed_over_and_not_heard() {
    let mut game = start(Setup::default());
    // Socrates' voice is broken.
    write(game.folder.path().join("adapters/socrates/adapter_config.json"), "{ \"r\": ");
    write(game.folder.path().join("adapters/socrates/adapter_model.safetensors"), "half of it");
    let (group, [hippias, socrates, hermes]) = three(&mut game, group());
    assert_eq!(run_until_silent(&mut game, group), SilenceReason::Turns);
    let outcomes = game.outcomes(socrates);
    assert_eq!(outcomes.len(), 2, "each line is his to fail at");
    outcomes.iter().for_each(|outcome| assert!(failed(outcome).0.contains("adapter")));
    let turns = game.turns(hippias);
    assert_eq!(speakers(&turns), ["Hippias", "Hermes", "Hippias", "Hermes"]);
    assert_eq!(game.turns(hermes), turns);
    assert_eq!(game.turns(socrates), turns, "he hears the others all the same");
}

#[test]
fn when_nobody_can_answer_the_group_is_silent() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    game.valve.burst.store(true, Ordering::SeqCst);
    let (group, [hippias, socrates]) = two(&mut game, group());
    assert_eq!(run_until_silent(&mut game, group), SilenceReason::NoAnswer);
    failed(&game.outcomes(socrates)[0]);
    assert!(game.log(hippias).is_empty());
    assert_eq!(state(&game, group).turns, 0);

    // The player finds words, and so do they.
    game.valve.burst.store(false, Ordering::SeqCst);
    game.say(hippias, "What is it?");
    game.run_until("they go on", |game| silent(game).len() == 2);
    assert_eq!(silent(&game)[1], (group, SilenceReason::Turns));

    // Nothing to answer, and nobody but namesakes of who said it.
    let (empty, members) = two(&mut game, ConversationGroup::default());
    assert_eq!(run_until_silent(&mut game, empty), SilenceReason::NoAnswer);
    let namesakes = [spawn(&mut game, "Hippias"), spawn(&mut game, "Hippias")];
    let alone = assemble(&mut game, self::group(), &namesakes);
    assert_eq!(run_until_silent(&mut game, alone), SilenceReason::NoAnswer);
    assert!(members.iter().chain(&namesakes).all(|&member| game.log(member).is_empty()));
}

#[test]
fn a_cancelled_turn_is_heard_as_far_as_it_came() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    game.valve.allow(10);
    let (group, [hippias, socrates]) = two(&mut game, group());
    let so_far = game.run_until_midway(socrates);
    game.app.world_mut().entity_mut(socrates).remove::<Speaking>();
    assert_eq!(game.turns(hippias), [opening(), turn("Socrates", so_far)]);
    // Before a word, it is as if it had not been given.
    game.run_until("Hippias has the turn", |game| game.is_speaking(hippias));
    game.app.world_mut().entity_mut(hippias).remove::<Speaking>();
    assert_eq!(state(&game, group).turns, 1);
    game.valve.open();
    run_until_silent(&mut game, group);
    let turns = game.turns(hippias);
    assert_eq!(speakers(&turns), ["Hippias", "Socrates", "Hippias", "Socrates"]);
    assert_eq!(game.turns(socrates), turns);
}

#[test]
fn a_member_is_despawned_in_mid_turn_and_the_others_go_on() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    game.valve.allow(10);
    let (group, [hippias, socrates, hermes]) = three(&mut game, ConversationGroup { max_turns: Some(2), ..group() });
    game.run_until_midway(socrates);
    game.app.world_mut().despawn(socrates);
    game.valve.open();
    run_until_silent(&mut game, group);
    assert_eq!(speakers(&game.turns(hermes)), ["Hippias", "Hermes", "Hippias"]);
    assert_eq!(game.turns(hippias), game.turns(hermes));
}

#[test]
fn one_alone_waits_for_company() {
    let mut game = start(Setup::default());
    let (group, [hippias, socrates]) = two(&mut game, group());
    game.run_until_outcomes(socrates, 1);
    // No NPC any more, and what stands there is none either.
    game.app.world_mut().entity_mut(socrates).remove::<Npc>();
    game.app.world_mut().spawn(MemberOf(group));
    game.update(50);
    assert!(game.log(hippias).is_empty() && silent(&game).is_empty());
    let hermes = spawn(&mut game, "Hermes");
    game.app.world_mut().entity_mut(hermes).insert(MemberOf(group));
    run_until_silent(&mut game, group);
    assert_eq!(speakers(&game.turns(hippias)), ["Hippias", "Socrates", "Hippias", "Hermes"]);
    assert_eq!(speakers(&game.turns(hermes)), ["Hippias", "Hermes"], "he heard what was said since he came");
}

#[test]
fn who_leaves_in_mid_turn_is_not_heard() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    game.valve.allow(10);
    let (group, [hippias, socrates]) = two(&mut game, group());
    let so_far = game.run_until_midway(socrates);
    game.app.world_mut().entity_mut(socrates).insert(MemberOf(group));
    game.update(1);
    assert!(game.is_speaking(socrates), "he is where he was");
    game.app.world_mut().entity_mut(socrates).remove::<MemberOf>();
    assert_eq!(finished(&game.outcomes(socrates)[0]), (so_far.as_str(), StopReason::Cancelled));
    assert_eq!(game.turns(socrates), [opening(), turn("Socrates", so_far)]);
    game.valve.open();
    game.update(30);
    assert_eq!(game.turns(hippias), [opening()]);
    assert_eq!(state(&game, group).turns, 0);
}

#[test]
fn who_joins_another_group_has_left_the_first() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    game.valve.allow(10);
    let (first, [hippias, socrates]) = two(&mut game, group());
    let so_far = game.run_until_midway(socrates);
    let hermes = spawn(&mut game, "Hermes");
    let second = ConversationGroup { speaker: "Hermes".into(), line: "Follow me.".into(), ..group() };
    let second = assemble(&mut game, second, &[hermes, socrates]);
    assert_eq!(finished(&game.outcomes(socrates)[0]), (so_far.as_str(), StopReason::Cancelled));
    game.valve.open();
    run_until_silent(&mut game, second);
    assert_eq!(game.turns(hippias), [opening()], "what was said elsewhere is not heard here");
    assert_eq!(game.turns(hermes)[0], turn("Hermes", "Follow me."));
    assert_eq!(speakers(&game.turns(hermes)), ["Hermes", "Socrates", "Hermes", "Socrates"]);
    let of = |group| game.app.world().get::<GroupMembers>(group).map(|members| members.to_vec());
    assert_eq!((of(first), of(second)), (Some(vec![hippias]), Some(vec![hermes, socrates])));
}

#[test]
fn a_despawned_group_is_silent() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    game.valve.allow(10);
    let (group, [hippias, socrates]) = two(&mut game, group());
    let so_far = game.run_until_midway(socrates);
    game.app.world_mut().despawn(group);
    assert_eq!(finished(&game.outcomes(socrates)[0]), (so_far.as_str(), StopReason::Cancelled));
    game.valve.open();
    game.update(50);
    assert!(silent(&game).is_empty() && game.log(hippias).is_empty());
    assert!(game.app.world().get::<MemberOf>(socrates).is_none());
    game.trigger(GiveTurn { entity: group, member: socrates });
    game.trigger(Interrupt { entity: group });
    game.say(socrates, "And now?");
    finished(&game.run_until_outcomes(socrates, 2)[1]);
}

#[test]
fn a_new_opening_ends_the_turn_under_way() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    game.valve.allow(10);
    let (group, [hippias, socrates]) = two(&mut game, group());
    game.run_until_midway(socrates);
    let anew = ConversationGroup { line: "What is a shield?".into(), max_turns: Some(1), ..self::group() };
    game.app.world_mut().entity_mut(group).insert(anew);
    assert_eq!(finished(&game.outcomes(socrates)[0]).1, StopReason::Cancelled);
    game.valve.open();
    run_until_silent(&mut game, group);
    assert_eq!(game.turns(hippias)[..2], [opening(), turn("Hippias", "What is a shield?")]);
    assert_eq!(speakers(&game.turns(hippias)[2..]), ["Socrates"]);
}

#[test]
fn an_observer_may_speak_leave_and_end_the_group() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    let (group, [hippias, socrates]) = two(&mut game, ConversationGroup { max_turns: None, ..group() });
    let player = game.app.world_mut().spawn(Listener).id();
    // The first line heard makes the player ask; what they say then ends it all.
    game.app.add_observer(move |e: On<Overheard>, mut commands: Commands| {
        if e.speaker == socrates {
            commands.trigger(Say::new(e.speaker, "Plato", "What was that?"));
        } else {
            commands.entity(e.group).despawn();
            commands.entity(e.speaker).despawn();
            commands.entity(player).despawn();
        }
    });
    game.app.world_mut().entity_mut(hippias).observe(move |_: On<ReplyStarted>, mut commands: Commands| {
        commands.trigger(Interrupt { entity: group });
    });
    let hermes = spawn(&mut game, "Hermes");
    game.app.world_mut().entity_mut(hermes).insert(MemberOf(group));
    // Hippias is silenced whenever he begins; order comes to him again and again, until the game asks Hermes.
    game.run_until_outcomes(socrates, 2);
    game.trigger(GiveTurn { entity: group, member: hermes });
    game.run_until("the end", |game| game.app.world().get_entity(group).is_err());
    game.update(50);
    assert!(game.app.world().get_entity(hermes).is_err() && game.app.world().get_entity(player).is_err());
    assert!(silent(&game).is_empty());
}

/// What a save game keeps of a group, through JSON and back.
fn save(game: &Game, group: Entity, members: &[Entity]) -> (ConversationGroup, Vec<Conversation>) {
    let world = game.app.world();
    let conversations = members.iter().map(|&member| world.get::<Conversation>(member).unwrap().clone()).collect();
    let saved: (ConversationGroup, Vec<Conversation>) = (state(game, group).clone(), conversations);
    let json = serde_json::to_string(&saved).unwrap();
    serde_json::from_str(&json).unwrap()
}

fn load(game: &Game, (group, conversations): (ConversationGroup, Vec<Conversation>)) -> (Game, Entity, Vec<Entity>) {
    let mut game = Setup::default().start_in(game.folder.clone());
    prepare(&mut game);
    let members: Vec<Entity> = ["Hippias", "Socrates"].map(|name| spawn(&mut game, name)).into();
    for (&member, conversation) in members.iter().zip(conversations) {
        game.app.world_mut().entity_mut(member).insert(conversation);
    }
    let group = assemble(&mut game, group, &members);
    (game, group, members)
}

#[test]
fn a_loaded_group_goes_on_as_its_unsaved_twin() {
    let mut game = start(Setup::default());
    let (group, members) = two(&mut game, group());
    game.run_until_outcomes(members[1], 1);
    let saved = save(&game, group, &members);
    assert_eq!(saved.0.turns, 1);
    let (mut loaded, loaded_group, loaded_members) = load(&game, saved);
    run_until_silent(&mut game, group);
    run_until_silent(&mut loaded, loaded_group);
    assert_eq!(state(&loaded, loaded_group), state(&game, group));
    for (now, twin) in loaded_members.into_iter().zip(members) {
        assert_eq!(loaded.turns(now), game.turns(twin));
    }
}

#[test]
fn saved_in_mid_turn_the_turn_is_taken_again() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    game.valve.allow(10);
    let (group, members) = two(&mut game, group());
    game.run_until_midway(members[1]);
    let mut saved = save(&game, group, &members);
    // The group asks again by itself: nobody else is to say this line again.
    assert_eq!(saved.1[1].take_unanswered(), None);
    let (mut loaded, loaded_group, loaded_members) = load(&game, saved);
    game.valve.open();
    run_until_silent(&mut game, group);
    run_until_silent(&mut loaded, loaded_group);
    for (index, twin) in members.into_iter().enumerate() {
        assert_eq!(loaded.turns(loaded_members[index]), game.turns(twin));
    }
}

#[test]
fn a_save_inserted_over_a_talking_group_is_what_goes_on() {
    let mut game = start(Setup::default());
    let (group, members) = two(&mut game, group());
    game.run_until_outcomes(members[1], 1);
    let (saved, conversations) = save(&game, group, &members);
    run_until_silent(&mut game, group);
    let twin = game.turns(members[0]);

    let restore = |game: &mut Game| {
        let world = game.app.world_mut();
        world.entity_mut(group).insert(saved.clone());
        for (&member, conversation) in members.iter().zip(&conversations) {
            world.entity_mut(member).insert(conversation.clone());
        }
    };
    restore(&mut game);
    game.valve.allow(10);
    game.run_until_midway(members[0]);
    let before = silent(&game).len();
    restore(&mut game);
    assert_eq!(game.turns(members[1]), twin[..2], "nothing of the turn under way enters what was saved");
    game.valve.open();
    game.run_until("silence", |game| silent(game).len() > before);
    assert_eq!(game.turns(members[0]), twin);
    assert_eq!(game.turns(members[1]), twin);
}

#[test]
fn a_topic_is_a_note_with_the_names_of_the_others() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    let prompt = |game: &mut Game, topic: Option<&str>| {
        let one = ConversationGroup { max_turns: Some(1), topic: topic.map(str::to_owned), ..group() };
        let (_, members) = three(game, one);
        match &game.run_until_outcomes(members[1], 1)[0] {
            Heard::Finished { prompt_tokens, .. } => *prompt_tokens,
            other => panic!("{other:?}"),
        }
    };
    let plain = prompt(&mut game, None);
    assert_eq!(prompt(&mut game, Some(" \u{200b}")), plain);
    // A token a byte, in order of membership and without the speaker's own name.
    let note = "\n[You know: You, Hippias and Hermes talk about the price of oil.]";
    assert_eq!(prompt(&mut game, Some("the price of oil.")), plain + note.len());
}

#[test]
fn an_echo_of_the_line_before_is_sampled_again() {
    const ECHO: &[u8] = b"Tell me now: what is courage? It is knowledge of what to fear.\0";
    let settings = ElenchusSettings::default();
    let mut game = start(Setup { script: Some(ECHO), settings, ..default() });
    let opening = ConversationGroup { line: "Tell me, what is courage?".into(), max_turns: Some(1), ..group() };
    let (_, [_, socrates]) = two(&mut game, opening);
    let outcomes = game.run_until_outcomes(socrates, 1);
    assert_eq!(text(&outcomes[0]), "It is knowledge of what to fear.");
    assert!(matches!(&outcomes[0], Heard::Finished { refused, .. } if refused == &["echoes"]));
}

#[test]
fn a_line_told_by_a_member_silences_the_group_or_is_answered_by_it() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    game.valve.allow(10);
    let (group, [hippias, socrates]) = two(&mut game, ConversationGroup { max_turns: Some(4), ..group() });
    let so_far = game.run_until_midway(socrates);
    game.trigger(Tell::new(hippias, "The gates are shut.").to_group());
    assert_eq!(finished(&game.outcomes(socrates)[0]), (so_far.as_str(), StopReason::Cancelled), "one at a time");
    assert_eq!(game.app.world().get::<Speaking>(hippias).unwrap().group(), Some(group));
    game.valve.open();
    assert_eq!(finished(&game.run_until_outcomes(hippias, 1)[0]).1, StopReason::Told);
    let told = turn("Hippias", "The gates are shut.");
    assert_eq!(game.turns(socrates)[1..], [turn("Socrates", &so_far), told.clone()]);
    assert_eq!(game.turns(hippias), game.turns(socrates));
    assert_eq!(state(&game, group).turns, 2);
    game.update(10);
    assert!(game.is_speaking(socrates) || game.outcomes(socrates).len() > 1, "he answers after the usual pause");
    game.run_until_outcomes(socrates, 2);
    // Said to somebody else, it is not theirs to hear.
    game.trigger(Tell::new(hippias, "You there!"));
    assert_eq!(game.app.world().get::<Speaking>(hippias).unwrap().group(), None);
    game.run_until_outcomes(hippias, 2);
    game.update(10);
    assert!(!game.is_speaking(hippias) && !game.is_speaking(socrates), "they are quiet for a while");
    assert!(!game.turns(socrates).contains(&turn("Hippias", "You there!")));
    assert_eq!(run_until_silent(&mut game, group), SilenceReason::Turns);
}

#[test]
fn a_stopped_engine_stops_the_group_until_it_is_started() {
    let mut game = start(Setup::default());
    game.run_until_ready();
    game.valve.allow(10);
    let (group, [hippias, socrates]) = two(&mut game, group());
    let so_far = game.run_until_midway(socrates);
    game.trigger(StopEngine);
    assert_eq!(finished(&game.outcomes(socrates)[0]), (so_far.as_str(), StopReason::Cancelled));
    assert_eq!(game.turns(hippias), [opening(), turn("Socrates", so_far)]);
    game.valve.open();
    game.update(50);
    assert!(game.log(hippias).is_empty() && silent(&game).is_empty(), "they wait, without fallback lines");
    game.trigger(StartEngine);
    assert_eq!(run_until_silent(&mut game, group), SilenceReason::Turns);
}

#[test]
fn every_row_of_the_guide_is_a_test_and_every_test_a_row() {
    common::check_rows("## Conversation groups", include_str!("groups.rs"));
}
