//! `fleet match`: does a topic belong to a topic filter?

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::process::ExitCode;

use fleet_shared::topic::{TopicFilter, TopicName};

/// A filter and a topic of 65,535 bytes each, and the tab between them.
const LINE_MAX: usize = 2 * 65_535 + 1;
/// Room for some thousand lines a read and a write.
const BUFFER: usize = 256 * 1024;

const EXAMPLES: &str = "\
Exit codes: 0 it matches, 1 it does not, 2 one of the two is invalid.

Examples:
  fleet match 'sensors/#' sensors/kitchen/temperature && echo yes
  fleet match 'sensors/+/temperature' sensors/site-1/room-7/temperature || echo no
  fleet match '$share/ingest/sensors/#' sensors/hall/door     # by its filter part
  printf 'a/+\\ta/b\\n+/b\\t$SYS/b\\na/#/b\\ta\\n' | fleet match --stdin
                                                    # true, false, invalid";

/// Tells whether a topic belongs to a topic filter, by MQTT 5, section 4.7.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct MatchArgs {
    /// Topic filter: `+` stands for one level, `#` at the end for the rest.
    #[arg(required_unless_present = "stdin")]
    pub filter: Option<String>,
    /// Topic name, without wildcards.
    #[arg(required_unless_present = "stdin")]
    pub topic: Option<String>,
    /// Answers lines of a filter, a tab and a topic with true, false or invalid.
    ///
    /// The topic goes from the first tab to the line feed. The exit code is 0 then, whatever the
    /// answers are.
    #[arg(
        long,
        conflicts_with_all = ["filter", "topic"],
        help = "Answers lines FILTER<TAB>TOPIC with true, false or invalid"
    )]
    pub stdin: bool,
}

/// The command: exit code 0 for a match, 1 for none, 2 when one of the two is invalid.
///
/// It is not run as a service: a signal ends it at once, also while it waits for a line.
#[must_use]
pub fn run(args: &MatchArgs) -> ExitCode {
    let answered = match (&args.filter, &args.topic) {
        (Some(filter), Some(topic)) => answer_pair(filter, topic),
        _ => match answer_lines(std::io::stdin().lock(), std::io::stdout().lock()) {
            Ok(()) => Ok(true),
            Err(error) => return fail(&format!("answering standard input: {error}"), 1),
        },
    };
    match answered {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => fail(&error, 2),
    }
}

fn fail(error: &str, code: u8) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "the one line is for people")]
    {
        eprintln!("error: {error}");
    }
    ExitCode::from(code)
}

fn answer_pair(filter: &str, topic: &str) -> Result<bool, String> {
    let filter = TopicFilter::parse(filter).map_err(|error| format!("FILTER: {error}"))?;
    let topic = TopicName::parse(topic).map_err(|error| format!("TOPIC: {error}"))?;
    Ok(filter.matches(&topic))
}

/// Answers one line without its line feed; `None` when filter or topic is invalid.
fn answer(line: &[u8]) -> Option<bool> {
    let (filter, topic) = std::str::from_utf8(line).ok()?.split_once('\t')?;
    let filter = TopicFilter::parse(filter).ok()?;
    let topic = TopicName::parse(topic).ok()?;
    Some(filter.matches(&topic))
}

/// Answers every line of `input` with one line of `output`, in order.
///
/// Answers are written at the latest when there is nothing more to read at once, so that a
/// program may ask line by line. Memory is bounded: a line that is too long is not kept.
///
/// # Errors
/// When reading or writing fails. A reader of the output that goes away is no error.
pub fn answer_lines(input: impl Read, output: impl Write) -> std::io::Result<()> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    let mut output = BufWriter::with_capacity(BUFFER, output);
    let mut line = Vec::new();
    let written = loop {
        if input.buffer().is_empty()
            && let Err(error) = output.flush()
        {
            break Err(error);
        }
        line.clear();
        let limit = LINE_MAX as u64 + 1;
        if input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            break output.flush();
        }
        let answer = match line.strip_suffix(b"\n") {
            Some(whole) => answer(whole),
            None if line.len() > LINE_MAX => {
                skip_line(&mut input)?;
                None
            }
            None => answer(&line),
        };
        let text: &[u8] = match answer {
            Some(true) => b"true\n",
            Some(false) => b"false\n",
            None => b"invalid\n",
        };
        if let Err(error) = output.write_all(text) {
            break Err(error);
        }
    };
    // What could not be written must not be tried again when the writer is dropped.
    drop(output.into_parts());
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Reads to the end of the line without keeping it.
fn skip_line(input: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        if used == 0 {
            return Ok(());
        }
        input.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers(input: &[u8]) -> String {
        let mut output = Vec::new();
        answer_lines(input, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    /// The examples of MQTT 5, sections 4.7.1 to 4.7.3 and 4.8.2, and the edges of the form.
    #[test]
    fn lines_are_answered_by_the_specification() {
        for (line, expected) in [
            ("sport/tennis/player1/#\tsport/tennis/player1", "true"),
            (
                "sport/tennis/player1/#\tsport/tennis/player1/score/wimbledon",
                "true",
            ),
            ("sport/#\tsport", "true"),
            ("#\tanything/at/all", "true"),
            ("sport/tennis#\tsport/tennis", "invalid"),
            ("sport/tennis/#/ranking\tsport/tennis", "invalid"),
            ("sport/tennis/+\tsport/tennis/player1", "true"),
            ("sport/tennis/+\tsport/tennis/player1/ranking", "false"),
            ("sport/+\tsport", "false"),
            ("sport/+\tsport/", "true"),
            ("+/tennis/#\tsport/tennis/x", "true"),
            ("sport+\tsport", "invalid"),
            ("+/+\t/finance", "true"),
            ("/+\t/finance", "true"),
            ("+\t/finance", "false"),
            ("#\t$SYS/monitor", "false"),
            ("+/monitor\t$SYS/monitor", "false"),
            ("$SYS/#\t$SYS/monitor", "true"),
            ("$share/group/sensors/#\tsensors/hall/door", "true"),
            ("$share/group/#\t$SYS/x", "false"),
            ("$share//a\ta", "invalid"),
            ("$share/group\tgroup", "invalid"),
            ("ACCOUNTS\tAccounts", "false"),
            ("a/b\ta/+", "invalid"),
            ("a\ta\tb", "false"),
            ("a\ta\r", "false"),
            ("a a\ta a", "true"),
            ("é/+\té/ü", "true"),
            ("no tab", "invalid"),
            ("\ta", "invalid"),
            ("a\t", "invalid"),
            ("a\0\ta", "invalid"),
            ("", "invalid"),
        ] {
            assert_eq!(
                answers(format!("{line}\n").as_bytes()),
                format!("{expected}\n"),
                "{line:?}"
            );
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_invalid_and_harm_no_other_line() {
        assert_eq!(
            answers(b"a\ta\n\xff\ta\na\t\xc3\na\ta"),
            "true\ninvalid\ninvalid\ntrue\n"
        );
    }

    #[test]
    fn no_line_no_answer() {
        assert_eq!(answers(b""), "");
    }

    #[test]
    fn a_line_may_be_as_long_as_two_longest_topics_and_no_longer() {
        let longest = "x".repeat(65_535);
        let fits = format!("{longest}\t{longest}\n");
        let too_long = format!("{longest}\t{longest}y\n");
        let endless = "z".repeat(3 * BUFFER);
        assert_eq!(
            answers(format!("{fits}{too_long}{endless}\na\ta\n").as_bytes()),
            "true\ninvalid\ninvalid\ntrue\n"
        );
        assert_eq!(answers(endless.as_bytes()), "invalid\n");
    }

    #[test]
    fn a_reader_of_the_answers_that_goes_away_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        answer_lines(&b"a\ta\n"[..], Closed).unwrap();
    }

    /// Section 4.7 word by word, level by level, with no eye to speed.
    fn reference(line: &str) -> &'static str {
        fn is_filter(text: &str) -> bool {
            let levels: Vec<_> = text.split('/').collect();
            let last = levels.len() - 1;
            !text.is_empty()
                && levels.iter().enumerate().all(|(at, level)| match *level {
                    "+" => true,
                    "#" => at == last,
                    other => !other.contains(['+', '#']),
                })
        }
        fn covers(filter: &[&str], topic: &[&str]) -> bool {
            match (filter, topic) {
                (["#"], _) => true,
                ([], []) => true,
                (["+", filter @ ..], [_, topic @ ..]) => covers(filter, topic),
                ([level, filter @ ..], [name, topic @ ..]) => {
                    level == name && covers(filter, topic)
                }
                _ => false,
            }
        }
        let Some((filter, topic)) = line.split_once('\t') else {
            return "invalid";
        };
        let filter = match filter.strip_prefix("$share/") {
            None => filter,
            Some(shared) => match shared.split_once('/') {
                Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) => filter,
                _ => return "invalid",
            },
        };
        if !is_filter(filter) || topic.is_empty() || topic.contains(['+', '#']) {
            return "invalid";
        }
        if topic.starts_with('$') && filter.starts_with(['+', '#']) {
            return "false";
        }
        let (filter, topic): (Vec<_>, Vec<_>) =
            (filter.split('/').collect(), topic.split('/').collect());
        if covers(&filter, &topic) {
            "true"
        } else {
            "false"
        }
    }

    /// Levels that make filters and topics which often match, and often break a rule.
    const LEVELS: [&str; 8] = ["a", "b", "ab", "", "+", "#", "a+", "$SYS"];

    fn random_text(random: &mut impl FnMut(usize) -> usize, kinds: usize) -> String {
        let levels = 1 + random(4);
        let levels: Vec<_> = (0..levels).map(|_| LEVELS[random(kinds)]).collect();
        levels.join("/")
    }

    #[test]
    fn a_million_random_pairs_agree_with_a_naive_reference() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = |below: usize| {
            // xorshift64: plenty for choosing, and the same pairs in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % below
        };
        let mut lines = String::new();
        let mut expected = String::new();
        for _ in 0..1_000_000 {
            let share = ["", "", "", "$share/g/", "$share//"][random(5)];
            let filter = random_text(&mut random, LEVELS.len());
            // Mostly valid topics: the first four levels have no wildcard.
            let kinds = if random(8) == 0 { LEVELS.len() } else { 4 };
            let topic = random_text(&mut random, kinds);
            let start = lines.len();
            lines.extend([share, &filter, "\t", &topic]);
            expected.extend([reference(&lines[start..]), "\n"]);
            lines.push('\n');
        }
        let answered = answers(lines.as_bytes());
        let differs = answered
            .lines()
            .zip(expected.lines())
            .position(|(is, should)| is != should);
        assert_eq!(differs.and_then(|at| lines.lines().nth(at)), None);
        assert_eq!(answered.len(), expected.len());
        for answer in ["true", "false", "invalid"] {
            assert!(
                answered.lines().filter(|is| *is == answer).count() > 10_000,
                "{answer}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_one_answer_a_line(input: Vec<u8>) {
            let lines = input.split_inclusive(|&byte| byte == b'\n').count();
            prop_assert_eq!(answers(&input).lines().count(), lines);
        }
    }
}
