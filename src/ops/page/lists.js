// Dead letters, the log of operators, the configuration.
const REASONS = { failed: "failed, its stream waits", behind: "waits for an earlier one of its stream", skipped: "failed, its stream went on" };

function lettersNode(state, list, projection, reload) {
  if (!list) return [h("p", { class: "soft" }, "Looking …")];
  if (!list.letters.length) return [h("p", { class: "empty" }, state === "open" ? "Nothing is parked." : "Nothing was given up, or it is forgotten by now.")];
  const shown = list.letters.length, one = projection && state === "open";
  return [one && h("div", { class: "acts" }, actButton("retry", { name: projection }, { all: true }, `Retry all ${number(list.there_are)}`, reload),
    actButton("discard", { name: projection }, { all: true }, `Discard all ${number(list.there_are)}`, reload)),
    table("Dead letters", [["Event"], ["Projection"], ["Stream"], ["Why"], ["Error"], ["Tries", 1], ["Since"], [""]], list.letters.map(l => [
      `${l.projection} ${l.position}`, [l.event_type, h("small", {}, ` at ${number(l.position)}`)], h("a", { href: linkTo(l.projection) }, l.projection),
      `${l.stream_id} at version ${number(l.stream_version)}`, [REASONS[l.reason] ?? l.reason, l.retry_wanted_at && h("small", {}, "to be retried")],
      l.error ? [l.error.message, h("small", {}, [l.error.sqlstate, l.error.place].filter(Boolean).join(" · "))] : "–",
      number(l.attempts), moment(l.first_failed_at),
      h("span", { class: "acts right" }, h("button", { type: "button", onclick: () => showLetter(l) }, "Show"), state === "open" && [
        actButton("retry", { name: l.projection }, l.reason === "skipped" ? { positions: [l.position] } : { stream: l.stream_id },
          l.reason === "skipped" ? "Retry" : "Retry stream", reload),
        actButton("discard", { name: l.projection }, { positions: [l.position] }, "Discard", reload)])])),
    list.there_are > shown && h("p", { class: "soft" }, `… and ${number(list.there_are - shown)} more`)];
}

async function showLetter(l) {
  openDialog([h("h2", { id: "ask-title" }, `${l.event_type} at ${number(l.position)}`), h("p", { class: "soft" }, "Looking …")]);
  try {
    const found = await ask(`/api/projections/${encodeURIComponent(l.projection)}/dead-letters/${l.position}`);
    openDialog([h("h2", { id: "ask-title" }, `${found.event_type} at ${number(found.position)}`),
      h("p", {}, `Stream ${found.stream_id} at version ${number(found.stream_version)}, parked since ${moment(found.first_failed_at)}, ${plural(found.attempts, "attempt")}.`),
      found.error && [h("p", { class: "wrong" }, found.error.message), h("p", {}, h("strong", {}, "What to do: "), prose(found.error.remedy))],
      h("strong", {}, "Data"), h("pre", { tabindex: "0" }, JSON.stringify(found.data, null, 2)),
      h("strong", {}, "Metadata"), h("pre", { tabindex: "0" }, JSON.stringify(found.metadata, null, 2)), closeRow("Close")]);
  } catch (trouble) { openDialog([h("h2", { id: "ask-title" }, "It cannot be shown"), h("p", { class: "wrong" }, trouble.message), h("p", {}, trouble.remedy), closeRow("Close")]); }
}

function logTable(entries) {
  if (!entries.length) return h("p", { class: "empty" }, "No operator did anything yet.");
  const gist = (before, after) => [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])].filter(k => k !== "paused" && k !== "positions")
    .map(k => before?.[k] !== undefined && after?.[k] !== undefined ? `${spaced(k)} ${before[k]} → ${after[k]}` : `${spaced(k)} ${after?.[k] ?? before[k]}`).join(", ");
  return table("What operators did", [["Revision"], ["When"], ["Verb"], ["Projection"], ["Who"], ["What"], ["Why"]], entries.map(e => [e.revision, number(e.revision),
    moment(e.at), e.verb, h("a", { href: linkTo(e.projection) }, e.projection), e.who === e.db_role ? e.who : `${e.who} as ${e.db_role}`, gist(e.before, e.after), e.why ?? "–"]));
}

function configurationNode({ verbs, values }) {
  return [h("p", {}, verbs ? "Verbs want the token." : ["There are no verbs here: no token is configured. Set ", h("code", {}, "ops.token_file"), " and start foldd again."]),
    table("Configuration", [["Key"], ["Value"], ["From"]], values.map(v => [v.key, h("code", {}, v.key), h("code", {}, JSON.stringify(v.value)), v.from]))];
}
