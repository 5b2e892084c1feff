// The jobs that run, each with its curve and how far it is.

import { drawCurve } from "./curves.js";
import { byId, list, make, say, show } from "./dom.js";
import { progress } from "./format.js";
import { link } from "./lists.js";

// More jobs of a sweep may run than a page has room for curves.
export const MOST_CURVES = 12;

const HEIGHT = 130;

export function drawRunning(state, chosen) {
  const jobs = state.running().slice(0, MOST_CURVES);
  show(byId("running-empty"), state.isKnown && jobs.length === 0);
  list(byId("running"), jobs, {
    key: (job) => job.id,
    create,
    update: (card, job) => update(card, job, state, job.id === chosen),
  });
}

function create() {
  const plot = make("div", { class: "plot small" });
  return make("li", {}, make("p"), plot, make("progress"), make("small"));
}

function update(card, job, state, isChosen) {
  const [name, plot, bar, words] = card.children;
  const told = state.progress[job.id];
  link(name, job);
  card.classList.toggle("chosen", isChosen);
  drawSmall(plot, job, state.curve(job.id));
  bar.max = job.epochs;
  bar.value = job.completed + partOf(told);
  bar.setAttribute("aria-label", `${job.completed} of ${job.epochs} epochs`);
  say(words, `${job.completed}/${job.epochs} epochs; ${progress(told)}`);
}

function drawSmall(plot, job, curve) {
  // Drawn anew only where there is more to draw, or other room for it.
  const drawn = `${curve.length} ${job.state} ${plot.clientWidth}`;
  if (plot.dataset.drawn === drawn) return;
  plot.dataset.drawn = drawn;
  if (curve.length) drawCurve(plot, curve, job, { height: HEIGHT, isSmall: true });
  else plot.replaceChildren();
}

// The part of the present epoch that is done.
function partOf(told) {
  return told && told.phase === "training" && told.of ? told.images / told.of : 0;
}
