// The stream of changes, across broken connections and restarts of the server.

const KINDS = ["snapshot", "change", "progress", "store_error", "keepalive"];

// After a refusal the browser stops reconnecting; then this module does.
const RECONNECT_MS = 3000;

// A connection is dead after this many of the server's keepalive intervals without a message.
const MISSED_KEEPALIVES = 3;

// Calls receive(kind, data) for each message, setConnected(isConnected) for each change, and onRefused()
// when the server refuses the stream. A hidden page has no stream: a browser opens at most six
// connections to a server.
export function follow(url, { receive, setConnected, onRefused }) {
  let source = null;
  let timer = null;
  let quietMs = 60_000;

  function open() {
    if (source || document.hidden) return;
    source = new EventSource(url);
    source.addEventListener("open", () => setConnected(true));
    source.addEventListener("error", onError);
    for (const kind of KINDS) source.addEventListener(kind, (event) => onMessage(kind, event));
    restartTimer();
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  function reopen(afterMs) {
    close();
    setConnected(false);
    timer = setTimeout(open, afterMs);
  }

  function onMessage(kind, event) {
    const data = JSON.parse(event.data);
    if (kind === "snapshot") quietMs = MISSED_KEEPALIVES * 1000 * data.quiet_seconds + 2000;
    restartTimer();
    receive(kind, data);
  }

  function onError() {
    if (source.readyState !== EventSource.CLOSED) return setConnected(false);
    reopen(RECONNECT_MS);
    onRefused();
  }

  function restartTimer() {
    clearTimeout(timer);
    timer = setTimeout(() => reopen(0), quietMs);
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}
