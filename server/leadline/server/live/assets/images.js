// The images behind a cell of the confusion matrix, or all that are wrong.

import { byId, make, say, show } from "./dom.js";
import { counted, percent } from "./format.js";
import * as server from "./server.js";

// Shows the first page of what the server found.
export function drawImages(found, cell) {
  say(byId("images-heading"), heading(found, cell));
  show(byId("all-wrong"), cell !== null);
  byId("images").replaceChildren(...found.examples.map((one) => figure(one, found)));
  showMore(found);
}

// Adds the next page to those that are shown.
export function addImages(found) {
  byId("images").append(...found.examples.map((one) => figure(one, found)));
  showMore(found);
}

export const shownImages = () => byId("images").childElementCount;

function showMore(found) {
  show(byId("more"), shownImages() < found.total);
}

function heading(found, cell) {
  const of = `of epoch ${found.epoch}`;
  if (cell === null) return `${counted(found.wrong, "wrong image")} ${of}, highest probability first`;
  return `${counted(found.total, "image")} ${of}: ${what(cell, found.classes)}`;
}

function what(one, classes) {
  const [isA, taken] = [classes[one.true], classes[one.taken]];
  return isA === taken ? `${isA}, correct` : `true ${isA}, predicted ${taken}`;
}

function figure(example, { classes, fingerprint }) {
  const words = what(example, classes);
  const picture = make("img", {
    src: server.image(fingerprint, example.index),
    alt: `test image ${example.index}: ${words}`,
    title: `test image ${example.index}`,
    width: 128,
    height: 128,
    loading: "lazy",
  });
  return make("li", {}, picture, make("span", {}, words), make("small", {}, `${percent(example.probability)}, image ${example.index}`));
}
