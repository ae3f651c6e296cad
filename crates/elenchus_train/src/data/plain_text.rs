//! A printed play as a person types it: a label in capitals opens a turn, and the turn lasts until the next label.
//!
//! Labels in capitals stand out from wrapped prose, where a line may begin with "Thus:". Only in a text without one may a
//! label be a few capitalised words. What stands before the first label (a title, an introduction) is nobody's.

use elenchus_dialogue::Turn;

use super::{
    speakers::Speakers,
    texts::{Dialogue, Spoken},
};

/// What stands before a colon and is no speaker.
const HEADINGS: [&str; 10] = [
    "Scene",
    "Persons Of The Dialogue",
    "Persons",
    "Dramatis Personae",
    "Characters",
    "Setting",
    "Place",
    "Time",
    "Note",
    "Footnote",
];

/// The dialogue of a text and the line where it begins, or what is wrong and where. Its work is the title in a Project
/// Gutenberg header, else `name`.
pub(super) fn parse(text: &str, name: &str, speakers: &Speakers) -> (usize, Result<Dialogue, String>) {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let (title, body) = match without_gutenberg(&lines) {
        Ok(found) => found,
        Err((line, reason)) => return (line, Err(reason)),
    };
    let capitals = lines[body.clone()].iter().any(|line| label(line, true).is_some_and(|(name, _)| !is_heading(name)));

    let mut turns: Vec<Spoken> = Vec::new();
    let (mut speaking, mut paragraph_begins, mut first) = (false, true, body.start);
    for (index, line) in body.clone().zip(&lines[body]) {
        let rest = match label(line, capitals) {
            Some((name, _)) if is_heading(name) => {
                speaking = false;
                continue;
            }
            Some((name, rest)) => {
                if turns.is_empty() {
                    first = index;
                }
                let turn = Turn { speaker: speakers.normalise(name), text: String::new() };
                turns.push(Spoken { turn, confidence: 1.0 });
                speaking = true;
                rest
            }
            None if paragraph_begins && is_title(line) => {
                speaking = false;
                continue;
            }
            None => line,
        };
        paragraph_begins = line.is_empty();
        if let Some(Spoken { turn, .. }) = turns.last_mut().filter(|_| speaking && !rest.is_empty()) {
            let space = if turn.text.is_empty() { "" } else { " " };
            turn.text.push_str(&format!("{space}{rest}"));
        }
    }
    turns.retain(|spoken| !spoken.turn.text.is_empty());
    if turns.is_empty() {
        let reason = "no line begins with a speaker's label (hint: `SOCRATES: What is it?`, or JSON Lines)";
        return (first + 1, Err(reason.to_owned()));
    }
    (first + 1, Ok(Dialogue { work: title.unwrap_or_else(|| name.to_owned()), turns }))
}

/// Splits `NAME (aside): words`. In capitals, or else capitalised words.
fn label(line: &str, capitals: bool) -> Option<(&str, &str)> {
    let (head, rest) = line.split_once(':')?;
    let name = head.split('(').next().unwrap_or(head).trim();
    let letters = |c: char| c.is_alphanumeric() || " -'’.,&_".contains(c);
    let fits = head.len() <= 60
        && name.chars().any(char::is_alphabetic)
        && name.chars().all(letters)
        && if capitals {
            !name.chars().any(char::is_lowercase)
        } else {
            let mut words = name.split_whitespace();
            words.clone().count() <= 3 && words.all(|word| word.starts_with(|c: char| !c.is_lowercase()))
        };
    fits.then(|| (name, rest.trim_start_matches('_').trim()))
}

fn is_heading(name: &str) -> bool {
    HEADINGS.contains(&Speakers::default().normalise(name).as_str())
}

/// `BOOK II.` between the speeches of two books.
fn is_title(line: &str) -> bool {
    line.chars().any(char::is_alphabetic) && !line.chars().any(char::is_lowercase) && line.split(' ').count() <= 6
}

/// Whether a text holds Project Gutenberg's marks at both ends, or which one it lacks.
pub(super) fn is_whole_gutenberg(text: &str) -> Result<(), &'static str> {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    match without_gutenberg(&lines) {
        Ok((_, body)) if body.start > 0 => Ok(()),
        Ok(_) => Err("Project Gutenberg's `*** START OF` line is missing"),
        Err(_) => Err("Project Gutenberg's `*** END OF` line is missing"),
    }
}

/// The title and the lines between Project Gutenberg's header and its licence; all lines of another text.
fn without_gutenberg(lines: &[&str]) -> Result<(Option<String>, std::ops::Range<usize>), (usize, String)> {
    let marker = |line: &str, word: &str| {
        let line = line.to_uppercase();
        line.starts_with("***") && line.contains(word) && line.contains("PROJECT GUTENBERG")
    };
    let Some(start) = lines.iter().position(|line| marker(line, "START OF")) else {
        return Ok((None, 0..lines.len()));
    };
    // Older files say so in words a few lines before the mark.
    let ends = |line: &&str| {
        marker(line, "END OF")
            || ["End of the Project Gutenberg", "End of Project Gutenberg"].iter().any(|end| line.starts_with(end))
    };
    let Some(end) = lines.iter().skip(start + 1).position(ends) else {
        let reason =
            "a Project Gutenberg text begins, but its `*** END OF` line is missing (hint: fetch it again whole)";
        return Err((lines.len(), reason.to_owned()));
    };
    let title = lines[..start].iter().find_map(|line| line.strip_prefix("Title:")).map(|title| title.trim().to_owned());
    Ok((title.filter(|title| !title.is_empty()), start + 1..start + 1 + end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text, "file", &Speakers::default()) {
            (line, Ok(dialogue)) => {
                let turns: Vec<_> = dialogue
                    .turns
                    .iter()
                    .map(|Spoken { turn, .. }| format!("{}: {}", turn.speaker, turn.text))
                    .collect();
                format!("{}:{line}| {}", dialogue.work, turns.join(" / "))
            }
            (line, Err(reason)) => format!("{line}! {reason}"),
        }
    }

    #[test]
    fn labels_open_turns() {
        let check = |text, expected| assert_eq!(shown(text), expected);
        check("ANNA: Hi.\nBEN: Ho.", "file:1| Anna: Hi. / Ben: Ho.");
        check("A Talk\n\nANNA: It is\r\ndeep.\n\nAnd cold.\n", "file:3| Anna: It is deep. And cold.");
        check("ANNA:\nHi.\n\nBEN :Ho.", "file:1| Anna: Hi. / Ben: Ho.");
        check("OLD ANNA (to BEN): Hi.", "file:1| Old Anna: Hi.");
        check("_ANNA:_ Hi.", "file:1| Anna: Hi.");
        check("FIRST O'BRIEN, JR.: Hi.", "file:1| First O'brien, Jr: Hi.");
        check("ANNA: I say\nThus: it is.", "file:1| Anna: I say Thus: it is.");
        check("ANNA: Hi.\nBEN:\nEVA: Ho.", "file:1| Anna: Hi. / Eva: Ho.");
        check("PERSONS OF THE DIALOGUE: Anna, Ben.\nSCENE: A well.\nANNA: Hi.", "file:3| Anna: Hi.");
        check("ANNA: Hi.\n\nSCENE: A wood.\nBirds.\n\nBEN: Ho.", "file:1| Anna: Hi. / Ben: Ho.");
        check("ANNA: Hi.\n\nBOOK II.\n\nIt is dark.\n\nBEN: Ho.", "file:1| Anna: Hi. / Ben: Ho.");
        check("ANNA: Hi. It is\nOK", "file:1| Anna: Hi. It is OK");
    }

    #[test]
    fn a_text_without_capitals_may_have_capitalised_labels() {
        let check = |text, expected| assert_eq!(shown(text), expected);
        check("Anna: Hi.\nOld Ben: Ho.", "file:1| Anna: Hi. / Old Ben: Ho.");
        check("SCENE: A well.\nAnna: Hi.", "file:2| Anna: Hi.");
        check("Anna: Hi.\nand so: on", "file:1| Anna: Hi. and so: on");
        check("Anna: Hi.\nBEN: Ho.", "file:2| Ben: Ho.");
    }

    #[test]
    fn gutenberg_header_and_licence_are_left_out() {
        let start = "Title: The Well\nEDITOR: X\n*** START OF THE PROJECT GUTENBERG EBOOK THE WELL ***\n";
        let check = |text: &str, expected| assert_eq!(shown(&format!("{start}{text}")), expected);
        check("ANNA: Hi.\n*** END OF THE PROJECT GUTENBERG EBOOK THE WELL ***\nLICENSE: y", "The Well:4| Anna: Hi.");
        check("ANNA: Hi.\nEnd of Project Gutenberg's The Well\n*** END OF", "The Well:4| Anna: Hi.");
        check(
            "ANNA: Hi.",
            "4! a Project Gutenberg text begins, but its `*** END OF` line is missing (hint: fetch it again whole)",
        );
    }

    #[test]
    fn a_text_without_labels_is_broken() {
        let text = shown("It was deep.\n12:30 came.");
        assert!(text.starts_with("1! no line begins with a speaker's label"), "{text}");
    }
}
