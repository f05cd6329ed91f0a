// Acts: every verb is one line. Those that cannot be taken back want the projection's name typed. A verb that the daemon
// does not have is not shown.
const ACTS = {
  pause: { label: "Pause", tells: "No batch of it commits until somebody resumes it. Everything else goes on.", when: p => !["paused", "halted"].includes(p.phase) && p.role !== "previous" },
  resume: { label: "Resume", tells: "It goes on where it stands. If what stopped it is not mended, it stops again.", when: p => ["paused", "halted"].includes(p.phase) && p.partitions.length > 0 },
  rebuild: { label: "Rebuild", tells: "It is built anew beside itself, and takes its own place when it has caught up.", when: p => p.role === "live" && p.partitions.length > 0 },
  cutover: { label: "Cut over", tells: "The version that was built takes the place of the live one.", grave: true, when: p => p.role === "building" && p.partitions.length > 0 },
  cancel: { label: "Cancel the build", tells: "What was built so far is dropped. The live version is not touched.", grave: true, when: p => p.role === "building" && p.partitions.length > 0 },
  rollback: { label: "Roll back", tells: "This version takes the place of the live one again. The one that is taken back is kept, and not built again unasked.", grave: true, when: p => p.role === "previous" },
  retire: { label: "Retire", tells: "This version and its tables are dropped.", grave: true, when: p => p.role === "previous" },
  retry: { label: "Retry", tells: "The daemon applies them in the order of their streams. What fails again stays parked.", when: () => false },
  discard: { label: "Discard", tells: "They are never applied. The events stay in the log.", grave: true, when: () => false },
};
let known = new Set();
const possible = p => Object.keys(ACTS).filter(verb => known.has(verb) && ACTS[verb].when(p));
const title = p => p.version === undefined ? p.name : idOf(p);

function actButton(verb, p, selection = {}, label = ACTS[verb]?.label, after) {
  if (!known.has(verb)) return null;
  return h("button", { type: "button", class: ACTS[verb].grave && "danger", "data-verb": verb, onclick: () => propose(verb, p, selection, after),
    "aria-label": `${label}: ${title(p)}` }, label);
}

const dialog = () => document.getElementById("ask");
function openDialog(children) {
  fill(dialog(), children.flat(9).filter(Boolean));
  if (!dialog().open) dialog().showModal();
}
const closeDialog = () => { dialog().close(); dialog().replaceChildren(); };
const closeRow = label => h("div", { class: "acts right" }, h("button", { type: "button", onclick: closeDialog }, label));
const field = (name, label, type, more = {}) => h("label", {}, label, h("input", { name, type, autocomplete: "off", spellcheck: "false", ...more }));

function propose(verb, p, selection, after) {
  const act = ACTS[verb], target = title(p), name = target.split("@")[0], wrong = h("p", { class: "wrong", role: "alert" });
  const button = h("button", { type: "submit", class: `main${act.grave ? " danger" : ""}` }, act.label);
  const submit = async event => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(event.target));
    if (act.grave && given.confirm !== name) return wrong.replaceChildren(`Type ${name} to confirm.`);
    if (given.token) sessionStorage.setItem(TOKEN, given.token.trim());
    sessionStorage.setItem("foldd who", given.who);
    button.disabled = true;
    try {
      const body = { by: given.who || null, why: given.why || null, if_revision: p.revision ?? null, ...selection };
      const done = await post(`/api/projections/${encodeURIComponent(target)}/${verb}`, body);
      closeDialog();
      tellUser(`${act.label}: done for ${done.projection}, revision ${done.revision}.`);
      after?.();
      reconsider();
    } catch (trouble) {
      button.disabled = false;
      if (trouble.status === 401) sessionStorage.removeItem(TOKEN);
      wrong.replaceChildren(`${trouble.message}. ${trouble.remedy ?? ""}`);
      if (trouble.status === 401 && !event.target.elements.token) event.target.insertBefore(field("token", "Token", "password"), wrong);
    }
  };
  const what = selection.stream ? `all of stream ${selection.stream}` : selection.positions ? `the event at ${number(selection.positions[0])}` : selection.all ? "all that is parked" : "";
  dialog().replaceChildren();
  openDialog([h("form", { onsubmit: submit }, h("h2", { id: "ask-title" }, `${act.label}: ${target}${what && `, ${what}`}`), h("p", {}, act.tells),
    field("who", "Who you are, for the log", "text", { value: sessionStorage.getItem("foldd who") ?? "" }), field("why", "Why, for the log", "text"),
    act.grave && field("confirm", `Type ${name} to confirm`, "text", { required: true }),
    !token() && field("token", "Token (ops.token or ops.token_file; kept until this tab closes)", "password", { required: true }), wrong,
    h("div", { class: "acts right" }, h("button", { type: "button", onclick: closeDialog }, "Not now"), button))]);
  dialog().querySelector("input").focus();
}

function askToken(why) {
  dialog().replaceChildren();
  const submit = event => {
    event.preventDefault();
    const given = new FormData(event.target).get("token").trim();
    if (given) sessionStorage.setItem(TOKEN, given); else sessionStorage.removeItem(TOKEN);
    closeDialog();
    reconnect();
  };
  openDialog([h("form", { onsubmit: submit }, h("h2", { id: "ask-title" }, "Token"), h("p", {}, why),
    field("token", "What ops.token or ops.token_file holds; empty forgets it. Kept until this tab closes.", "password"),
    h("div", { class: "acts right" }, h("button", { type: "button", onclick: closeDialog }, "Not now"), h("button", { type: "submit", class: "main" }, "Use it")))]);
  dialog().querySelector("input").focus();
}

let saidAt = null;
function tellUser(text) {
  clearTimeout(saidAt);
  document.getElementById("said").textContent = text;
  saidAt = setTimeout(() => { document.getElementById("said").textContent = ""; }, 8000);
}
