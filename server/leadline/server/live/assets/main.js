// The page: hears the server's news, and shows them.

import { Detail } from "./detail.js";
import { byId, say, show } from "./dom.js";
import { drawLists } from "./lists.js";
import { drawRunning, MOST_CURVES } from "./running.js";
import * as server from "./server.js";
import { State } from "./state.js";
import { follow } from "./stream.js";

const state = new State();
const detail = new Detail(state);

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
  detail.choose(chosen());
  say(byId("trouble"), state.trouble);
  show(byId("trouble"), state.trouble !== "");
  drawLists(state, detail.id);
  drawRunning(state, detail.id);
  detail.draw();
  const running = state.running().slice(0, MOST_CURVES);
  for (const id of new Set([detail.id, ...running.map((job) => job.id)])) if (id) ask(id);
}

// The job that the address names, else the newest that runs, else the newest with results.
function chosen() {
  const named = /^#jobs\/([0-9a-z]+)$/.exec(location.hash)?.[1];
  if (named) return named;
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

function leadToJob() {
  draw();
  byId("job-heading").focus({ preventScroll: true });
  byId("job").scrollIntoView();
}

window.addEventListener("hashchange", leadToJob);
window.addEventListener("resize", plan);
follow(server.events, { hear, stand });
