//! Whether everybody can use the page: names for what can be pressed, headings in order, contrast, narrow screens.

use super::{faced, json, opened};
use crate::world::World;

/// What is wrong with the page as it is, one line each.
const EXAMINE: &str = r#"(() => {
  const wrong = [], seen = new Set();
  const visible = node => node.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  for (const node of document.querySelectorAll("[id]")) { if (seen.has(node.id)) wrong.push(`id twice: ${node.id}`); seen.add(node.id); }
  for (const name of ["aria-labelledby", "aria-describedby"]) for (const node of document.querySelectorAll(`[${name}]`)) {
    if (visible(node)) for (const id of node.getAttribute(name).split(" ")) if (!document.getElementById(id)) wrong.push(`${name} names nothing: ${id}`); }
  if (!document.documentElement.lang) wrong.push("no language");
  if (!document.title) wrong.push("no title");
  for (const one of ["main", "header", "nav", "footer"]) if (document.querySelectorAll(one).length !== 1) wrong.push(`not one ${one}`);
  const levels = [...document.querySelectorAll("h1, h2, h3")].filter(visible).map(node => Number(node.tagName[1]));
  if (levels.filter(level => level === 1).length !== 1) wrong.push(`headings of the first level: ${levels}`);
  levels.forEach((level, i) => { if (i && level > levels[i - 1] + 1) wrong.push(`a heading is left out: ${levels}`); });
  for (const node of document.querySelectorAll("[tabindex]")) if (node.tabIndex > 0) wrong.push("a tab order of its own");
  for (const node of document.querySelectorAll("table")) if (!node.querySelector("th[scope=col]")) wrong.push("a table without headings");
  for (const node of document.querySelectorAll("svg")) if (!node.ariaHidden && !(node.getAttribute("role") === "img" && node.getAttribute("aria-label"))) wrong.push("a picture without words");
  for (const node of document.querySelectorAll("input, select")) if (visible(node) && !node.labels.length) wrong.push(`a field without label: ${node.name}`);
  if (document.documentElement.scrollWidth > innerWidth) wrong.push(`wider than the screen: ${document.documentElement.scrollWidth} of ${innerWidth}`);
  const parse = text => text.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const ground = node => { for (; node; node = node.parentElement) { const colour = parse(getComputedStyle(node).backgroundColor); if (colour.length === 3 || colour[3] > 0) return colour; } return [255, 255, 255]; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !visible(node) || ["SCRIPT", "STYLE", "NOSCRIPT", "OPTION"].includes(node.tagName) || node.closest("svg, noscript")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))], ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const large = parseFloat(getComputedStyle(node).fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) wrong.push(`contrast ${ratio.toFixed(2)}: ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return wrong;
})()"#;

/// Roles that somebody must be able to call by a name.
const ACTED_ON: [&str; 6] = ["button", "link", "textbox", "combobox", "checkbox", "dialog"];

#[tokio::test]
async fn everybody_can_use_it_on_any_screen_in_both_themes() {
    let (world, daemon) = faced().await;
    assert_eq!(world.foldd(&["pause", "tally", "--why", "so that there is something to see"]).await.code, 0);
    let Some((mut browser, base)) = opened(&world, &daemon).await else { return };
    for (width, height) in [(320, 640), (1280, 900), (2560, 1440)] {
        browser.sized(width, height).await;
        for theme in ["light", "dark"] {
            browser.theme(theme).await;
            for (page, there) in [
                ("", "an operator paused it"),
                ("projections/tally%401", "Batch times"),
                ("dead-letters", "Nothing is parked"),
                ("log", "so that there is something to see"),
                ("configuration", "daemon.workers"),
            ] {
                browser.go(&format!("{base}#/{page}")).await;
                browser.shows(there).await;
                let wrong = browser.eval(EXAMINE).await;
                assert_eq!(wrong, json!([]), "#/{page} at {width} in {theme}");
            }
        }
    }
    browser.go(&format!("{base}#/")).await;
    browser.press("Resume: tally@1").await;
    browser.until("document.querySelector('dialog[open]')").await;
    assert_eq!(browser.eval(EXAMINE).await, json!([]), "the dialog");
    let tree = browser.call("Accessibility.getFullAXTree", json!({})).await;
    let mut named = 0;
    for node in tree["nodes"].as_array().expect("a tree") {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        if node["ignored"] == false && ACTED_ON.contains(&role) {
            assert!(node["name"]["value"].as_str().is_some_and(|name| !name.is_empty()), "{node}");
            named += 1;
        }
    }
    assert!(named >= 4, "{named}");
}

#[tokio::test]
async fn it_can_be_used_by_keyboard_alone_and_a_look_takes_no_focus_away() {
    let (world, daemon) = faced().await;
    let Some((mut browser, _)) = opened(&world, &daemon).await else { return };
    browser.shows("All is well").await;
    let mut reached = Vec::new();
    for _ in 0..12 {
        for kind in ["keyDown", "keyUp"] {
            browser
                .call(
                    "Input.dispatchKeyEvent",
                    json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 }),
                )
                .await;
        }
        let focus = browser.eval("document.activeElement.textContent.trim()").await;
        reached.push(focus.as_str().unwrap_or_default().to_owned());
    }
    for name in ["To the content", "Dead letters", "Token", "tally"] {
        assert!(reached.iter().any(|text| text == name), "{name}: {reached:?}");
    }
    browser.eval("document.querySelector('tbody a').focus()").await;
    let seen = World::value(&world, "select count(*) from es_events").await;
    world.append("order-7", "Placed", "{}").await;
    let grown = seen.parse::<i64>().expect("a number") + 1;
    browser.until(&format!("document.querySelector('.facts dd').textContent === '{grown}'")).await;
    assert_eq!(browser.eval("document.activeElement.textContent.trim()").await, "tally");
}
