//! A headless Chromium, driven by its DevTools protocol over two pipes.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ff2_cluster_tests::may_skip;
use serde_json::{Value, json};
use tempfile::TempDir;

/// For what a page needs on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One page. The browser ends with it.
pub(crate) struct Browser {
    process: Child,
    to: File,
    from: BufReader<File>,
    session: Option<String>,
    next: u64,
    _profile: TempDir,
}

impl Browser {
    /// None: there is no Chromium, and that may be so.
    pub(crate) fn open(url: &str) -> Option<Self> {
        if let Err(error) = Command::new("chromium").arg("--version").stdout(Stdio::null()).status()
        {
            let missing = format!("chromium does not start, the page is not tried: {error}");
            assert!(may_skip(&missing), "{missing}; FF2_TEST_ALLOW_SKIP=chromium leaves this out");
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let (to, from) = (profile.path().join("to"), profile.path().join("from"));
        assert!(Command::new("mkfifo").args([&to, &from]).status().unwrap().success());
        let flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
                     --disable-component-update --disable-sync --remote-debugging-pipe";
        // Chromium reads commands from descriptor 3 and answers on 4.
        let process = Command::new("sh")
            .args([
                "-c",
                &format!("exec chromium {flags} --user-data-dir=\"$0\" 3<\"$1\" 4>\"$2\""),
            ])
            .args([&profile.path().join("profile"), &to, &from])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = OpenOptions::new().write(true).open(&to).unwrap();
        let from = BufReader::new(File::open(&from).unwrap());
        let mut browser = Self { process, to, from, session: None, next: 0, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({"url": url}))["targetId"].clone();
        let attached =
            browser.call("Target.attachToTarget", &json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.enable", &json!({}));
        Some(browser)
    }

    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        write!(self.to, "{message}\0").unwrap();
        loop {
            let mut answer = Vec::new();
            assert!(self.from.read_until(0, &mut answer).unwrap() > 0, "the browser ended");
            let answer: Value = serde_json::from_slice(&answer[..answer.len() - 1]).unwrap();
            if answer["id"] == self.next {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let answer = self
            .call("Runtime.evaluate", &json!({"expression": expression, "returnByValue": true}));
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    pub(crate) fn text(&mut self, expression: &str) -> String {
        self.value(expression).as_str().unwrap_or_default().to_owned()
    }

    /// Until an expression is true.
    pub(crate) fn wait(&mut self, expression: &str) {
        let begun = Instant::now();
        while self.value(expression) != json!(true) {
            let shown = || "document.body.innerText";
            assert!(
                begun.elapsed() < PATIENCE,
                "never: {expression}; shown: {}",
                self.text(shown())
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    pub(crate) fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let text = if key == "Enter" && kind == "keyDown" { "\r" } else { "" };
            let params = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", &params);
        }
    }

    /// Kept where `FF2_TEST_SCREENSHOTS` says, for people to look at. Returns its size.
    pub(crate) fn screenshot(&mut self, name: &str) -> usize {
        let shot = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        let png = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        if let Some(folder) = std::env::var_os("FF2_TEST_SCREENSHOTS") {
            std::fs::write(std::path::Path::new(&folder).join(name), &png).unwrap();
        }
        png.len()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
