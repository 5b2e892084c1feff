// One sweep: accuracy over an axis, its points and its jobs, live while it runs.

import { byId, make, reconcile, setText, show } from "./dom.js";
import { counted, inWords, percent, plainValue } from "./format.js";
import { axes, row, stateInWords, sweepStatus } from "./lists.js";
import { drawPoints, linesOf } from "./points.js";
import * as server from "./server.js";

// While jobs change faster than this, their sweep is fetched no more often.
const LEAST_MS = 1000;

// The longest table that a page shows.
const JOBS_LISTED = 200;

export class SweepView {
  #state;
  #redraw;
  #facts = null;
  #failure = "";
  #fetchedVersion = "";
  #isWaiting = false;
  #plot = byId("sweep-plot");

  // `redraw` is called when there is more to draw.
  constructor(state, redraw) {
    this.#state = state;
    this.#redraw = redraw;
    this.id = null;
  }

  // Shows another sweep, or none.
  choose(id) {
    if (id === this.id) return;
    this.id = id;
    this.#facts = null;
    this.#failure = "";
    this.#fetchedVersion = "";
    for (const part of ["points", "points-head", "sweep-jobs", "sweep-jobs-head"]) byId(part).replaceChildren();
  }

  draw() {
    show(byId("sweep"), this.id !== null);
    if (this.id === null) return;
    this.#fetch();
    setText(byId("sweep-note"), this.#failure);
    show(byId("sweep-note"), this.#failure !== "");
    show(byId("sweep-results"), this.#facts !== null);
    setText(byId("sweep-heading"), this.#facts ? `Sweep of ${axes(this.#facts.sweep)}` : `sweeps/${this.id}`);
    setText(byId("sweep-state"), this.#facts ? this.#stateText() : "");
    if (this.#facts) this.#drawFacts();
  }

  // Fetches the sweep if the stream has brought a change of it or of its jobs.
  async #fetch() {
    const [id, version] = [this.id, this.#version()];
    if (this.#isWaiting || version === this.#fetchedVersion) return;
    this.#isWaiting = true;
    let pause = LEAST_MS;
    try {
      const facts = await server.sweep(id);
      if (id === this.id) [this.#facts, this.#failure, this.#fetchedVersion] = [facts, "", version];
    } catch (error) {
      if (server.isTransient(error)) pause = server.RETRY_MS;
      else if (id === this.id) this.#fetchedVersion = version;
      if (id === this.id) this.#failure = error.message;
    }
    setTimeout(() => {
      this.#isWaiting = false;
      this.#redraw();
    }, pause);
    this.#redraw();
  }

  // A text that differs whenever the sweep does.
  #version() {
    const jobs = this.#state.ordered().filter((job) => job.sweep === this.id);
    const card = this.#state.sweeps.find((sweep) => sweep.id === this.id);
    return JSON.stringify([this.id, card, jobs.map((job) => [job.id, job.state, job.completed])]);
  }

  #stateText() {
    const { sweep, spec } = this.#facts;
    const dataset = sweep.axes.some(({ field }) => field === "dataset") ? "" : ` on ${spec.dataset}`;
    return `sweeps/${sweep.id}${dataset}: ${sweepStatus(sweep).words}`;
  }

  #drawFacts() {
    const { sweep, variants, jobs, best_depths } = this.#facts;
    const lines = linesOf(this.#facts);
    drawPoints(this.#plot, lines);
    show(byId("sweep-figure"), lines.isDrawn);
    reconcile(byId("sweep-key"), lines.isDrawn ? lines.groups : [], {
      key: ({ style, label }) => `${style} ${label}`,
      create: (line) => make("li", { class: line.style }, make("span", {}, line.label)),
      update: () => {},
    });
    reconcile(byId("sweep-best"), best_depths, {
      key: (best) => JSON.stringify(best.point),
      create: () => make("li"),
      update: (line, best) => setText(line, bestDepth(best)),
    });
    const fields = sweep.axes.map(({ field }) => field);
    drawPointTable(fields.filter((field) => field !== "seed"), variants);
    drawJobTable(fields, jobs);
  }
}

function drawPointTable(fields, variants) {
  drawHead("points-head", fields, ["seeds", "best test, mean", "lowest", "highest"]);
  reconcile(byId("points"), variants, {
    key: ({ point }) => JSON.stringify(point),
    create: () => row(fields.length + 4, numbered(fields.length, 4)),
    update: (line, { point, job_ids, best }) => {
      const seeds = `${best?.count ?? 0}/${job_ids.length}`;
      const accuracies = [best?.mean, best?.least, best?.most].map(percent);
      fill(line, [...fields.map((field) => plainValue(point[field])), seeds, ...accuracies]);
    },
  });
}

function drawJobTable(fields, jobs) {
  drawHead("sweep-jobs-head", ["job", "state", ...fields], ["epochs", "best test"]);
  reconcile(byId("sweep-jobs"), jobs.slice(0, JOBS_LISTED), {
    key: ({ id }) => id,
    create: (job) => {
      const line = row(fields.length + 4, numbered(fields.length + 2, 2));
      line.firstChild.append(make("a", { href: `#jobs/${job.id}` }, `jobs/${job.id}`));
      return line;
    },
    update: (line, job) => {
      const [, state, ...rest] = line.children;
      setText(state, job.state === "failed" ? `${stateInWords(job.state)}: ${job.note}` : stateInWords(job.state));
      state.dataset.state = job.state;
      const accuracy = percent(job.completed ? job.best_test : null);
      const values = fields.map((field) => plainValue(job.values[field]));
      fill({ children: rest }, [...values, `${job.completed}/${job.epochs}`, accuracy]);
    },
  });
  show(byId("sweep-jobs-rest"), jobs.length > JOBS_LISTED);
  setText(byId("sweep-jobs-rest"), `and ${counted(jobs.length - JOBS_LISTED, "more job")}: leadline sweeps lists all`);
}

function drawHead(id, words, numbers) {
  if (byId(id).firstChild) return;
  const cells = words.map((name) => make("th", { scope: "col" }, inWords(name)));
  const others = numbers.map((name) => make("th", { scope: "col", class: "number" }, name));
  byId(id).append(...cells, ...others);
}

const numbered = (from, count) => Array.from({ length: count }, (_, place) => from + place);

function fill({ children }, texts) {
  texts.forEach((words, place) => setText(children[place], words));
}

// "best depth with batch norm yes: 1 block, 45.56 % in the mean, 93.9 % likely the best depth tried".
function bestDepth({ point, blocks, mean, confidence }) {
  const values = Object.entries(point).map(([field, value]) => `${inWords(field)} ${plainValue(value)}`);
  const among = values.length ? ` with ${values.join(", ")}` : "";
  const likely = confidence === null ? "" : `, ${(100 * confidence).toFixed(1)} % likely the best depth tried`;
  return `Best depth${among}: ${counted(blocks, "block")}, ${percent(mean)} in the mean${likely}.`;
}
