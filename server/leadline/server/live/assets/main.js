// The page: receives the server's changes, and shows them.

import { Detail } from "./detail.js";
import { byId, say, show } from "./dom.js";
import { drawLists } from "./lists.js";
import { drawRunning, MOST_CURVES } from "./running.js";
import * as server from "./server.js";
import { State } from "./state.js";
import { follow } from "./stream.js";
import { SweepView } from "./sweep.js";

const state = new State();
const detail = new Detail(state);
const sweep = new SweepView(state, plan);

// What was known of a job when it was last asked for: how it stands, and its epochs.
const answered = new Map();
const tried = new Map();

let isPlanned = false;

// All that is heard within a frame is drawn once.
function plan() {
  if (isPlanned) return;
  isPlanned = true;
  requestAnimationFrame(() => {
    isPlanned = false;
    draw();
  });
}

function draw() {
  const [kind, id] = address();
  sweep.choose(kind === "sweeps" ? id : null);
  detail.choose(kind === "sweeps" ? null : (id ?? newest()));
  say(byId("trouble"), state.trouble);
  show(byId("trouble"), state.trouble !== "");
  drawLists(state, detail.id, sweep.id);
  drawRunning(state, detail.id);
  detail.draw();
  sweep.draw();
  const running = state.running().slice(0, MOST_CURVES);
  for (const id of new Set([detail.id, ...running.map((job) => job.id)])) if (id) ask(id);
}

// What the address names: ["jobs" or "sweeps", id], or nothing.
function address() {
  return /^#(jobs|sweeps)\/([0-9a-z]+)$/.exec(location.hash)?.slice(1) ?? [];
}

// The job that is shown where the address names none: the one that was, else the newest that runs,
// else the newest with results.
function newest() {
  const jobs = state.ordered();
  if (state.jobs.has(detail.id)) return detail.id;
  return (jobs.find((job) => job.state === "running") ?? jobs.find((job) => job.completed) ?? jobs[0])?.id ?? null;
}

// Asks for the whole of a job where something of it is not known, once for each news of it.
async function ask(id) {
  const card = state.jobs.get(id);
  const stands = `${card?.state} ${card?.completed > 0}`;
  const isNew = id === detail.id && answered.get(id) !== stands;
  const isShort = state.lacks(id) && tried.get(id) !== card.completed;
  if (!isNew && !isShort) return;
  if (id === detail.id) answered.set(id, stands);
  if (isShort) tried.set(id, card.completed);
  try {
    const facts = await server.job(id);
    state.keepCurve(id, facts.curve);
    if (id === detail.id) detail.keep(facts);
  } catch (error) {
    if (id === detail.id) detail.fail(error.message);
    if (server.mayPass(error)) setTimeout(() => forget(id), server.RETRY_MS);
  }
  plan();
}

function forget(id) {
  answered.delete(id);
  tried.delete(id);
  plan();
}

function hear(kind, data) {
  if (kind === "snapshot") {
    answered.clear();
    tried.clear();
  }
  state.hear(kind, data);
  plan();
}

function stand(isConnected) {
  byId("connection").dataset.state = isConnected ? "connected" : "disconnected";
  say(byId("connection"), isConnected ? "connected" : "disconnected: trying again");
}

function showChosen() {
  draw();
  const section = address()[0] === "sweeps" ? "sweep" : "job";
  byId(`${section}-heading`).focus({ preventScroll: true });
  byId(section).scrollIntoView();
}

window.addEventListener("hashchange", showChosen);
window.addEventListener("resize", plan);
follow(server.events, { hear, stand });
