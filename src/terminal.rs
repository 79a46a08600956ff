//! Reading a secret line: without an echo from a terminal, plainly from anything else.

use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// Asks with `prompt` where a person sits, and reads one line from standard input, without its end.
///
/// # Errors
/// Those of reading and of the terminal.
///
/// # Blocks
/// Until the line is there.
pub fn read_secret(prompt: &str) -> io::Result<String> {
    let input = io::stdin();
    let mut line = String::new();
    if input.is_terminal() {
        eprint!("{prompt}");
        io::stderr().flush()?;
        let shown = tcgetattr(&input)?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Flush, &hidden)?;
        let read = input.lock().read_line(&mut line);
        tcsetattr(&input, OptionalActions::Flush, &shown)?;
        eprintln!();
        read?;
    } else {
        input.lock().read_line(&mut line)?;
    }
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}
