//! Whatever stands in a public field can be named by a game that depends on `bevy_elenchus` alone.

#![allow(unused_imports, missing_docs)]

use bevy_elenchus::{
    Adapter, AdapterId, AdapterLoader, AssetError, BaseInfo, BaseRef, CharacterLoader, ChatTemplate, Error, Executor,
    LoraAdapter, Model, Rng, Tokenizer,
    elenchus_dialogue::{Conversation as Said, EngineStats as Counters, Result},
    elenchus_lm::{KvCache, ModelConfig, Row},
    load_model,
    prelude::*,
};

/// As a game with a settings menu and a character of its own would.
#[test]
fn a_game_names_what_it_sets_and_reads() {
    let engine = EngineSettings {
        device: ComputeDevice::Cpu,
        numerics: Numerics::Quantised,
        kv_precision: KvPrecision::Int8,
        dense: BlockType::Q4K,
        ..EngineSettings::default()
    };
    let plugin = SpeechPlugin { engine, autostart: false, ..SpeechPlugin::default() };
    assert!(!plugin.autostart && plugin.loader.is_none());
    let character = Character {
        version: 1,
        name: "Bertha".into(),
        persona: "You are an innkeeper. Your name is Bertha.".into(),
        big_five: Some(BigFive {
            openness: 0.5,
            conscientiousness: 0.9,
            extraversion: 0.7,
            agreeableness: 0.6,
            neuroticism: 0.2,
        }),
        greetings: Vec::new(),
        fallbacks: vec!["Hm.".into()],
        sampler: SamplerSettings::default(),
        stop: StopRules { max_sentences: 2, ..StopRules::default() },
        adapter_scale: 1.0,
        base: None::<BaseRef>,
    };
    let turn = Turn { speaker: character.name.clone(), text: "Good evening.".into() };
    let mut conversation = Conversation::from_seed(7);
    conversation.turns.push(turn);
    let said: &Said = &conversation.said;
    let rng: &Rng = &said.rng;
    assert_eq!(rng, &Rng::from_seed(7));

    // What events and assets hold.
    fn fields(report: &ReplyReport, failed: &ReplyFailed, stats: &EngineStats, asset: &CharacterAsset) {
        let _: (&StopReason, &Rng, &Option<AdapterId>) = (&report.stop, &report.rng, &report.adapter);
        let _: Option<&Refusal> = report.refused.first();
        let _: &ReplyError = &failed.error;
        let _: &Counters = &stats.0;
        let _: (&Character, Option<&bevy::prelude::Handle<AdapterAsset>>) = (&asset.character, asset.adapter.as_ref());
    }
    fn model(model: Model, adapter: &AdapterAsset, status: &EngineStatus) -> ModelLoader {
        let _: (&dyn Executor, &Tokenizer, &ChatTemplate) = (&*model.executor, &model.tokenizer, &model.template);
        let _: &LoraAdapter = &adapter.lora;
        if let EngineStatus::Failed { error } = status {
            let _: &Error = error;
        }
        load_model(&EngineSettings::default())
    }
    let _ = (fields, model);
}
