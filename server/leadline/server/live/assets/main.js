// The page: receives the server's changes, and shows them.

import { Detail } from "./detail.js";
import { byId, setText, show } from "./dom.js";
import { drawLists } from "./lists.js";
import { drawRunning, MOST_CURVES } from "./running.js";
import * as server from "./server.js";
import { State } from "./state.js";
import { follow } from "./stream.js";
import { SweepView } from "./sweep.js";

const state = new State();
const detail = new Detail(state);
const sweep = new SweepView(state, scheduleDraw);

// The state and the epochs of each job when it was last fetched.
const fetchedStates = new Map();
const fetchedEpochs = new Map();

let isScheduled = false;

// All changes within a frame are drawn once.
function scheduleDraw() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    draw();
  });
}

function draw() {
  const [kind, id] = address();
  sweep.choose(kind === "sweeps" ? id : null);
  detail.choose(kind === "sweeps" ? null : (id ?? newest()));
  setText(byId("trouble"), state.trouble);
  show(byId("trouble"), state.trouble !== "");
  drawLists(state, detail.id, sweep.id);
  drawRunning(state, detail.id);
  detail.draw();
  sweep.draw();
  const running = state.running().slice(0, MOST_CURVES);
  for (const id of new Set([detail.id, ...running.map((job) => job.id)])) if (id) fetchJob(id);
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

// Fetches a job if the page lacks a part of it, once for each change.
async function fetchJob(id) {
  const card = state.jobs.get(id);
  const current = `${card?.state} ${card?.completed > 0}`;
  const isNew = id === detail.id && fetchedStates.get(id) !== current;
  const isShort = state.isIncomplete(id) && fetchedEpochs.get(id) !== card.completed;
  if (!isNew && !isShort) return;
  if (id === detail.id) fetchedStates.set(id, current);
  if (isShort) fetchedEpochs.set(id, card.completed);
  try {
    const facts = await server.job(id);
    state.keepCurve(id, facts.curve);
    if (id === detail.id) detail.keep(facts);
  } catch (error) {
    if (id === detail.id) detail.fail(error.message);
    if (server.isTransient(error)) setTimeout(() => forget(id), server.RETRY_MS);
  }
  scheduleDraw();
}

function forget(id) {
  fetchedStates.delete(id);
  fetchedEpochs.delete(id);
  scheduleDraw();
}

function receive(kind, data) {
  if (kind === "snapshot") {
    fetchedStates.clear();
    fetchedEpochs.clear();
  }
  state.receive(kind, data);
  scheduleDraw();
}

function setConnected(isConnected) {
  byId("connection").dataset.state = isConnected ? "connected" : "disconnected";
  setText(byId("connection"), isConnected ? "connected" : "disconnected: reconnecting");
}

function showChosen() {
  draw();
  const section = address()[0] === "sweeps" ? "sweep" : "job";
  byId(`${section}-heading`).focus({ preventScroll: true });
  byId(section).scrollIntoView();
}

// Shows who has logged in.
async function showSession() {
  const { name } = await server.session();
  setText(byId("who"), name);
  show(byId("logout"), name !== "");
}

// After a refusal of the stream: the session may have ended, or its token was revoked.
async function onRefused() {
  const { name, is_required } = await server.session();
  if (is_required && !name) location.assign("/login");
}

window.addEventListener("hashchange", showChosen);
window.addEventListener("resize", scheduleDraw);
follow(server.events, { receive, setConnected, onRefused });
showSession();
