// Live: which page is shown, what it needs beside the status, and the stream that keeps it fresh.
const main = document.getElementById("main");
const seen = { status: null, at: 0, lost: null };
const extra = { key: "", value: {}, at: 0 };

function route() {
  const [page = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(part => { try { return decodeURIComponent(part); } catch { return part; } });
  return { page: page || "overview", id: rest.join("/") };
}

// What a page needs beside the status: asked when it is opened, after an act, and every few seconds.
const NEEDS = {
  projections: async id => {
    const name = id.split("@")[0];
    const [one, log] = await Promise.all([ask(`/api/projections/${encodeURIComponent(name)}`), ask(`/api/log?limit=10&projection=${encodeURIComponent(name)}`)]);
    remember(one.history);
    return { definitions: one.definitions, log };
  },
  "dead-letters": async id => {
    const [projection, state = "open"] = id.split("/");
    return { letters: await ask(`/api/dead-letters?limit=200&state=${state || "open"}${projection ? `&projection=${encodeURIComponent(projection)}` : ""}`) };
  },
  log: async id => ({ log: await ask(`/api/log?limit=200${id ? `&projection=${encodeURIComponent(id)}` : ""}`) }),
  configuration: async () => ({ configuration: await ask("/api/config") }),
  overview: async () => { remember(await ask("/api/history")); return {}; },
};
const EVERY = { overview: 60e3, projections: 15e3, "dead-letters": 5e3, log: 5e3, configuration: 60e3 };

async function gather(force) {
  const { page, id } = route(), key = `${page} ${id}`;
  if (!NEEDS[page] || (!force && extra.key === key && Date.now() - extra.at < EVERY[page])) return;
  if (extra.key !== key) Object.assign(extra, { key, value: {} });
  extra.at = Date.now();
  try {
    const value = await NEEDS[page](id);
    if (extra.key === key) extra.value = value;
  } catch (trouble) {
    if (extra.key === key) extra.value = { ...extra.value, trouble };
  }
  draw();
}

function view(status) {
  const { page, id } = route(), { trouble } = extra.value;
  const wrong = trouble && h("div", { class: "concern bad", role: "alert" }, h("p", {}, trouble.message), h("p", {}, trouble.remedy));
  if (page === "overview") return overview(status);
  if (page === "projections") return [...detail(status, id, extra.value), wrong];
  if (page === "log") return [h("h1", {}, "What operators did", id && h("small", {}, ` to ${id}`)), wrong, extra.value.log && logTable(extra.value.log)];
  if (page === "configuration") return [h("h1", {}, "Configuration"), wrong, extra.value.configuration && configurationNode(extra.value.configuration)];
  if (page === "dead-letters") {
    const [projection = "", state = "open"] = id.split("/");
    const go = (p, s) => { location.hash = `#/dead-letters/${encodeURIComponent(p)}/${s}`; };
    const names = [...new Set([...status.projections.map(idOf), projection].filter(Boolean))];
    return [h("h1", {}, "Dead letters"), h("p", { class: "soft" }, "Events that are parked instead of applied. Nothing is lost: they are in the log."),
      h("div", { class: "filters" },
        h("label", {}, "Projection", h("select", { onchange: event => go(event.target.value, state || "open") },
          h("option", { value: "", selected: !projection }, "all"), names.map(name => h("option", { value: name, selected: name === projection }, name)))),
        h("label", {}, "State", h("select", { onchange: event => go(projection, event.target.value) },
          ["open", "discarded"].map(s => h("option", { value: s, selected: s === (state || "open") }, s))))),
      wrong, lettersNode(state || "open", extra.value.letters, projection, () => gather(true))];
  }
  return [h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/" }, "Overview"))];
}

function draw() {
  const { status, lost } = seen, { page } = route();
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.dataset.page === page || (page === "projections" && link.dataset.page === "overview");
    if (current) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  fill(document.getElementById("lost"), lost ? [h("div", { class: "concern bad" }, lost.map((text, i) => h("p", {}, i ? prose(text) : h("strong", {}, text))))] : []);
  document.body.classList.toggle("stale", Boolean(lost));
  fill(main, status ? view(status).flat(9).filter(Boolean) : [h("h1", {}, lost ? "No status" : "Looking …")]);
  const headline = lost ? lost[0] : status ? verdict(status)[1] : "foldd", name = `${headline} – foldd`;
  if (document.title !== name) document.title = name;
  const age = document.getElementById("age"), text = seen.at ? `as of ${new Date(seen.at).toLocaleTimeString()}` : "";
  if (age.textContent !== text) age.textContent = text;
}

function hear(event, data) {
  const reasons = Object.entries(data.readiness ?? {}).filter(([, check]) => !check.ok).flatMap(([name, check]) => [`${name}: ${check.reason}`, `What to do: ${check.remedy}`]);
  if (event === "status") {
    Object.assign(seen, { status: data.status, at: Date.now(), lost: null });
    measureGrowth(data.status.store.head_position);
    observe(data.status);
    gather(false);
  } else {
    const age = data.age_seconds === null ? "There is no status yet" : `The status is ${duration(data.age_seconds)} old`;
    seen.lost = [`${age}: it cannot be read anew.`, ...reasons];
  }
  draw();
}

let stream = new AbortController();
const reconnect = () => stream.abort();
const reconsider = () => gather(true);
async function learnVerbs() {
  const [document, configuration] = await Promise.all([ask("/api/openapi.json"), ask("/api/config")]);
  const verbs = Object.keys(document.paths).map(path => path.match(/^\/api\/projections\/\{name\}\/([a-z-]+)$/)?.[1]).filter(verb => ACTS[verb]);
  known = new Set(configuration.verbs ? verbs : []);
}

// Stays connected for as long as the page is there: after the daemon's restart, and after a new token.
async function live() {
  for (;;) {
    stream = new AbortController();
    try {
      await learnVerbs();
      await gather(true);
      await listen(hear, stream.signal);
      seen.lost = ["The connection ended, trying again."];
    } catch (trouble) {
      if (stream.signal.aborted) continue;
      seen.lost = trouble instanceof Trouble ? [trouble.message, trouble.remedy && `What to do: ${trouble.remedy}`].filter(Boolean)
        : ["foldd does not answer, trying again every second.", "What you see is the last it said. See whether the process runs: its log says why not."];
      if (trouble.status === 401 && !dialog().open) askToken(token() ? "This is not the token; it may have been rotated." : "This foldd is open beyond its machine, so it asks for the token.");
    }
    draw();
    await pause(1000);
  }
}
document.getElementById("token").onclick = () => askToken("Verbs ask for it, and reading does where foldd is open beyond its machine.");
addEventListener("hashchange", () => { draw(); gather(true); main.focus({ preventScroll: true }); scrollTo(0, 0); });
document.querySelector(".skip").onclick = event => { event.preventDefault(); main.focus(); };
draw();
live();
