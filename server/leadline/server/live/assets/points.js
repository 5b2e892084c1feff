// The points of a sweep: test accuracy over one of its axes, as SVG.

import { accuracyAxis, accuracyScale, text, titles } from "./curves.js";
import { makeSvg } from "./dom.js";
import { inWords, percent, plainValue } from "./format.js";

const HEIGHT = 300;
const MARGIN = 24;
const SHADES = 3;

// The lines of a sweep: one for each combination of the axes beside the one that is drawn over.
// They are drawn where there is such an axis and a completed epoch.
export function linesOf({ sweep, spec, variants }) {
  const axes = sweep.axes.filter(({ field }) => field !== "seed");
  const axis = axes.find(({ field }) => field === "blocks") ?? axes[0];
  const groups = new Map();
  for (const { point, best } of axis ? variants : []) {
    const others = Object.entries(point).filter(([field]) => field !== axis.field);
    const key = JSON.stringify(others);
    if (!groups.has(key)) groups.set(key, { ...lineOf(others, spec), points: [] });
    if (best) groups.get(key).points.push({ value: point[axis.field], ...best });
  }
  const lines = shaded([...groups.values()].filter(({ points }) => points.length));
  return { axis, groups: lines, isDrawn: lines.length > 0 };
}

function lineOf(others, spec) {
  const values = Object.fromEntries(others);
  const norm = values.batch_norm ?? spec.batch_norm;
  const rest = others.filter(([field]) => field !== "batch_norm");
  const words = rest.map(([field, value]) => `${inWords(field)} ${plainValue(value)}`);
  return { norm, label: [`${norm ? "with" : "without"} batch norm`, ...words].join(", ") };
}

// Warm colours with batch norm, cool ones without, as in every other picture.
function shaded(lines) {
  const used = { plain: 0, norm: 0 };
  return lines.map((line) => {
    const kind = line.norm ? "norm" : "plain";
    return { ...line, style: `${kind}-${used[kind]++ % SHADES}` };
  });
}

export function drawPoints(plot, lines) {
  const drawn = JSON.stringify([lines, plot.clientWidth]);
  if (!lines.isDrawn || plot.dataset.drawn === drawn) return;
  plot.dataset.drawn = drawn;
  const width = Math.max(plot.clientWidth, 160);
  const values = lines.groups.flatMap(({ points }) => points.flatMap(({ least, most }) => [least, most]));
  const scale = accuracyScale(values, width, HEIGHT, false);
  const x = placesOf(lines.axis, scale);
  const svg = makeSvg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` });
  svg.setAttribute("aria-hidden", "true");
  svg.append(...accuracyAxis(scale, false), ...titles(scale, axisTitle(lines.axis)));
  for (const value of lines.axis.values) {
    svg.append(text(x(value), scale.bottom + 15, plainValue(value), "middle"));
  }
  svg.append(...lines.groups.map((line) => drawLine(line, x, scale)));
  plot.replaceChildren(svg);
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", summary(lines));
}

// Depths are as far apart as they differ; the values of other axes are evenly spaced.
function placesOf({ field, values }, scale) {
  const numbers = field === "blocks" ? values : values.map((_, place) => place);
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const [left, right] = [scale.left + MARGIN, scale.right - MARGIN];
  return (value) => left + ((right - left) * (numbers[values.indexOf(value)] - low)) / Math.max(high - low, 1);
}

function drawLine({ norm, style, points }, x, scale) {
  const places = points
    .map((point) => ({ ...point, x: x(point.value), y: scale.y(point.mean) }))
    .sort((one, other) => one.x - other.x);
  const steps = places.map((place) => `${place.x.toFixed(1)},${place.y.toFixed(1)}`).join(" ");
  return makeSvg(
    "g",
    { class: style },
    makeSvg("polyline", { class: "curve", points: steps }),
    ...places.flatMap((place) => [whisker(place, scale), norm ? square(place) : circle(place)]),
  );
}

function whisker({ x, least, most }, scale) {
  return makeSvg("line", { class: "whisker", x1: x, x2: x, y1: scale.y(least), y2: scale.y(most) });
}

const circle = ({ x, y }) => makeSvg("circle", { class: "mark", cx: x, cy: y, r: 4 });

const square = ({ x, y }) => makeSvg("rect", { class: "mark", x: x - 4, y: y - 4, width: 8, height: 8 });

const axisTitle = ({ field }) => (field === "blocks" ? "depth (blocks)" : inWords(field));

function summary({ axis, groups }) {
  const lines = groups.map(
    ({ label, points }) => `${label}: ${points.map(({ value, mean }) => `${plainValue(value)}, ${percent(mean)}`).join("; ")}`,
  );
  return `Best test accuracy over ${axisTitle(axis)}, mean over the seeds. ${lines.join(". ")}`;
}
