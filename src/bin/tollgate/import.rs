//! Bulk import: sends lines in batches, and writes each result so that a later run can continue.

use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::keys::Import;
use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::output::Output;

/// The largest batch, in bytes: the server's limit.
const BATCH_BYTES: usize = 16 << 20;

/// The result of a line.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct LineResult {
    /// Number of the line in the input, from 1.
    line: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

/// A line without a result.
struct Line {
    number: u64,
    text: Vec<u8>,
}

#[derive(Debug, Default)]
struct Totals {
    imported: u64,
    refused: u64,
    skipped: u64,
}

/// Imports the input until it ends or a request fails.
pub(crate) fn run(arguments: &Import, client: &Client, out: &mut Output<'_>) -> Result<(), Failure> {
    let (mut results, done) = Results::open(arguments, out)?;
    let (input, length) = open_input(&arguments.input)?;
    let progress = progress_bar(length, results.out.quiet);
    let mut lines = Lines { input, path: &arguments.input, done: &done, number: 0, read: 0, skipped: 0 };
    let mut totals = Totals::default();
    let ended = send_all(arguments, client, &mut lines, &mut results, &mut totals, &progress);
    totals.skipped = lines.skipped;
    progress.finish_and_clear();

    let Totals { imported, refused, skipped } = totals;
    results.out.note(&format!("{imported} imported, {refused} refused, {skipped} skipped"));
    match ended {
        Err(Failure::Broken(message)) if results.file.is_some() => {
            Err(Failure::Broken(format!("{message}; continue with --resume")))
        }
        Ok(()) if refused == 1 => Err(Failure::Refused("1 line was refused: the results say why".to_owned())),
        Ok(()) if refused > 1 => Err(Failure::Refused(format!("{refused} lines were refused: the results say why"))),
        ended => ended,
    }
}

fn send_all(
    arguments: &Import,
    client: &Client,
    lines: &mut Lines<'_>,
    results: &mut Results<'_, '_>,
    totals: &mut Totals,
    progress: &ProgressBar,
) -> Result<(), Failure> {
    let endpoint = Endpoint::new(&["keys", "import"]);
    let mut most = usize::try_from(arguments.batch).unwrap_or(usize::MAX);
    let mut waiting: VecDeque<Line> = VecDeque::new();
    loop {
        lines.fill(&mut waiting, most)?;
        let batch: Vec<Line> = take_batch(&mut waiting, most);
        if batch.is_empty() {
            return Ok(());
        }
        let body = batch.iter().flat_map(|line| [line.text.as_slice(), b"\n"]).collect::<Vec<_>>().concat();
        let Some(answer) = client.stream(&endpoint, &body)? else {
            // 413: halve the batch. A single line that is too large is an error of that line.
            if let [line] = batch.as_slice() {
                totals.refused += 1;
                results.write(&LineResult {
                    line: line.number,
                    id: None,
                    error: Some("the line is too long".into()),
                })?;
            } else {
                most = batch.len() / 2;
                prepend(&mut waiting, batch);
            }
            continue;
        };
        let unanswered = read_results(answer, batch, results, totals, progress)?;
        prepend(&mut waiting, unanswered);
        progress.set_position(lines.read);
    }
}

/// Writes each result with the number of its line in the input. Returns the lines without a result.
fn read_results(
    answer: impl BufRead,
    batch: Vec<Line>,
    results: &mut Results<'_, '_>,
    totals: &mut Totals,
    progress: &ProgressBar,
) -> Result<Vec<Line>, Failure> {
    let mut batch: Vec<Option<Line>> = batch.into_iter().map(Some).collect();
    let mut answered = false;
    for text in answer.split(b'\n') {
        let text = text.map_err(|error| Failure::Broken(format!("the response was cut off: {error}")))?;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let strange = || {
            Failure::Broken(
                "the response is not from a tollgate, because it has no results of lines: check --url".to_owned(),
            )
        };
        let mut result: LineResult = serde_json::from_slice(&text).map_err(|_| strange())?;
        let index = usize::try_from(result.line).ok().and_then(|line| line.checked_sub(1)).ok_or_else(strange)?;
        // In the response, lines are numbered from the start of the batch.
        result.line = batch.get_mut(index).and_then(Option::take).ok_or_else(strange)?.number;
        *(if result.id.is_some() { &mut totals.imported } else { &mut totals.refused }) += 1;
        results.write(&result)?;
        answered = true;
        progress.set_message(format!(
            "{} imported, {} refused",
            HumanCount(totals.imported),
            HumanCount(totals.refused)
        ));
    }
    // The server may process only a part of a batch. No part at all would be an endless loop.
    if answered {
        Ok(batch.into_iter().flatten().collect())
    } else {
        Err(Failure::Broken("the server returned no results".to_owned()))
    }
}

fn prepend(waiting: &mut VecDeque<Line>, lines: Vec<Line>) {
    for line in lines.into_iter().rev() {
        waiting.push_front(line);
    }
}

/// Takes at most `most` lines and [`BATCH_BYTES`], but at least one line.
fn take_batch(waiting: &mut VecDeque<Line>, most: usize) -> Vec<Line> {
    let mut batch = Vec::new();
    let mut bytes: usize = 0;
    while let Some(line) = waiting.front() {
        bytes = bytes.saturating_add(line.text.len()).saturating_add(1);
        if !batch.is_empty() && (batch.len() >= most || bytes > BATCH_BYTES) {
            break;
        }
        batch.extend(waiting.pop_front());
    }
    batch
}

/// The input, without blank lines and lines that are done.
struct Lines<'a> {
    input: Box<dyn BufRead>,
    path: &'a Path,
    done: &'a HashSet<u64>,
    /// Number of the last line read.
    number: u64,
    /// Bytes read.
    read: u64,
    skipped: u64,
}

impl Lines<'_> {
    /// Reads until `waiting` has `most` lines or [`BATCH_BYTES`], or the input ends.
    fn fill(&mut self, waiting: &mut VecDeque<Line>, most: usize) -> Result<(), Failure> {
        let mut bytes: usize = waiting.iter().map(|line| line.text.len()).sum();
        while waiting.len() < most && bytes < BATCH_BYTES {
            let mut text = Vec::new();
            // A longer line than a batch is an error, and not read into memory.
            let limit = u64::try_from(BATCH_BYTES).unwrap_or(u64::MAX);
            let read = (&mut self.input).take(limit).read_until(b'\n', &mut text);
            let read = read.map_err(|error| Failure::unreadable(self.path, &error))?;
            if read == 0 {
                break;
            }
            self.number += 1;
            self.read = self.read.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            if read == BATCH_BYTES && !text.ends_with(b"\n") {
                let number = self.number;
                return Err(Failure::Usage(format!(
                    "line {number} has more than {BATCH_BYTES} bytes: the input must be NDJSON, one JSON object per line"
                )));
            }
            let text = text.trim_ascii();
            if text.is_empty() {
                continue;
            }
            if self.done.contains(&self.number) {
                self.skipped += 1;
                continue;
            }
            bytes = bytes.saturating_add(text.len());
            waiting.push_back(Line { number: self.number, text: text.to_vec() });
        }
        Ok(())
    }
}

/// The output of results: a file or standard output.
struct Results<'a, 'o> {
    file: Option<File>,
    out: &'a mut Output<'o>,
}

impl<'a, 'o> Results<'a, 'o> {
    /// Opens the output. Returns also the numbers of the lines that have an id in it.
    fn open(arguments: &Import, out: &'a mut Output<'o>) -> Result<(Self, HashSet<u64>), Failure> {
        let Some(path) = &arguments.output else { return Ok((Self { file: None, out }, HashSet::new())) };
        if !arguments.resume {
            let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| {
                let hint = if error.kind() == io::ErrorKind::AlreadyExists {
                    "; continue with --resume, or choose another file"
                } else {
                    ""
                };
                Failure::Usage(format!("cannot create {}: {error}{hint}", path.display()))
            })?;
            return Ok((Self { file: Some(file), out }, HashSet::new()));
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(|error| Failure::unreadable(path, &error))?;
        let (done, end) = read_done(&mut file, path)?;
        // An incomplete last line is from a run that was killed: drop it.
        let ready = file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end)));
        ready.map_err(|error| Failure::Broken(format!("cannot write {}: {error}", path.display())))?;
        Ok((Self { file: Some(file), out }, done))
    }

    /// Writes a result without buffering, so that a run that is killed loses none.
    fn write(&mut self, result: &LineResult) -> Result<(), Failure> {
        let text = serde_json::to_string(result).map_err(|error| Failure::Broken(error.to_string()))?;
        match &mut self.file {
            Some(file) => file
                .write_all(format!("{text}\n").as_bytes())
                .map_err(|error| Failure::Broken(format!("cannot write the results: {error}"))),
            None => self.out.line(&text),
        }
    }
}

/// The numbers of the lines with an id, and the length of the complete lines in bytes.
fn read_done(file: &mut File, path: &Path) -> Result<(HashSet<u64>, u64), Failure> {
    let mut done = HashSet::new();
    let mut end = 0;
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.read_until(b'\n', &mut text).map_err(|error| Failure::unreadable(path, &error))?;
        if !text.ends_with(b"\n") {
            // Guards another file, such as the input, that consists of one line without a line end.
            let ours = text.is_empty() || end > 0 || br#"{"line":"#.starts_with(text.get(..8).unwrap_or(&text));
            return if ours { Ok((done, end)) } else { Err(not_results(path)) };
        }
        let result: LineResult = serde_json::from_slice(&text).map_err(|_| not_results(path))?;
        if result.id.is_some() {
            done.insert(result.line);
        }
        end += u64::try_from(read).unwrap_or(0);
    }
}

fn not_results(path: &Path) -> Failure {
    Failure::Usage(format!("{} does not contain results of an import: choose another --output", path.display()))
}

/// The input, and its length if it is a regular file.
fn open_input(path: &Path) -> Result<(Box<dyn BufRead>, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(io::stdin())), None));
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(|error| Failure::unreadable(path, &error))?;
    Ok((Box::new(BufReader::new(file)), metadata.is_file().then_some(metadata.len())))
}

/// Visible only if stderr is a terminal.
fn progress_bar(length: Option<u64>, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:30} {percent:>3} %  {msg}  {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lines<'a>(input: &'static [u8], done: &'a HashSet<u64>) -> Lines<'a> {
        Lines { input: Box::new(input), path: Path::new("-"), done, number: 0, read: 0, skipped: 0 }
    }

    fn numbers(batch: &[Line]) -> Vec<u64> {
        batch.iter().map(|line| line.number).collect()
    }

    #[test]
    fn lines_count_as_in_the_input_and_what_is_done_is_skipped() {
        let done = HashSet::from([3]);
        let input = b"{\"a\":1}\r\n\n{\"done\":1}\n  {\"b\":2}  \n{\"c\":3}";
        let mut lines = lines(input, &done);
        let mut waiting = VecDeque::new();
        lines.fill(&mut waiting, 2).unwrap();
        let batch = take_batch(&mut waiting, 2);
        assert_eq!(numbers(&batch), [1, 4]);
        assert_eq!(batch[1].text, b"{\"b\":2}");
        lines.fill(&mut waiting, 2).unwrap();
        assert_eq!(numbers(&take_batch(&mut waiting, 2)), [5]);
        lines.fill(&mut waiting, 2).unwrap();
        assert!(take_batch(&mut waiting, 2).is_empty());
        assert_eq!((lines.skipped, lines.read), (1, u64::try_from(input.len()).unwrap()));
    }

    #[test]
    fn a_request_ends_before_it_has_too_many_bytes() {
        let line = |number| Line { number, text: vec![b'x'; BATCH_BYTES / 2] };
        let mut waiting = VecDeque::from([line(1), line(2), line(3)]);
        assert_eq!(numbers(&take_batch(&mut waiting, 9)), [1]);
        assert_eq!(numbers(&take_batch(&mut waiting, 9)), [2]);
    }

    #[test]
    fn results_are_read_up_to_their_last_whole_line() {
        let path = std::env::temp_dir().join(format!("tollgate-results-{}", std::process::id()));
        let whole = "{\"line\":1,\"id\":\"a\"}\n{\"line\":2,\"error\":\"tier: no\"}\n";
        fs::write(&path, format!("{whole}{{\"line\":3,\"id")).unwrap();
        let (done, end) = read_done(&mut File::open(&path).unwrap(), &path).unwrap();
        assert_eq!((done, end), (HashSet::from([1]), u64::try_from(whole.len()).unwrap()));

        for not_ours in ["{\"key\":\"secret\",\"tier\":\"free\"}\n", "{\"key\":\"secret\",\"tier\":\"free\"}", "text"] {
            fs::write(&path, not_ours).unwrap();
            assert!(matches!(read_done(&mut File::open(&path).unwrap(), &path), Err(Failure::Usage(_))), "{not_ours}");
        }
        for torn in ["", "{", "{\"line\":1,\"i"] {
            fs::write(&path, torn).unwrap();
            assert_eq!(read_done(&mut File::open(&path).unwrap(), &path), Ok((HashSet::new(), 0)), "{torn}");
        }
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn answers_are_matched_by_line_and_the_rest_is_returned() {
        let mut written = Vec::new();
        let mut out = Output::new(&mut written, false, true);
        let mut results = Results { file: None, out: &mut out };
        let mut totals = Totals::default();
        let batch =
            |numbers: &[u64]| numbers.iter().map(|&number| Line { number, text: Vec::new() }).collect::<Vec<_>>();
        let bar = ProgressBar::hidden();
        let mut read =
            |answer: &str| read_results(answer.as_bytes(), batch(&[4, 6, 9]), &mut results, &mut totals, &bar);

        let rest = read("{\"line\":3,\"id\":\"c\"}\n{\"line\":1,\"error\":\"tier: no\"}\n\n").unwrap();
        assert_eq!(numbers(&rest), [6]);
        for strange in [
            "",
            "{\"line\":0,\"id\":\"a\"}",
            "{\"line\":4,\"id\":\"a\"}",
            "<html>",
            "{\"line\":1,\"id\":\"a\"}\n{\"line\":1,\"id\":\"a\"}",
        ] {
            assert!(matches!(read(strange), Err(Failure::Broken(_))), "{strange}");
        }
        assert_eq!((totals.imported, totals.refused), (2, 1));
        let written = String::from_utf8(written).unwrap();
        assert!(written.starts_with("{\"line\":9,\"id\":\"c\"}\n{\"line\":4,\"error\":\"tier: no\"}\n"));
    }
}
