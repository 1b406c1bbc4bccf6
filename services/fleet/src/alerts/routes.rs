//! `fleet alerts routes`.

use std::path::PathBuf;
use std::process::ExitCode;

use alerting::{DEFAULT_ROUTES, Labels, Routes};
use fleet_shared::config::LogArgs;
use serde_json::json;

use super::say;
use crate::place::Output;

const EXAMPLES: &str = "\
Examples:
  fleet alerts routes routes.yaml
  fleet alerts routes routes.yaml --alert severity=critical --alert location=hall/1";

/// Checks a file of routes, and tells where an alert would go.
///
/// Exits with 1 if the file is wrong, and tells line and column.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct RoutesArgs {
    /// The file; without, the routes that hold when alerting is given none.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A label of an alert to try, such as severity=critical; repeat it for several.
    #[arg(long = "alert", value_name = "LABEL=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as label=value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(super) fn run(args: &RoutesArgs) -> anyhow::Result<ExitCode> {
    let (name, text) = match &args.file {
        None => ("the default".to_owned(), DEFAULT_ROUTES.to_owned()),
        Some(path) => {
            let read = std::fs::read_to_string(path);
            let text = read.map_err(|error| {
                let remedy = format!("it cannot be read: {error}");
                fleet_shared::config::ConfigError::value("FILE", path.display(), remedy)
            })?;
            (path.display().to_string(), text)
        }
    };
    let answer = match Routes::parse(&text) {
        Ok(routes) => right(&name, &routes, args)?,
        Err(errors) => {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let answer = match args.output {
                Output::Text => errors.iter().fold(String::new(), |text, error| {
                    text + &format!("{name}: {error}\n")
                }),
                Output::Json => json!({ "file": name, "errors": errors }).to_string() + "\n",
            };
            say(&answer)?;
            return Ok(ExitCode::FAILURE);
        }
    };
    say(&answer)
}

fn right(name: &str, routes: &Routes, args: &RoutesArgs) -> anyhow::Result<String> {
    let labels: Labels = args.labels.iter().cloned().collect();
    let ends = if args.labels.is_empty() {
        Vec::new()
    } else {
        routes.explain(&labels)
    };
    let missing = routes.missing_secrets();
    if args.output == Output::Json {
        let routes: Vec<_> = ends
            .iter()
            .map(|(route, receiver, channels)| json!({ "route": route, "receiver": receiver, "channels": channels }))
            .collect();
        let answer = json!({ "file": name, "errors": [], "missing": missing, "routes": routes });
        return Ok(serde_json::to_string(&answer)? + "\n");
    }
    let mut text = format!("{name} is right\n");
    for sentence in &missing {
        text += &format!("not here: {sentence}\n");
    }
    if args.labels.is_empty() {
        for channel in routes.channels() {
            text += &format!("  {}\n", channel.name);
        }
    }
    for (route, receiver, channels) in ends {
        let channels = if channels.is_empty() {
            "nobody".to_owned()
        } else {
            channels.join(", ")
        };
        text += &format!("{route} -> {receiver}: {channels}\n");
    }
    Ok(text)
}
