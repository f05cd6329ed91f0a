// Words: how numbers, times and phases are written.
const grouped = new Intl.NumberFormat("en");
const number = n => grouped.format(Math.round(n));
const plural = (n, one) => `${number(n)} ${one}${n === 1 ? "" : "s"}`;
const duration = s => s < .0995 ? `${Math.round(s * 1000)} ms` : s < 10 ? `${s.toFixed(1)} s` : s < 120 ? `${Math.round(s)} s`
  : s < 7200 ? `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s` : s < 172800
  ? `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min` : `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
const rate = r => r > 0 && r < 10 ? r.toFixed(1) : number(r);
const spaced = word => word.replaceAll("_", " ");
const moment = at => new Date(at).toLocaleString();
const idOf = p => `${p.name}@${p.version}`;
const seriesOf = (p, { projections }) => p.role !== "live" && projections.some(o => o.role === "live" && idOf(o) === idOf(p)) ? `${idOf(p)} ${p.role}` : idOf(p);
const linkTo = id => `#/projections/${encodeURIComponent(id)}`;
// A text with `code` in it, as nodes.
const prose = text => String(text).split("`").map((part, i) => i % 2 ? h("code", {}, part) : part);
const hostOf = (status, holder) => status.replicas.find(r => r.id === holder)?.host;
const holders = (status, p) => {
  const hosts = [...new Set(p.partitions.map(part => hostOf(status, part.holder)).filter(Boolean))];
  return hosts.length ? hosts.join(", ") : "nobody";
};
// How long until it has caught up, if that can be told.
const remaining = p => p.build?.eta_seconds ?? (p.lag_events > 0 && p.events_per_second > 0 ? p.lag_events / p.events_per_second : null);
const placeOf = p => p.partitions.length ? Math.min(...p.partitions.map(part => part.checkpoint.position)) : null;
