// Nodes: a view is described anew at each look and laid over what is there, so that focus, selection and a screen
// reader's place survive. Whatever comes from outside enters as text: nothing here parses markup.
const SVG = new Set(["svg", "path", "line"]);
const LISTENERS = ["onclick", "oninput", "onchange", "onsubmit"];
// State of the reader's own, which no look takes away.
const KEPT = new Set(["open"]);

function h(tag, props, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (LISTENERS.includes(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(9).filter(child => child !== null && child !== undefined && child !== false).map(child =>
    child instanceof Node ? child : document.createTextNode(String(child))));
  return node;
}

function lay(old, now) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== now.data) old.data = now.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!now.hasAttribute(name) && !KEPT.has(name)) old.removeAttribute(name);
  for (const { name, value } of now.attributes) if (!KEPT.has(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const name of LISTENERS) if (old[name] !== now[name]) old[name] = now[name];
  fill(old, [...now.childNodes]);
}

const keyOf = node => node.dataset?.key;
const alike = (a, b) => a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

// Makes a node's children what they shall be. Those with a key are found again wherever they are.
function fill(parent, children) {
  const keyed = new Map([...parent.childNodes].filter(keyOf).map(node => [node.nodeName + keyOf(node), node]));
  let place = parent.firstChild;
  for (const now of children) {
    const known = keyOf(now) ? keyed.get(now.nodeName + keyOf(now)) : place && alike(place, now) ? place : null;
    if (!known) { parent.insertBefore(now, place); continue; }
    if (known === place) place = place.nextSibling; else parent.insertBefore(known, place);
    lay(known, now);
  }
  while (place) { const next = place.nextSibling; place.remove(); place = next; }
}

// A table that turns into a list of cards where the screen is narrow. Columns are [label, is it a number].
function table(label, columns, rows) {
  return h("div", { class: "table", tabindex: "0", role: "region", "aria-label": label },
    h("table", { class: "stack", role: "table" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns.map(([name, num]) =>
        h("th", { scope: "col", role: "columnheader", class: num && "num" }, name)))),
      h("tbody", { role: "rowgroup" }, rows.map(([key, ...cells]) => h("tr", { role: "row", "data-key": key }, cells.map((cell, i) => i
        ? h("td", { role: "cell", class: columns[i][1] && "num", "data-label": columns[i][0] }, h("span", {}, cell))
        : h("th", { role: "rowheader", scope: "row" }, cell)))))));
}
const fact = (name, value, more) => h("div", {}, h("dt", {}, name), h("dd", {}, value), h("dd", { class: "more" }, more));
const phase = p => h("span", { class: `phase ${p.phase}` }, spaced(p.phase));
