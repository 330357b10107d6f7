//! The chat page, by keyboard, in a real browser, against the real server.

use serde_json::json;

use crate::{
    browser::Browser,
    common::{Options, Server},
};

const ANSWERED: &str =
    "running === null && document.querySelectorAll('article.assistant').length > 0";
const LAST: &str = "current.messages.at(-1).content";

#[test]
fn a_conversation_by_keyboard() {
    let server = Server::with(Options::default());
    let Some(mut page) = Browser::open(&format!("http://{}/", server.address)) else { return };
    page.wait("document.getElementById('model')?.textContent === 'tiny'");
    page.value("Object.assign(settings, {max_tokens: '40', seed: '3', temperature: '1'}); true");

    page.write("Hello there");
    page.press("Enter", 13);
    page.wait(ANSWERED);
    let first = page.text(LAST);
    assert!(!first.is_empty());
    assert_eq!(page.value("document.querySelectorAll('article').length"), json!(2));
    assert_eq!(page.text("document.querySelector('article.user').textContent"), "Hello there");
    assert!(page.text("document.querySelector('article .tools').textContent").contains("tokens"));
    assert_eq!(page.text("document.getElementById('text').value"), "");
    assert!(page.screenshot("chat-light.png") > 5000);

    // It is kept in the browser.
    page.call("Page.reload", &json!({}));
    page.wait("document.getElementById('model')?.textContent === 'tiny'");
    assert_eq!(page.text(LAST), first);

    // Another seed, another answer in place of the first.
    page.value("Object.assign(settings, {max_tokens: '40', seed: '4', temperature: '1'}); true");
    page.value("document.querySelector('article .tools button').click(); true");
    page.wait(ANSWERED);
    assert_ne!(page.text(LAST), first);
    assert_eq!(page.value("document.querySelectorAll('article').length"), json!(2));

    // Thought is folded, and open where somebody opens it.
    page.value("document.getElementById('text').focus(); true");
    page.write("think hard");
    page.press("Enter", 13);
    page.wait("current.messages.length === 4 && running === null");
    assert_eq!(page.value("document.querySelector('details').open"), json!(false));
    assert_eq!(page.text("document.querySelector('summary').textContent"), "Thought");
    assert!(!page.text("current.messages.at(-1).reasoning").is_empty());

    // Escape stops, and the server then generates for nobody.
    page.value("settings.max_tokens = '900'; true");
    page.write("go on");
    let busy =
        json!({"model": "tiny", "prompt": "x", "n": 7, "max_tokens": 900, "ignore_eos": true});
    std::thread::scope(|scope| {
        // Alone the answer would be there before anybody could stop it.
        let others = scope.spawn(|| server.post("/v1/completions", &busy));
        server.until(|figures| figures.running > 0);
        page.press("Enter", 13);
        page.wait(
            "running !== null && current.messages.at(-1).content.length > 0 \
             && document.getElementById('send').textContent === 'Stop'",
        );
        page.press("Escape", 27);
        page.wait("running === null");
        assert!(!others.is_finished(), "it was stopped, not done");
        assert_eq!(others.join().unwrap().0, 200);
    });
    server.idle();

    // On a phone, in the dark.
    let phone = json!({"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": true});
    page.call("Emulation.setDeviceMetricsOverride", &phone);
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    page.call("Emulation.setEmulatedMedia", &dark);
    assert_eq!(page.value("document.documentElement.scrollWidth <= innerWidth"), json!(true));
    assert!(page.screenshot("chat-dark-phone.png") > 5000);

    // What a model says is text, whatever it looks like.
    page.value(
        "current.messages.push({role: 'assistant', content: '<b id=\"bold\">x</b>'}); draw(); true",
    );
    assert_eq!(page.value("document.getElementById('bold') === null"), json!(true));
}

#[test]
fn a_page_without_a_key_asks_for_one() {
    let server = Server::with(Options { keys: Some(Default::default()), ..Options::default() });
    let Some(mut page) = Browser::open(&format!("http://{}/", server.address)) else { return };
    page.wait("document.getElementById('dialog')?.open === true");
    page.value("document.getElementById('key').focus(); true");
    page.write(server.key.as_ref().unwrap());
    page.press("Enter", 13);
    page.wait("document.getElementById('model').textContent === 'tiny'");
}
