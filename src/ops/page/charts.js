// Charts: the last hour, drawn from the daemon's samples and what came since. Drawn by path, never by style.
const WIDTH = 600, HEIGHT = 160;
const past = { at: 0, points: new Map() };

// Lays the daemon's samples under what this page has seen itself.
function remember(history) {
  const now = Date.now();
  past.at = now;
  for (const [id, series] of Object.entries(history.projections)) {
    const points = history.ago_seconds.map((ago, i) => ({ at: now - ago * 1000, head: history.head[i], position: series.position[i],
      lag: series.lag_events[i], batch: series.batch_seconds[i] })).filter(point => point.lag !== null);
    const last = points.at(-1)?.at ?? 0;
    past.points.set(id, [...points, ...(past.points.get(id) ?? []).filter(point => point.at > last + 2000)]);
  }
}

// A point for each projection, every two seconds at most; an hour of them.
function observe(status) {
  const now = Date.now();
  for (const p of status.projections) {
    const points = past.points.get(seriesOf(p, status)) ?? [];
    past.points.set(seriesOf(p, status), points);
    const last = points.at(-1);
    if (last && now - last.at < 1900) continue;
    const current = p.lag_events === 0 && p.withheld_events === 0;
    const position = current ? status.store.head_position : Math.max(placeOf(p) ?? 0, last?.position ?? 0);
    points.push({ at: now, head: status.store.head_position, position, lag: p.lag_events, batch: null });
    while (points[0].at < now - 3600e3) points.shift();
  }
}
const pointsOf = id => past.points.get(id) ?? [];

// A line through points whose value is known, scaled to a box of WIDTH by HEIGHT.
function line(points, value, from, to, low, high) {
  const x = at => (WIDTH * (at - from) / Math.max(1, to - from)).toFixed(1);
  const y = v => (HEIGHT - 3 - (HEIGHT - 6) * (v - low) / Math.max(1e-9, high - low)).toFixed(1);
  return points.filter(point => value(point) !== null).map((point, i) => `${i ? "L" : "M"}${x(point.at)} ${y(value(point))}`).join("");
}
const under = (path, points, from, to) => path && `${path}V${HEIGHT}H${(WIDTH * (points[0].at - from) / Math.max(1, to - from)).toFixed(1)}Z`;

// Ten minutes of lag, small.
function spark(id) {
  const to = Date.now(), from = to - 600e3, points = pointsOf(id).filter(point => point.at >= from);
  const most = Math.max(0, ...points.map(point => point.lag));
  const path = line(points, point => point.lag, from, to, 0, Math.max(1, most));
  return h("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `events behind in the last 10 minutes: ${number(points.at(-1)?.lag ?? 0)} now, ${number(most)} at most` },
    h("path", { d: points.length > 1 ? under(path, points, from, to) : "" }));
}

function chart(title, value, points, values, low, high, summary) {
  const to = Date.now(), from = Math.min(points[0]?.at ?? to, to - 300e3);
  const paths = values.map(([name, of]) => {
    const known = points.filter(point => of(point) !== null), path = line(points, of, from, to, low, high);
    return [name === "line" && known.length > 1 && h("path", { class: "area", d: under(path, known, from, to) }), h("path", { class: name, d: path })];
  });
  return h("figure", {}, h("figcaption", {}, h("strong", {}, title), h("span", {}, value)),
    h("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": summary }, paths),
    h("div", { class: "axis" }, h("span", {}, `${Math.round((to - from) / 60e3)} min ago`), h("span", {}, "now")));
}

function positionChart(id) {
  const points = pointsOf(id).filter(point => point.position !== null), last = points.at(-1);
  const low = Math.min(...points.map(point => Math.min(point.position, point.head))), high = Math.max(1, ...points.map(point => point.head));
  const text = last ? `${number(last.position)} of ${number(last.head)}` : "no sample yet";
  return chart("Position against the head of the log (dashed)", text, points,
    [["line", point => point.position], ["head", point => point.head]], Number.isFinite(low) ? low : 0, high, `position over the last hour: ${text} now`);
}

function batchChart(id) {
  const points = pointsOf(id), known = points.map(point => point.batch).filter(batch => batch !== null);
  const most = Math.max(0, ...known), last = known.at(-1);
  const text = known.length ? `${duration(last)} lately, ${duration(most)} at most` : "this replica ran no batch of it in the last hour";
  return chart("Batch times, means of 15 s, of this replica", text, points, [["line", point => point.batch]], 0, most || 1, `batch times: ${text}`);
}
