// Questions to the server.

const ROOT = "/live/v1";

// How long to wait before what could not be answered is asked again.
export const RETRY_MS = 3000;

async function ask(path) {
  const response = await fetch(`${ROOT}/${path}`);
  if (response.ok) return response.json();
  const error = new Error((await response.text()).trim() || `status ${response.status}`);
  error.status = response.status;
  throw error;
}

// Whether the same question may be answered later: the server is away or busy.
export const mayPass = (error) => !(error.status < 500);

export const events = `${ROOT}/events`;

export const job = (id) => ask(`jobs/${id}`);

export const sweep = (id) => ask(`sweeps/${id}`);

export const confusion = (id, epoch) => ask(`jobs/${id}/epochs/${epoch}/confusion`);

// A cell is { true, taken }, class indices; null stands for all wrong images.
export function examples(id, epoch, cell, offset) {
  const query = new URLSearchParams({ ...cell, offset });
  return ask(`jobs/${id}/epochs/${epoch}/examples?${query}`);
}

export const image = (fingerprint, index) => `${ROOT}/images/${fingerprint}/test/${index}.png`;
