//! The model is served by two replicas behind one address, and asked as programs ask OpenAI's models.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{cluster::Cluster, say::Say, shown};

const NAME: &str = "ulysses";
const REPLICAS: &str = "2";
/// Not that of a service which the user may have already.
const PORT: &str = "18000";
const PROMPT: &str = "Mr Bloom";

/// By the official client. The model continues the text, as those do that were not taught to chat.
const ASK: &str = r#"import sys, openai
url, key, model, prompt = sys.argv[1:]
client = openai.OpenAI(base_url=url + "/v1", api_key=key)
print(client.completions.create(model=model, prompt=prompt, max_tokens=64, temperature=0).choices[0].text)
"#;

#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) text: String,
    /// From the command to the address.
    pub(super) served_after: Duration,
}

impl Answer {
    /// As many as stand on a line.
    pub(super) fn first_words(&self) -> String {
        let line = format!("{PROMPT} {}", self.text.replace(char::is_whitespace, " "));
        line.chars().take(60).collect()
    }
}

pub(super) fn ask(cluster: &Cluster, model: &Path, environment: &Path, say: Say) -> Result<Answer> {
    let started = Instant::now();
    let line = ["serve", &shown(model), "--name", NAME, "--replicas", REPLICAS, "--port", PORT];
    say.command(&format!("ff2ctl {}", line.join(" ")));
    let told = cluster.json(&line)?;
    let served_after = started.elapsed();
    let word = |of: &str| told[of].as_str().with_context(|| format!("no {of} in {told}"));
    let (url, key) = (word("url")?, word("key")?);
    say.line(&format!("{url}, after {:.1} s", served_after.as_secs_f64()));
    let text = match python(cluster, environment, say) {
        Some(python) => {
            say.command(&format!(
                "python3 ask.py {url} $KEY {NAME} '{PROMPT}'    # by the client of OpenAI"
            ));
            let mut command = Command::new(python);
            output(cluster, command.args(["-c", ASK, url, key, NAME, PROMPT]))?
        }
        None => by_curl(cluster, url, key, say)?,
    };
    ensure!(!text.trim().is_empty(), "the model answered nothing");
    say.line(&format!("{PROMPT}{}", text.trim_end()));
    cluster.show(&["serve", "list"])?;
    cluster.show(&["serve", "stop", NAME])?;
    Ok(Answer { text: text.trim().to_owned(), served_after })
}

/// One that has the client, made for this if need be. `None`: there is no Python here, or no way to the client.
fn python(cluster: &Cluster, environment: &Path, say: Say) -> Option<PathBuf> {
    let works =
        |python: &Path| output(cluster, Command::new(python).args(["-c", "import openai"])).is_ok();
    let python = Path::new("python3");
    if works(python) {
        return Some(python.to_owned());
    }
    let at = shown(environment);
    say.command(&format!("python3 -m venv {at} && {at}/bin/pip install openai"));
    let made = output(cluster, Command::new(python).args(["-m", "venv", &at])).and_then(|_| {
        let mut pip = Command::new(environment.join("bin/pip"));
        output(cluster, pip.args(["install", "--quiet", "--disable-pip-version-check", "openai"]))
    });
    let own = environment.join("bin/python3");
    if made.is_ok() && works(&own) {
        return Some(own);
    }
    say.line("the client cannot be installed here, so curl asks instead");
    None
}

fn by_curl(cluster: &Cluster, url: &str, key: &str, say: Say) -> Result<String> {
    let asked =
        serde_json::json!({ "model": NAME, "prompt": PROMPT, "max_tokens": 64, "temperature": 0 })
            .to_string();
    say.command(&format!(
        "curl -H \"Authorization: Bearer $KEY\" {url}/v1/completions --json '{asked}'"
    ));
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "60", "--header"]);
    curl.args([
        &format!("Authorization: Bearer {key}"),
        "--header",
        "Content-Type: application/json",
    ]);
    let told = output(cluster, curl.args(["--data", &asked, &format!("{url}/v1/completions")]))?;
    let told: serde_json::Value =
        serde_json::from_str(&told).context("read what the server told")?;
    let text = told["choices"][0]["text"].as_str();
    Ok(text.with_context(|| format!("no text in {told}"))?.to_owned())
}

fn output(cluster: &Cluster, command: &mut Command) -> Result<String> {
    let program = shown(Path::new(command.get_program()));
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let output = cluster.stop().run(piped).with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program} failed: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
