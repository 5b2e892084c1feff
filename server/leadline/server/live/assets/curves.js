// Accuracies epoch by epoch, as SVG.

import { makeSvg } from "./dom.js";
import { percent } from "./format.js";

// The axis shows the epochs to come, up to this many; beyond them it grows with the curve.
const MOST_EPOCHS_AHEAD = 50;
const FINAL_STATES = ["succeeded", "failed", "cancelled"];
const MARKED_EPOCHS = 25;
const MOST_TICKS = 6;
const TRAIN = 1;
const TEST = 2;

export const isFinal = (card) => FINAL_STATES.includes(card.state);

// Draws points, each [epoch, train, test, ...], in place of the previous curve.
export function drawCurve(plot, points, card, { height, isSmall }) {
  const width = Math.max(plot.clientWidth, 160);
  const scale = scaleOf(points, lastEpoch(points, card), width, height, isSmall);
  const svg = makeSvg("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  svg.setAttribute("aria-hidden", "true");
  svg.append(...axes(scale, isSmall));
  for (const [column, name] of [[TRAIN, "train"], [TEST, "test"]]) {
    svg.append(line(points, column, name, scale), ...marks(points, column, name, scale, isSmall));
  }
  plot.replaceChildren(svg);
  plot.dataset.norm = card.batch_norm ? "with" : "without";
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", summary(points));
  return scale;
}

// Marks an epoch on a curve that is drawn; null marks none.
export function markEpoch(plot, scale, epoch) {
  plot.querySelector(".cursor")?.remove();
  if (epoch === null) return;
  const x = scale.x(epoch);
  const cursor = makeSvg("line", { class: "cursor", x1: x, x2: x, y1: scale.top, y2: scale.bottom });
  plot.firstChild.append(cursor);
}

export function reading([epoch, train, test]) {
  return `epoch ${epoch}: train ${percent(train)}, test ${percent(test)}`;
}

function summary(points) {
  const best = points.reduce((one, other) => (other[TEST] > one[TEST] ? other : one));
  return `Accuracies of ${points.length} epochs; the latest, ${reading(points.at(-1))}; the best, ${reading(best)}`;
}

// The last epoch of the axis: that of the job, while it may still come.
function lastEpoch(points, card) {
  if (isFinal(card)) return points.length;
  return Math.max(points.length, Math.min(card.epochs, MOST_EPOCHS_AHEAD));
}

function scaleOf(points, last, width, height, isSmall) {
  const values = points.flatMap((point) => [point[TRAIN], point[TEST]]);
  const scale = accuracyScale(values, width, height, isSmall);
  const step = (scale.right - scale.left) / Math.max(last - 1, 1);
  return { ...scale, last, x: (epoch) => scale.left + step * (epoch - 1) };
}

// Where a plot of accuracies, fractions in [0, 1], has its edges, and where a value is on it.
export function accuracyScale(values, width, height, isSmall) {
  const [left, right, top, bottom] = isSmall ? [34, 8, 6, height - 18] : [52, 12, 10, height - 42];
  const low = Math.max(0, Math.floor(10 * Math.min(...values) - 0.01) / 10);
  const high = Math.min(1, Math.ceil(10 * Math.max(...values) + 0.01) / 10);
  const y = (value) => bottom - ((bottom - top) * (value - low)) / Math.max(high - low, 0.1);
  return { left, right: width - right, top, bottom, low, high, y };
}

function axes(scale, isSmall) {
  const drawn = accuracyAxis(scale, isSmall);
  for (const epoch of xTicks(scale.last, isSmall ? 3 : 8)) {
    drawn.push(text(scale.x(epoch), scale.bottom + 15, `${epoch}`, "middle"));
  }
  return isSmall ? drawn : [...drawn, ...titles(scale, "epochs completed")];
}

// The grid lines of accuracies and their labels, in percent.
export function accuracyAxis(scale, isSmall) {
  const drawn = [];
  for (const value of yTicks(scale, isSmall)) {
    const y = scale.y(value);
    drawn.push(makeSvg("line", { class: "grid", x1: scale.left, x2: scale.right, y1: y, y2: y }));
    drawn.push(text(scale.left - 6, y + 4, `${Math.round(100 * value)}`, "end"));
  }
  return drawn;
}

// The titles of the axes.
export function titles(scale, x) {
  const middle = (scale.top + scale.bottom) / 2;
  const y = text(14, middle, "classified correctly (%)", "middle");
  y.setAttribute("transform", `rotate(-90 14 ${middle})`);
  return [text((scale.left + scale.right) / 2, scale.bottom + 35, x, "middle"), y];
}

function yTicks({ low, high }, isSmall) {
  const [from, to] = [Math.round(100 * low), Math.round(100 * high)];
  const stride = isSmall ? to - from : [2, 5, 10, 20].find((one) => (to - from) / one <= MOST_TICKS);
  const ticks = [];
  for (let tick = from; tick <= to; tick += stride) ticks.push(tick / 100);
  return ticks;
}

function xTicks(last, most) {
  const stride = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].find((one) => last / one <= most);
  const ticks = [1];
  for (let epoch = stride ?? 10000; epoch <= last; epoch += stride ?? 10000) {
    if (epoch > 1) ticks.push(epoch);
  }
  // 1 stands close to 2 where the stride is small, and in its way where it is not.
  return ticks.length > 2 && ticks[1] - 1 <= (stride ?? 1) / 2 ? ticks.slice(1) : ticks;
}

export function text(x, y, words, anchor) {
  return makeSvg("text", { x, y, "text-anchor": anchor }, words);
}

function line(points, column, name, scale) {
  const steps = points.map((point) => `${scale.x(point[0]).toFixed(1)},${scale.y(point[column]).toFixed(1)}`);
  return makeSvg("polyline", { class: `curve ${name}`, points: steps.join(" ") });
}

function marks(points, column, name, scale, isSmall) {
  // A single point is no line.
  if (points.length > (isSmall ? 1 : MARKED_EPOCHS)) return [];
  return points.map((point) =>
    makeSvg("circle", { class: `mark ${name}`, cx: scale.x(point[0]), cy: scale.y(point[column]), r: 3 }),
  );
}
