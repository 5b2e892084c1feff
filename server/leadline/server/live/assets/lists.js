// The lists of everything: jobs, queue, sweeps, models.

import { byId, list, make, say, show } from "./dom.js";
import { counted, network, percent } from "./format.js";

const STATES = { queued: "◌", running: "▶", paused: "‖", succeeded: "✓", failed: "✗", cancelled: "–" };

const byCardId = (card) => card.id;

export function drawLists(state, chosen) {
  drawCounts(state);
  drawJobs(state, chosen);
  drawQueue(state);
  drawSweeps(state);
  drawModels(state);
}

function drawCounts({ counts }) {
  const parts = Object.entries(counts).filter(([, number]) => number > 0);
  say(byId("counts"), parts.map(([name, number]) => `${number} ${name}`).join(", "));
}

function drawJobs(state, chosen) {
  const jobs = state.ordered();
  show(byId("jobs-empty"), state.isKnown && jobs.length === 0);
  show(byId("jobs-table"), jobs.length > 0);
  list(byId("jobs"), jobs, {
    key: byCardId,
    create: () => row(5, [2, 3, 4]),
    update: (line, job) => updateJob(line, job, job.id === chosen),
  });
  const all = Object.values(state.counts).reduce((sum, number) => sum + number, 0);
  const rest = byId("jobs-rest");
  show(rest, all > jobs.length);
  say(rest, `and ${counted(all - jobs.length, "older job")}: leadline jobs lists all`);
}

function updateJob(line, job, isChosen) {
  const [name, state, epochs, train, test] = line.children;
  link(name, job);
  line.classList.toggle("chosen", isChosen);
  const anchor = name.firstChild;
  if (isChosen) anchor.setAttribute("aria-current", "true");
  else anchor.removeAttribute("aria-current");
  say(state, `${STATES[job.state] ?? "?"} ${job.state}`);
  state.dataset.state = job.state;
  say(epochs, `${job.completed}/${job.epochs}`);
  say(train, percent(job.train));
  say(test, percent(job.test));
}

function drawQueue(state) {
  const waiting = state.queue.map((id) => state.jobs.get(id)).filter(Boolean);
  show(byId("queue-empty"), state.isKnown && waiting.length === 0);
  list(byId("queue"), waiting, {
    key: byCardId,
    create: () => make("li"),
    update: (line, job) => link(line, job),
  });
  const rest = byId("queue-rest");
  const more = (state.counts.queued ?? 0) - waiting.length;
  show(rest, more > 0);
  say(rest, `and ${counted(more, "more job")} behind them`);
}

function drawSweeps(state) {
  show(byId("sweeps-empty"), state.isKnown && state.sweeps.length === 0);
  list(byId("sweeps"), state.sweeps, {
    key: byCardId,
    create: () => make("li", {}, make("strong"), make("span"), make("progress"), make("small")),
    update: updateSweep,
  });
}

function updateSweep(line, sweep) {
  const [name, what, bar, counts] = line.children;
  const total = Object.values(sweep.jobs).reduce((sum, number) => sum + number, 0);
  const done = ["succeeded", "failed", "cancelled"].reduce((sum, one) => sum + sweep.jobs[one], 0);
  say(name, `sweeps/${sweep.id}`);
  say(what, sweep.axes.map(axis).join(" × "));
  bar.max = Math.max(total, 1);
  bar.value = done;
  bar.setAttribute("aria-label", `${done} of ${counted(total, "job")} done`);
  say(counts, `${sweep.state}, ${done} of ${counted(total, "job")} done`);
}

function axis({ field, values }) {
  const shown = values.slice(0, 8).join(", ");
  return `${field.replaceAll("_", " ")} ${shown}${values.length > 8 ? ", …" : ""}`;
}

function drawModels(state) {
  show(byId("models-empty"), state.isKnown && state.models.length === 0);
  show(byId("models-table"), state.models.length > 0);
  list(byId("models"), state.models, {
    key: byCardId,
    create: () => row(3, [1, 2]),
    update: (line, model) => {
      const [name, epoch, test] = line.children;
      link(name, model, "models");
      say(epoch, `${model.best_epoch}`);
      say(test, percent(model.best_test));
    },
  });
}

function row(cells, numbers) {
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
  say(anchor.children[0], network(card));
  say(anchor.children[1], `${kind}/${card.id} on ${card.dataset}`);
}
