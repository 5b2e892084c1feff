// Values as people read them.

export function percent(fraction) {
  return fraction === null || fraction === undefined ? "–" : `${(100 * fraction).toFixed(2)} %`;
}

export function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

export function network(card) {
  const kind = card.residual ? "residual block" : "block";
  const form = card.block_convolutions === 2 ? " of 2 convolutions" : "";
  return `${counted(card.blocks, kind)}${form} ${card.batch_norm ? "with" : "without"} batch norm`;
}

// A network in a line of a table: "10x2 blocks, residual, batch norm".
export function shortNetwork(card) {
  const depth = card.block_convolutions === 2 ? `${card.blocks}x2` : `${card.blocks}`;
  const kind = card.residual ? ", residual" : "";
  return `${depth} block${depth === "1" ? "" : "s"}${kind}, ${card.batch_norm ? "" : "no "}batch norm`;
}

// A value of an axis of a sweep.
export function plainValue(value) {
  return typeof value === "boolean" ? (value ? "yes" : "no") : `${value}`;
}

export const inWords = (field) => field.replaceAll("_", " ");

export function localTime(moment) {
  return moment ? new Date(moment).toLocaleString() : "–";
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

// How far a running job is, in words: "epoch 3, training, 40 %, 12 s left".
export function progress(card) {
  if (!card) return "starting";
  const words = [card.phase.replaceAll("_", " ")];
  if (card.epoch) words.unshift(`epoch ${card.epoch}`);
  if (card.of) words.push(`${Math.round((100 * card.images) / card.of)} %`);
  if (card.seconds_left !== null) words.push(`${duration(card.seconds_left)} left`);
  return words.join(", ");
}
