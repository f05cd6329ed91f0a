// The overview: a verdict, what concerns somebody, the log, every projection, every replica.
function concernNode(c, status, nth) {
  const p = c.projection && status.projections.find(p => idOf(p) === c.projection);
  return h("div", { class: `concern ${c.gravity}`, "data-key": `${c.kind} ${c.projection} ${nth}` },
    h("p", {}, h("strong", {}, c.projection ? h("a", { href: linkTo(c.projection) }, c.projection) : "The log", ` · ${spaced(c.kind)}`)),
    h("p", {}, c.message),
    (c.place || c.event) && h("p", { class: "soft" }, [c.place && `at ${c.place}`,
      c.event && `event ${number(c.event.position)}: ${c.event.event_type} of stream ${c.event.stream_id}`].filter(Boolean).join(" · ")),
    h("p", {}, h("strong", {}, "What to do: "), prose(c.remedy)),
    h("div", { class: "does" }, p && c.verbs.map(verb => actButton(verb, p)),
      c.kind === "dead_letters" && h("a", { href: `#/dead-letters/${encodeURIComponent(c.projection)}` }, "Look at them"),
      c.kind === "paused" && h("a", { href: `#/log/${encodeURIComponent(c.projection)}` }, "Who and why")));
}

function verdict(status) {
  const { concerns, projections } = status, bad = concerns.filter(c => c.gravity === "bad").length;
  if (bad) return ["bad", `${plural(bad, "thing")} ${bad === 1 ? "needs" : "need"} you now`];
  if (concerns.length) return ["poor", `${plural(concerns.length, "thing")} to look at, the rest is well`];
  const building = projections.filter(p => p.role === "building" || p.phase === "catching_up").length;
  if (!projections.length) return ["good", "No projection yet"];
  return ["good", building ? `All is well, ${number(building)} catching up` : "All is well"];
}

let growth = { at: 0, head: 0, rate: null };
function measureGrowth(head) {
  const now = Date.now() / 1000;
  if (growth.at && now - growth.at < 4) return;
  growth = { at: now, head, rate: growth.at ? Math.max(0, head - growth.head) / (now - growth.at) : null };
}

function factsNode({ store, projections, replicas }) {
  const worst = projections.reduce((a, b) => b.lag_seconds > (a?.lag_seconds ?? 0) || (!a && b.lag_events) ? b : a, null);
  const phases = Object.entries(Object.groupBy ? Object.groupBy(projections, p => p.phase) : {}).map(([name, list]) => `${list.length} ${spaced(name)}`);
  const withheld = Math.max(0, ...projections.map(p => p.withheld_events));
  return h("dl", { class: "facts" },
    fact("Head of the log", number(store.head_position), growth.rate === null ? "" : growth.rate ? `growing by ${rate(growth.rate)} events/s` : "not growing"),
    fact("Furthest behind", worst ? plural(worst.lag_events, "event") : "nobody", worst ? `${idOf(worst)}, by ${duration(worst.lag_seconds)}` : ""),
    fact("Horizon", store.horizon_age_seconds ? `held for ${duration(store.horizon_age_seconds)}` : "moving",
      withheld ? `${plural(withheld, "event")} behind it wait` : `stamp ${store.horizon}, tier ${store.tier}`),
    fact("Projections", number(projections.length), phases.join(", ")),
    fact("Replicas", number(replicas.length), replicas.map(r => r.host).join(", ")));
}

function buildNode(p) {
  if (!p.build) return null;
  const { done, total, eta_seconds: eta, waiting_for: waiting } = p.build;
  return h("div", {}, h("progress", { max: Math.max(1, total), value: total ? done : 1, "aria-label": `build of ${idOf(p)}` }),
    h("small", { class: "soft" }, `built ${number(done)} of ${number(total)} (${total ? Math.floor(100 * done / total) : 100} %), `,
      waiting ? `waiting for ${waiting}` : eta === null ? "no rate yet" : `about ${duration(eta)} to go`));
}

function projectionsNode(status) {
  if (!status.projections.length) return h("p", { class: "empty" }, "Put a .sql file into a folder of projection_dirs in foldd.toml, and start foldd again.");
  return table("Projections", [["Projection"], ["Phase"], ["Behind", 1], ["Oldest waits", 1], ["Behind, 10 min"], ["Events/s", 1], ["Caught up in", 1], ["Held by"], ["Parked", 1]],
    status.projections.map(p => [`${idOf(p)} ${p.role}`,
      [h("a", { href: linkTo(idOf(p)) }, p.name), h("small", {}, `@${p.version}`), p.role !== "live" && h("span", { class: "tag" }, p.role)],
      [phase(p), buildNode(p)],
      [number(p.lag_events), p.withheld_events > 0 && h("small", {}, `+${number(p.withheld_events)} beyond the horizon`)],
      p.lag_events ? duration(p.lag_seconds) : "–", spark(seriesOf(p, status)), rate(p.events_per_second),
      p.lag_events ? remaining(p) === null ? "?" : duration(remaining(p)) : "–", holders(status, p),
      p.dead_letters ? h("a", { href: `#/dead-letters/${encodeURIComponent(idOf(p))}` }, number(p.dead_letters)) : "–"]));
}

function replicasNode(status) {
  if (!status.replicas.length) return h("p", { class: "empty" }, "No daemon is running.");
  return table("Replicas", [["Host"], ["Replica"], ["Started"], ["Heard of"], ["Holds", 1], ["State"]], status.replicas.map(r => [r.id, r.host,
    h("code", {}, r.id.slice(0, 8)), moment(r.started_at), moment(r.heartbeat_at), plural(r.leases, "subscription"), r.draining ? "draining" : "running"]));
}

function overview(status) {
  const [tone, text] = verdict(status);
  return [h("h1", { class: `verdict ${tone}`, role: "status" }, text),
    h("section", { "aria-label": "What to look at" }, status.concerns.map((c, nth) => concernNode(c, status, nth))),
    h("section", { "aria-label": "The log" }, factsNode(status)),
    h("h2", {}, "Projections"), projectionsNode(status), h("h2", {}, "Replicas"), replicasNode(status)];
}
