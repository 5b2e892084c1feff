// The stream of news, across broken connections and restarts of the server.

const KINDS = ["snapshot", "change", "progress", "trouble", "alive"];

// After a refusal the browser gives up for good; then it is tried again here.
const AGAIN_MS = 3000;

// Silences of so many times what the server keeps to mean that the connection is dead.
const SILENCES = 3;

// Calls hear(kind, data) for each message, and stand(isConnected) for each change.
export function follow(url, { hear, stand }) {
  let source = null;
  let watchdog = null;
  let quietMs = 60_000;

  function open() {
    source = new EventSource(url);
    source.addEventListener("open", () => stand(true));
    source.addEventListener("error", broken);
    for (const kind of KINDS) source.addEventListener(kind, (event) => heard(kind, event));
    wait();
  }

  function heard(kind, event) {
    const data = JSON.parse(event.data);
    if (kind === "snapshot") quietMs = SILENCES * 1000 * data.quiet_seconds + 2000;
    wait();
    hear(kind, data);
  }

  function broken() {
    stand(false);
    if (source.readyState === EventSource.CLOSED) reopen(AGAIN_MS);
  }

  function wait() {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => {
      stand(false);
      reopen(0);
    }, quietMs);
  }

  function reopen(afterMs) {
    clearTimeout(watchdog);
    source.close();
    setTimeout(open, afterMs);
  }

  open();
}
