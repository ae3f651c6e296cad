//! What a person can type, and the thread that waits for it.

use std::{
    io::{self, BufRead},
    path::PathBuf,
    thread,
};

use crossbeam_channel::{Receiver, bounded, unbounded};

/// Shown by `/help`.
pub const HELP: &str = "\
/who         list the characters
/as NAME     talk to another character, who has heard the conversation
/reset       start over
/save FILE   save the conversation
/load FILE   resume a saved conversation
/stats       show what the replies cost
/quit        quit; so do Ctrl-D and, when no reply is running, Ctrl-C";

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Say it to the character.
    Say(String),
    /// List the characters.
    Who,
    /// Talk to another.
    As(String),
    /// Clear the conversation.
    Reset,
    /// Write the conversation.
    Save(PathBuf),
    /// Read a conversation.
    Load(PathBuf),
    /// Show the counters.
    Stats,
    /// Show the commands.
    Help,
    /// Leave.
    Quit,
    /// Not understood, or nothing to do; holds the hint to show.
    Unclear(String),
}

/// Parses a typed line.
fn parse(line: &str) -> Input {
    let line = line.trim();
    let Some(command) = line.strip_prefix('/') else {
        return if line.is_empty() { Input::Unclear(String::new()) } else { Input::Say(line.to_owned()) };
    };
    let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let argument = argument.trim();
    match (name, argument.is_empty()) {
        ("who", true) => Input::Who,
        ("as", false) => Input::As(argument.to_owned()),
        ("reset", true) => Input::Reset,
        ("save", false) => Input::Save(argument.into()),
        ("load", false) => Input::Load(argument.into()),
        ("stats", true) => Input::Stats,
        ("help", true) => Input::Help,
        ("quit" | "exit", true) => Input::Quit,
        ("as", true) => Input::Unclear("Which character? /as NAME; /who lists them.".to_owned()),
        ("save" | "load", true) => Input::Unclear(format!("Which file? /{name} FILE")),
        ("who" | "reset" | "stats" | "help" | "quit" | "exit", false) => {
            Input::Unclear(format!("/{name} takes no argument: try it without `{argument}`."))
        }
        _ => Input::Unclear(format!("There is no /{name}; /help lists the commands.")),
    }
}

/// Lines from the command line are said as they are, a leading `/` included.
pub fn from_lines(lines: Vec<String>) -> Receiver<Input> {
    let (sender, receiver) = unbounded();
    for line in lines {
        // Cannot fail: the receiver is right here.
        let _ = sender.send(Input::Say(line));
    }
    receiver
}

/// Typed lines; the channel closes at the end of input. The thread sleeps in a read that cannot be interrupted, so the
/// program ends without joining it.
pub fn from_stdin() -> Receiver<Input> {
    let (sender, receiver) = bounded(16);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut bytes = Vec::new();
        while matches!(stdin.read_until(b'\n', &mut bytes), Ok(count) if count > 0) {
            // A terminal can send anything: invalid UTF-8 is replaced, not refused.
            if sender.send(parse(&String::from_utf8_lossy(&bytes))).is_err() {
                break;
            }
            bytes.clear();
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_what_they_say() {
        let check = |line: &str, expected: Input| assert_eq!(parse(line), expected, "{line:?}");
        check("What is courage?\n", Input::Say("What is courage?".into()));
        check("  is 1/2 a number ", Input::Say("is 1/2 a number".into()));
        check("/who\r\n", Input::Who);
        check("/as  Olive seller ", Input::As("Olive seller".into()));
        check("/save my talk.json", Input::Save("my talk.json".into()));
        check("/load x", Input::Load("x".into()));
        check("/reset", Input::Reset);
        check("/stats", Input::Stats);
        check("/help", Input::Help);
        check("/exit", Input::Quit);
        let unclear = |line: &str, words: &str| match parse(line) {
            Input::Unclear(hint) => assert!(hint.contains(words), "{line:?} gave {hint:?}"),
            other => panic!("{line:?} is {other:?}"),
        };
        unclear("", "");
        unclear("/", "/help");
        unclear("/dance", "no /dance; /help");
        unclear("/as", "/as NAME");
        unclear("/save", "/save FILE");
        unclear("/reset all", "without `all`");
    }

    #[test]
    fn lines_from_the_command_line_are_all_said() {
        let inputs: Vec<Input> = from_lines(vec!["/who".into(), "".into()]).iter().collect();
        assert_eq!(inputs, [Input::Say("/who".into()), Input::Say("".into())]);
    }
}
