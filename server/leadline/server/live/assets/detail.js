// One job: what it is, its curve, every epoch.

import { drawCurve, isFinal, markEpoch, reading } from "./curves.js";
import { byId, make, reconcile, setText, show } from "./dom.js";
import { localTime, network, percent } from "./format.js";
import { Wrong } from "./wrong.js";

const HEIGHT = 300;

// The longest table that a page shows.
const EPOCHS_LISTED = 500;

const NO_EPOCH_YET = "No epoch is complete yet: curves and images come with the first.";
const ENDED_EARLY = "The job ended before its first epoch was complete: it has no curves and no images.";

export class Detail {
  #state;
  #facts = null;
  #failure = "";
  #scale = null;
  #marked = null;
  #plot = byId("curve-plot");
  #wrong = new Wrong();

  constructor(state) {
    this.#state = state;
    this.id = null;
    this.#plot.addEventListener("pointermove", (event) => this.#point(event));
    this.#plot.addEventListener("keydown", (event) => this.#step(event));
    this.#plot.addEventListener("blur", () => this.#mark(null));
    this.#plot.addEventListener("pointerleave", () => this.#mark(null));
  }

  // Shows another job, or none.
  choose(id) {
    if (id === this.id) return;
    this.id = id;
    this.#facts = null;
    this.#failure = "";
    this.#wrong.choose(id);
    delete this.#plot.dataset.drawn;
    byId("epochs").replaceChildren();
    byId("facts").replaceChildren();
  }

  // Takes the reason why the job cannot be shown.
  fail(message) {
    this.#failure = message;
  }

  // Takes the job as the server sent it.
  keep(facts) {
    this.#facts = facts;
    this.#failure = "";
    reconcile(byId("facts"), factsOf(facts), {
      key: ([name]) => name,
      create: ([name]) => make("div", {}, make("dt", {}, name), make("dd")),
      update: (line, [, value]) => setText(line.children[1], value),
    });
  }

  draw() {
    const job = this.#state.jobs.get(this.id) ?? this.#facts?.job;
    const note = this.#failure || job?.note || "";
    setText(byId("job-note"), note);
    show(byId("job-note"), note !== "");
    show(byId("job"), Boolean(job) || note !== "");
    if (job) this.#drawJob(job);
    else this.#drawNone();
  }

  #drawNone() {
    setText(byId("job-heading"), `jobs/${this.id}`);
    setText(byId("job-spec"), "");
    for (const part of ["job-sweep", "job-empty", "job-results"]) show(byId(part), false);
  }

  #drawJob(job) {
    const curve = this.#state.curve(this.id);
    setText(byId("job-heading"), network(job));
    setText(byId("job-spec"), `jobs/${job.id} on ${job.dataset}: ${job.state}, ${job.completed} of ${job.epochs} epochs`);
    setText(byId("job-empty"), isFinal(job) ? ENDED_EARLY : NO_EPOCH_YET);
    show(byId("job-empty"), job.completed === 0);
    show(byId("job-sweep"), Boolean(job.sweep));
    byId("job-sweep").lastChild.href = `#sweeps/${job.sweep}`;
    setText(byId("job-sweep").lastChild, `sweeps/${job.sweep}`);
    show(byId("job-results"), curve.length > 0);
    if (curve.length) this.#drawCurve(job, curve);
    this.#wrong.draw(curve.length);
  }

  #drawCurve(job, curve) {
    const drawn = `${curve.length} ${job.state} ${this.#plot.clientWidth}`;
    if (this.#plot.dataset.drawn === drawn) return;
    this.#plot.dataset.drawn = drawn;
    this.#scale = drawCurve(this.#plot, curve, job, { height: HEIGHT, isSmall: false });
    byId("curve").dataset.norm = this.#plot.dataset.norm;
    this.#mark(this.#marked);
    reconcile(byId("epochs"), curve.slice(-EPOCHS_LISTED).reverse(), {
      key: ([epoch]) => `${epoch}`,
      create: epochRow,
      update: () => {},
    });
  }

  // Shows the accuracies of an epoch of the curve; null for the latest.
  #mark(epoch) {
    const curve = this.#state.curve(this.id);
    if (!curve.length) return;
    this.#marked = epoch === null ? null : Math.min(Math.max(epoch, 1), curve.length);
    markEpoch(this.#plot, this.#scale, this.#marked);
    byId("curve-reading").setAttribute("aria-live", this.#marked ? "polite" : "off");
    setText(byId("curve-reading"), reading(curve[(this.#marked ?? curve.length) - 1]));
  }

  #point({ clientX }) {
    const { x } = this.#scale;
    const offset = clientX - this.#plot.getBoundingClientRect().left;
    this.#mark(1 + Math.round((offset - x(1)) / (x(2) - x(1))));
  }

  #step(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    this.#mark((this.#marked ?? this.#state.curve(this.id).length) + step);
  }
}

function epochRow([epoch, train, test, trainLoss, testLoss]) {
  const cells = [percent(train), percent(test), trainLoss.toFixed(4), testLoss.toFixed(4)];
  const numbers = cells.map((value) => make("td", { class: "number" }, value));
  return make("tr", {}, make("td", {}, `${epoch}`), ...numbers);
}

function factsOf({ job, spec, started, ended, environment, device_name, parameters, fingerprint }) {
  const facts = [
    ["submitted", localTime(job.created)],
    ["started", localTime(started)],
    ["ended", localTime(ended)],
    ["device", device_name || job.device || "–"],
    ["parameters", parameters === null ? "–" : parameters.toLocaleString("en")],
    ["dataset fingerprint", fingerprint || "–"],
  ];
  for (const part of [spec, environment ?? {}]) {
    for (const [name, value] of Object.entries(part)) facts.push([name.replaceAll("_", " "), `${value}`]);
  }
  return facts;
}
