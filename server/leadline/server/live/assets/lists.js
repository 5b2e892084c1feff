// The lists of everything: jobs, queue, sweeps, models.

import { byId, make, reconcile, setText, show } from "./dom.js";
import { counted, inWords, network, percent, plainValue, shortNetwork } from "./format.js";

// The best models of each dataset that are shown.
const MODELS_PER_DATASET = 5;

const STATES = { queued: "◌", running: "▶", paused: "‖", succeeded: "✓", failed: "✗", cancelled: "–" };

const byCardId = (card) => card.id;

export const stateInWords = (state) => `${STATES[state] ?? "?"} ${state}`;

// Draws the lists; `chosen` is the job that is shown, `sweep` the sweep, or null.
export function drawLists(state, chosen, sweep) {
  drawCounts(state);
  drawJobs(state, chosen);
  drawQueue(state);
  drawSweeps(state, sweep);
  drawModels(state);
}

function drawCounts({ counts }) {
  const parts = Object.entries(counts).filter(([, number]) => number > 0);
  setText(byId("counts"), parts.map(([name, number]) => `${number} ${name}`).join(", "));
}

function drawJobs(state, chosen) {
  const jobs = state.ordered();
  show(byId("jobs-empty"), state.isKnown && jobs.length === 0);
  show(byId("jobs-table"), jobs.length > 0);
  reconcile(byId("jobs"), jobs, {
    key: byCardId,
    create: jobRow,
    update: (line, job) => updateJob(line, job, job.id === chosen),
  });
  const all = Object.values(state.counts).reduce((sum, number) => sum + number, 0);
  const rest = byId("jobs-rest");
  show(rest, all > jobs.length);
  setText(rest, `and ${counted(all - jobs.length, "older job")}: leadline jobs lists all`);
}

function jobRow() {
  const line = row(3, [2]);
  for (const cell of [...line.children].slice(1)) cell.append(make("span"), make("small"));
  return line;
}

function updateJob(line, job, isChosen) {
  const [name, state, accuracy] = line.children;
  link(name, job);
  name.firstChild.title = network(job);
  drawReason(name, job);
  line.classList.toggle("chosen", isChosen);
  markCurrent(name.firstChild, isChosen);
  setText(state.children[0], stateInWords(job.state));
  setText(state.children[1], `${job.completed}/${counted(job.epochs, "epoch")}`);
  state.dataset.state = job.state;
  setText(accuracy.children[0], percent(job.test));
  setText(accuracy.children[1], job.completed ? `${percent(job.train)} train` : "");
}

// Why a job has failed, below its name.
function drawReason(cell, job) {
  if (job.state !== "failed") return;
  if (!cell.children[1]) cell.append(make("small", { class: "reason" }));
  setText(cell.children[1], job.note);
  cell.children[1].title = job.note;
}

function markCurrent(anchor, isCurrent) {
  if (isCurrent) anchor.setAttribute("aria-current", "true");
  else anchor.removeAttribute("aria-current");
}

function drawQueue(state) {
  const waiting = state.queue.map((id) => state.jobs.get(id)).filter(Boolean);
  show(byId("queue-hold"), state.hold !== "");
  setText(byId("queue-hold"), state.hold);
  show(byId("queue-empty"), state.isKnown && waiting.length === 0);
  reconcile(byId("queue"), waiting, {
    key: byCardId,
    create: () => make("li"),
    update: (line, job) => link(line, job),
  });
  const rest = byId("queue-rest");
  const more = (state.counts.queued ?? 0) - waiting.length;
  show(rest, more > 0);
  setText(rest, `and ${counted(more, "more job")} behind them`);
}

function drawSweeps(state, chosen) {
  show(byId("sweeps-empty"), state.isKnown && state.sweeps.length === 0);
  reconcile(byId("sweeps"), state.sweeps, {
    key: byCardId,
    create: () => make("li", {}, make("a"), make("span"), make("progress"), make("small")),
    update: (line, sweep) => updateSweep(line, sweep, sweep.id === chosen),
  });
}

function updateSweep(line, sweep, isChosen) {
  const [name, what, bar, counts] = line.children;
  const { total, done, words } = sweepStatus(sweep);
  name.href = `#sweeps/${sweep.id}`;
  markCurrent(name, isChosen);
  setText(name, `sweeps/${sweep.id}`);
  setText(what, axes(sweep));
  bar.max = Math.max(total, 1);
  bar.value = done;
  bar.setAttribute("aria-label", `${done} of ${counted(total, "job")} done`);
  setText(counts, words);
}

// How far a sweep is: "running, 3 of 12 jobs done, 1 failed".
export function sweepStatus(sweep) {
  const total = Object.values(sweep.jobs).reduce((sum, number) => sum + number, 0);
  const done = ["succeeded", "failed", "cancelled"].reduce((sum, state) => sum + sweep.jobs[state], 0);
  const failed = sweep.jobs.failed ? `, ${sweep.jobs.failed} failed` : "";
  return { total, done, words: `${sweep.state}, ${done} of ${counted(total, "job")} done${failed}` };
}

// The axes of a sweep: "blocks 1, 3, 5 × batch norm no, yes".
export const axes = (sweep) => sweep.axes.map(axis).join(" × ");

function axis({ field, values }) {
  const shown = values.slice(0, 8).map(plainValue).join(", ");
  return `${inWords(field)} ${shown}${values.length > 8 ? ", …" : ""}`;
}

function drawModels(state) {
  show(byId("models-empty"), state.isKnown && state.models.length === 0);
  show(byId("models-table"), state.models.length > 0);
  reconcile(byId("models"), byDataset(state.models), {
    key: (item) => item.id ?? `dataset ${item.heading}`,
    create: (item) => (item.id ? row(3, [1, 2]) : headingRow()),
    update: (line, item) => (item.id ? updateModel(line, item) : setText(line.firstChild, item.heading)),
  });
}

// The best models of each dataset below its name; accuracies on different datasets do not compare.
function byDataset(models) {
  const groups = new Map();
  for (const model of models) groups.set(model.dataset, [...(groups.get(model.dataset) ?? []), model]);
  return [...groups].flatMap(([heading, best]) => [{ heading }, ...best.slice(0, MODELS_PER_DATASET)]);
}

function headingRow() {
  return make("tr", { class: "group" }, make("th", { scope: "colgroup", colspan: 3 }));
}

function updateModel(line, model) {
  const [name, epoch, test] = line.children;
  link(name, model, "models");
  setText(epoch, `${model.best_epoch}`);
  setText(test, percent(model.best_test));
}

export function row(cells, numbers) {
  const made = Array.from({ length: cells }, (_, place) =>
    make("td", numbers.includes(place) ? { class: "number" } : {}),
  );
  return make("tr", {}, ...made);
}

// A link to a job, by what it trains.
export function link(parent, card, kind = "jobs") {
  if (!parent.firstChild) {
    const network = make("span", { class: "network" });
    parent.append(make("a", {}, network, make("small")));
  }
  const anchor = parent.firstChild;
  anchor.href = `#jobs/${card.id}`;
  anchor.dataset.norm = card.batch_norm ? "with" : "without";
  setText(anchor.children[0], shortNetwork(card));
  setText(anchor.children[1], `${kind}/${card.id} on ${card.dataset}, seed ${card.seed}`);
}
