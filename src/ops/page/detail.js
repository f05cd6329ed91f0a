// One projection: what it does, what it did in the last hour, what is wrong with it, what it is.
function definitionNode({ id, role, definition }) {
  const { path, categories, tables, body } = definition;
  const entry = e => body.kind === "per_batch" ? `-- @batch\n${e.sql}` : `${e.types.map(type => `-- @on ${type.name}`).join("\n")}\n${e.body.sql}`;
  const text = [tables && `-- @tables\n${tables.sql}`, ...(body.entries ?? []).map(entry)].filter(Boolean).join("\n\n");
  return h("details", { "data-key": id, open: role === "live" }, h("summary", {}, h("strong", {}, id), ` ${role}, ${path}, `,
    categories === "all" ? "all categories" : `categories ${categories.listed.join(", ")}`),
    h("pre", { tabindex: "0" }, text || "a handler in the binary"));
}

function versionNode(status, p) {
  const id = idOf(p);
  return h("section", { "data-key": `${id} ${p.role}`, "aria-label": id },
    h("h2", {}, id, h("span", { class: "tag" }, p.role)),
    h("div", { class: "acts" }, possible(p).map(verb => actButton(verb, p))),
    h("dl", { class: "facts" },
      fact("Phase", phase(p), `revision ${p.revision}`),
      fact("Behind", plural(p.lag_events, "event"), p.lag_events ? `the oldest waits for ${duration(p.lag_seconds)}` : "up to date"),
      fact("Rate", `${rate(p.events_per_second)}/s`, p.lag_events && remaining(p) !== null ? `caught up in ${duration(remaining(p))}` : ""),
      fact("Held by", holders(status, p), plural(p.partitions.length, "partition")),
      fact("Parked", p.dead_letters ? h("a", { href: `#/dead-letters/${encodeURIComponent(id)}` }, number(p.dead_letters)) : "none",
        p.withheld_events ? `${plural(p.withheld_events, "event")} beyond the horizon` : "")),
    buildNode(p),
    p.role !== "previous" && h("div", { class: "charts" }, positionChart(seriesOf(p, status)), batchChart(seriesOf(p, status))),
    p.partitions.length > 1 && [h("h2", {}, "Partitions"), table(`Partitions of ${id}`, [["Partition"], ["Position", 1], ["Held by"]],
      p.partitions.map(part => [part.partition, String(part.partition), number(part.checkpoint.position), hostOf(status, part.holder) ?? "nobody"]))]);
}

function detail(status, id, more) {
  const name = id.split("@")[0], versions = status.projections.filter(p => p.name === name);
  if (!versions.length) return [h("h1", {}, name), h("p", { class: "empty" }, "There is no projection of this name. ", h("a", { href: "#/" }, "Overview"))];
  const concerns = status.concerns.filter(c => c.projection?.split("@")[0] === name || c.kind === "horizon_held" || c.kind === "no_daemon");
  return [h("h1", {}, name, " ", h("small", {}, versions.map(p => `@${p.version} ${spaced(p.phase)}`).join(", "))),
    h("section", { "aria-label": "What to look at" }, concerns.map((c, nth) => concernNode(c, status, nth))),
    versions.map(p => versionNode(status, p)),
    more.definitions && [h("h2", {}, "What it is"), more.definitions.map(definitionNode)],
    more.log && [h("h2", {}, "What operators did"), logTable(more.log)]];
}
