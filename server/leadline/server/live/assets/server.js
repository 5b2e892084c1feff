// Questions to the server.

const ROOT = "/live/v1";

async function ask(path) {
  const response = await fetch(`${ROOT}/${path}`);
  if (!response.ok) throw new Error((await response.text()).trim() || `status ${response.status}`);
  return response.json();
}

export const events = `${ROOT}/events`;

export const job = (id) => ask(`jobs/${id}`);

export const confusion = (id, epoch) => ask(`jobs/${id}/epochs/${epoch}/confusion`);

// A cell is { true, taken }, class indices; null stands for all wrong images.
export function examples(id, epoch, cell, offset) {
  const query = new URLSearchParams({ ...cell, offset });
  return ask(`jobs/${id}/epochs/${epoch}/examples?${query}`);
}

export const image = (fingerprint, index) => `${ROOT}/images/${fingerprint}/test/${index}.png`;
