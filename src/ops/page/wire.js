// The wire: what is asked of the daemon, with the token where there is one.
const TOKEN = "foldd token";
const token = () => sessionStorage.getItem(TOKEN) ?? "";
class Trouble extends Error {
  constructor(status, { code, message, remedy }) { super(message); Object.assign(this, { status, code, remedy }); }
}
const headers = () => token() ? { Authorization: `Bearer ${token()}` } : {};
async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(12000), ...options, headers: headers() });
  } catch {
    throw new Trouble(0, { code: "no_answer", message: "foldd does not answer", remedy: "see whether the process runs; this page tries again by itself" });
  }
  const body = await answer.json();
  if (!answer.ok) throw new Trouble(answer.status, body.error);
  return body;
}
const post = (path, body) => ask(path, { method: "POST", body: JSON.stringify(body) });
const pause = ms => new Promise(done => setTimeout(done, ms));

// Server-sent events, read by hand: the browser's own reader can send no token. `tell` gets each event, `quiet` is called
// when nothing has come for ten seconds more than the daemon ever leaves.
async function listen(tell, signal) {
  const answer = await fetch("/api/stream", { cache: "no-store", headers: headers(), signal });
  if (!answer.ok) throw new Trouble(answer.status, (await answer.json()).error);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const timer = setTimeout(() => reader.cancel(), 20000);
    const { value, done } = await reader.read();
    clearTimeout(timer);
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n"), field = name => lines.filter(l => l.startsWith(`${name}: `)).map(l => l.slice(name.length + 2)).join("\n");
      if (field("data")) tell(field("event"), JSON.parse(field("data")));
    }
  }
}
