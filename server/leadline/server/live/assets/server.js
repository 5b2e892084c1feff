// Requests to the server.

const ROOT = "/live/v1";

// How long to wait before a failed request is repeated.
export const RETRY_MS = 3000;

// The session has ended, or its token was revoked.
const UNAUTHORIZED = 401;

async function get(path) {
  const response = await fetch(`${ROOT}/${path}`);
  if (response.ok) return response.json();
  if (response.status === UNAUTHORIZED) location.assign("/login");
  const error = new Error((await response.text()).trim() || `status ${response.status}`);
  error.status = response.status;
  throw error;
}

// Whether the same request may succeed later: the server is away or busy.
export const isTransient = (error) => !(error.status < 500);

export const events = `${ROOT}/events`;

// { name, is_required }: who has logged in, "" for nobody, and whether somebody must. No answer says
// nothing of it; the stream then shows that the server is away.
export const session = () => get("session").catch(() => ({ name: "", is_required: false }));

export const job = (id) => get(`jobs/${id}`);

export const sweep = (id) => get(`sweeps/${id}`);

export const confusion = (id, epoch) => get(`jobs/${id}/epochs/${epoch}/confusion`);

// A cell is { true, taken }, class indices; null stands for all wrong images.
export function examples(id, epoch, cell, offset) {
  const query = new URLSearchParams({ ...cell, offset });
  return get(`jobs/${id}/epochs/${epoch}/examples?${query}`);
}

export const image = (fingerprint, index) => `${ROOT}/images/${fingerprint}/test/${index}.png`;
