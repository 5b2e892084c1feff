// The stream of news, across broken connections and restarts of the server.

const KINDS = ["snapshot", "change", "progress", "store_error", "keepalive"];

// After a refusal the browser gives up for good; then it is tried again here.
const AGAIN_MS = 3000;

// Silences of so many times what the server keeps to mean that the connection is dead.
const SILENCES = 3;

// Calls hear(kind, data) for each message, and stand(isConnected) for each change. While nobody
// sees the page there is no stream: a browser holds but six connections to a server.
export function follow(url, { hear, stand }) {
  let source = null;
  let timer = null;
  let quietMs = 60_000;

  function open() {
    if (source || document.hidden) return;
    source = new EventSource(url);
    source.addEventListener("open", () => stand(true));
    source.addEventListener("error", broken);
    for (const kind of KINDS) source.addEventListener(kind, (event) => heard(kind, event));
    watch();
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  function reopen(afterMs) {
    close();
    stand(false);
    timer = setTimeout(open, afterMs);
  }

  function heard(kind, event) {
    const data = JSON.parse(event.data);
    if (kind === "snapshot") quietMs = SILENCES * 1000 * data.quiet_seconds + 2000;
    watch();
    hear(kind, data);
  }

  function broken() {
    if (source.readyState === EventSource.CLOSED) reopen(AGAIN_MS);
    else stand(false);
  }

  function watch() {
    clearTimeout(timer);
    timer = setTimeout(() => reopen(0), quietMs);
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}
