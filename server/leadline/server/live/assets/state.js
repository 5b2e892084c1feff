// The state of the server, put together from its messages.

export class State {
  constructor() {
    this.jobs = new Map();
    this.order = [];
    this.queue = [];
    this.counts = {};
    this.models = [];
    this.sweeps = [];
    this.hold = "";
    this.progress = {};
    this.trouble = "";
    this.isKnown = false;
    // The points of each curve that was fetched, by job.
    this.curves = new Map();
  }

  receive(kind, data) {
    if (kind === "snapshot") this.#begin(data);
    if (kind === "snapshot" || kind === "change") this.#change(data);
    if (kind === "progress") this.progress = data;
    if (kind === "store_error") this.trouble = data.message;
  }

  ordered() {
    return this.order.map((id) => this.jobs.get(id));
  }

  running() {
    return this.ordered().filter((job) => job.state === "running");
  }

  // The points of a curve, each [epoch, train, test, train loss, test loss], in order.
  curve(id) {
    return this.curves.get(id) ?? [];
  }

  // Whether a job has epochs that its curve lacks, so that it must be fetched.
  isIncomplete(id) {
    return this.curve(id).length < (this.jobs.get(id)?.completed ?? 0);
  }

  keepCurve(id, points) {
    if (points.length > this.curve(id).length) this.curves.set(id, points);
  }

  #begin(data) {
    this.jobs.clear();
    this.progress = data.progress;
    this.trouble = data.store_error;
    this.isKnown = true;
  }

  #change(data) {
    for (const card of data.jobs ?? []) this.jobs.set(card.id, card);
    for (const name of ["order", "queue", "counts", "models", "sweeps", "hold"]) {
      if (name in data) this[name] = data[name];
    }
    for (const [id, points] of Object.entries(data.curves ?? {})) this.#extend(id, points);
    const shown = new Set(this.order);
    for (const id of this.jobs.keys()) if (!shown.has(id)) this.jobs.delete(id);
  }

  // New epochs go to the end; if some are missing in between, the whole curve is fetched.
  #extend(id, points) {
    const curve = this.curves.get(id);
    if (!curve) return;
    for (const point of points) if (point[0] === curve.length + 1) curve.push(point);
  }
}
