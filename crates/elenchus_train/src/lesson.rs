//! What a `training.toml` has a character learn. What is trained on and what is measured on is decided here alone, so that
//! no measure is taken of what was trained on.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use elenchus_dialogue::Character;
use elenchus_lm::LoraAdapter;
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use crate::{
    BrokenLine, Error, Result, SftConfig,
    data::{self, FilterReport, OnBroken, Pair, PersonaPair, Speakers, Split},
    order::mixed,
};

/// A configuration with all that it names, read, filtered and split.
#[derive(Debug)]
pub struct Lesson {
    /// The configuration.
    pub config: SftConfig,
    /// The same as it is written.
    pub text: String,
    /// Where the character is described.
    pub character_file: PathBuf,
    /// Who learns.
    pub character: Character,
    /// Pairs in the texts, fit to learn from or not.
    pub read: usize,
    /// Lines of the texts that were left out; none unless `skip_broken` is set.
    pub broken: Vec<BrokenLine>,
    /// What the filters did.
    pub filtered: FilterReport,
    /// The pairs of the texts that are trained on and measured on.
    pub split: Split,
    /// Lines as a player says them, trained on as well.
    pub player_lines: Vec<Pair>,
    /// What keeps the persona: invented people, neighbours, and the character from its `character.toml`. What the base
    /// says itself comes beside these once there is a model ([`Self::base_replies`]).
    pub persona_pairs: Vec<PersonaPair>,
    /// The adapter that training begins from; a fresh one if there is none.
    pub start: Option<Arc<LoraAdapter>>,
}

impl Lesson {
    /// Reads a `training.toml` and what it names; its paths are relative to its folder.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should, a split that leaves nothing, a player line without reply.
    pub fn open(file: &Path) -> Result<Self> {
        let text = read_text(file)?;
        let config = SftConfig::parse(&text, &file.display().to_string())?;
        let beside = |path: &PathBuf| file.parent().unwrap_or(Path::new(".")).join(path);
        let character_file = beside(&config.character);
        let character = read_character(&character_file)?;
        let files: Vec<PathBuf> = config.data.iter().map(beside).collect();
        let on_broken = if config.skip_broken { OnBroken::Skip } else { OnBroken::Stop };
        let (pairs, broken) = read_pairs(&files, &character, &config.speakers, config.context, on_broken)?;
        let read = pairs.len();
        // Whole works that are trained on answer with any fit reply, whatever was said before it in the text.
        let spoken = config.player_lines.as_ref().filter(|_| config.held_out_fraction.is_none()).map(|_| pairs.clone());
        let (split, filtered) = config.split(pairs)?;
        let player_lines = match (&config.player_lines, spoken) {
            (Some(lines), Some(mut spoken)) => {
                let untrained = [&config.held_out_works, &config.excluded_works];
                spoken.retain(|pair| !untrained.iter().any(|works| works.contains(&pair.work)));
                data::player_lines(&beside(lines), &data::filter(spoken, &config.filters.of_replies()).0)?
            }
            // Of a work that is cut in two, only what is trained on, so that nothing held out is learned by this way.
            (Some(lines), None) => data::player_lines(&beside(lines), &split.train)?,
            (None, _) => Vec::new(),
        };
        let (mut split, mut player_lines) = (split, player_lines);
        let seed = config.training.seed;
        data::add_facts(&mut split.train, config.persona.facts, seed);
        let written: Vec<_> = player_lines.iter().filter(|pair| pair.work == data::PLAYER_LINES).cloned().collect();
        (1..config.player_lines_times).for_each(|_| player_lines.extend_from_slice(&written));
        let persona_pairs = persona_pairs(&config, &character, split.train.len() + player_lines.len(), beside)?;
        let start = config.lora.start.as_ref().map(|folder| LoraAdapter::open(&beside(folder))).transpose()?;
        let start = start.map(Arc::new);
        Ok(Self {
            config,
            text,
            character_file,
            character,
            read,
            broken,
            filtered,
            split,
            player_lines,
            persona_pairs,
            start,
        })
    }

    /// How many replies of the base itself are learned from.
    pub fn base_replies(&self) -> usize {
        share(self.config.persona.base, self.split.train.len() + self.player_lines.len())
    }
}

fn share(of: f64, count: usize) -> usize {
    (of * count as f64).round() as usize
}

/// The examples beside `count` of the character's own.
fn persona_pairs(
    config: &SftConfig,
    character: &Character,
    count: usize,
    beside: impl Fn(&PathBuf) -> PathBuf,
) -> Result<Vec<PersonaPair>> {
    let (settings, seed) = (&config.persona, config.training.seed);
    let mut pairs = data::invented(share(settings.invented, count), seed);
    let own = data::own(character, share(settings.own, count), seed);
    pairs.extend(own.into_iter().map(|pair| PersonaPair { character: character.clone(), pair }));
    let mut of_neighbours = Vec::new();
    for folder in &settings.neighbours {
        let neighbour = read_character(&beside(folder).join("character.toml"))?;
        if neighbour.name == character.name {
            continue;
        }
        let lines = data::written_player_lines(&beside(folder).join("player_lines.jsonl"))?;
        of_neighbours.extend(lines.into_iter().map(|pair| PersonaPair { character: neighbour.clone(), pair }));
    }
    of_neighbours.shuffle(&mut Pcg64Mcg::seed_from_u64(mixed(seed, 1)));
    of_neighbours.truncate(share(settings.neighbour, count));
    pairs.extend(of_neighbours);
    Ok(pairs)
}

/// Reads a `character.toml`.
pub fn read_character(file: &Path) -> Result<Character> {
    Ok(Character::parse(&read_text(file)?, &file.display().to_string())?)
}

/// A character's pairs in some texts, and the lines that were left out. `called` are the names under which the character
/// speaks there, if not under its own.
pub fn read_pairs(
    files: &[PathBuf],
    character: &Character,
    called: &[String],
    context: NonZeroUsize,
    on_broken: OnBroken,
) -> Result<(Vec<Pair>, Vec<BrokenLine>)> {
    let speakers = Speakers::new(called.iter().map(|name| (name, &character.name)))?;
    let mut texts = data::read(files, &speakers, on_broken)?;
    let broken = std::mem::take(&mut texts.broken);
    Ok((data::pairs(&texts, &speakers.normalise(&character.name), context)?, broken))
}

pub(crate) fn read_text(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|cause| Error::File { file: file.to_owned(), cause, hint: "" })
}
