//! The pages of docs/patterns are true: their commands run, and print what the page says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fleet_tests::{Mosquitto, binary, eventually};

/// The command of a page, and what it prints.
struct Shown {
    example: String,
    output: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads the one block of a page that shows a terminal.
fn shown(page: &str) -> Shown {
    let (_, block) = page.split_once("```console\n").unwrap();
    let (block, _) = block.split_once("\n```").unwrap();
    let (command, output) = block.split_once('\n').unwrap();
    let example = command.strip_prefix("$ cargo run --quiet -p fleet-shared --example ");
    Shown {
        example: example.unwrap().to_owned(),
        output: format!("{output}\n"),
    }
}

#[actix::test]
async fn every_page_shows_what_its_example_prints() {
    let broker = Mosquitto::start().await;
    let mut pages: Vec<PathBuf> = std::fs::read_dir(root().join("docs/patterns"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("README.md"))
        .collect();
    pages.sort();
    let mut examples = Vec::new();
    for path in pages {
        let page = std::fs::read_to_string(&path).unwrap();
        let Shown { example, output } = shown(&page);
        let source = format!("shared/examples/{example}.rs");
        assert!(
            page.contains(&format!("(../../{source})")),
            "{} does not link {source}",
            path.display()
        );
        let lines = std::fs::read_to_string(root().join(&source))
            .unwrap()
            .lines()
            .count();
        assert!(lines < 80, "{source} has {lines} lines");
        let program = binary("examples").join(&example);
        let child = Command::new(&program)
            .env("MQTT_URL", broker.url())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| {
            panic!(
                "{}: {error}; build it with `cargo build -p fleet-shared --examples`",
                program.display()
            )
        });
        let limit = Duration::from_secs(60);
        eventually(limit, &format!("{example} ends"), async || {
            child.try_wait().unwrap().ok_or("it runs")
        })
        .await;
        let ended = child.wait_with_output().unwrap();
        let printed = String::from_utf8(ended.stdout).unwrap();
        assert!(ended.status.success(), "{example}: {printed}");
        assert_eq!(printed, output, "{}", path.display());
        examples.push(example);
    }
    let sources = std::fs::read_dir(root().join("shared/examples")).unwrap();
    let mut all: Vec<String> = sources
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "rs"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    all.sort();
    examples.sort();
    assert_eq!(examples, all, "every example has its page");
}
