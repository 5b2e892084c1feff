// The running jobs, each with its curve and its progress.

import { drawCurve } from "./curves.js";
import { byId, make, reconcile, setText, show } from "./dom.js";
import { progress } from "./format.js";
import { link } from "./lists.js";

// More jobs of a sweep may run than a page has room for curves.
export const MOST_CURVES = 12;

const HEIGHT = 130;

export function drawRunning(state, chosen) {
  const jobs = state.running().slice(0, MOST_CURVES);
  show(byId("running-empty"), state.isKnown && jobs.length === 0);
  reconcile(byId("running"), jobs, {
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
  const now = state.progress[job.id];
  link(name, job);
  card.classList.toggle("chosen", isChosen);
  drawSmall(plot, job, state.curve(job.id));
  bar.max = job.epochs;
  bar.value = job.completed + partOf(now);
  bar.setAttribute("aria-label", `${job.completed} of ${job.epochs} epochs`);
  setText(words, `${job.completed}/${job.epochs} epochs; ${progress(now)}`);
}

function drawSmall(plot, job, curve) {
  // Drawn again only if there is more to draw, or the width has changed.
  const drawn = `${curve.length} ${job.state} ${plot.clientWidth}`;
  if (plot.dataset.drawn === drawn) return;
  plot.dataset.drawn = drawn;
  if (curve.length) drawCurve(plot, curve, job, { height: HEIGHT, isSmall: true });
  else plot.replaceChildren();
}

// The fraction of the current epoch that is done.
function partOf(now) {
  return now && now.phase === "training" && now.of ? now.images / now.of : 0;
}
