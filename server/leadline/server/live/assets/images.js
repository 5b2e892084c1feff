// The images in a cell of the confusion matrix, or all that are wrong.

import { byId, make, setText, show } from "./dom.js";
import { counted, percent } from "./format.js";
import * as server from "./server.js";

// Shows the first page of a listing.
export function drawImages(listing, cell) {
  setText(byId("images-heading"), heading(listing, cell));
  show(byId("all-wrong"), cell !== null);
  byId("images").replaceChildren(...listing.examples.map((example) => figure(example, listing)));
  showMore(listing);
}

// Adds the next page.
export function addImages(listing) {
  byId("images").append(...listing.examples.map((example) => figure(example, listing)));
  showMore(listing);
}

// Pixels of a side that is this many times as long as the other, the longer of which has 128.
const side = (times) => Math.max(1, Math.round(128 * Math.min(1, times)));

export const shownImages = () => byId("images").childElementCount;

function showMore(listing) {
  show(byId("more"), shownImages() < listing.total);
}

function heading(listing, cell) {
  const of = `of epoch ${listing.epoch}`;
  if (cell === null) return `${counted(listing.wrong, "wrong image")} ${of}, highest probability first`;
  return `${counted(listing.total, "image")} ${of}: ${what(cell, listing.classes)}`;
}

function what({ true: index, taken }, classes) {
  const [truth, predicted] = [classes[index], classes[taken]];
  return truth === predicted ? `${truth}, correct` : `true ${truth}, predicted ${predicted}`;
}

function figure(example, { classes, fingerprint }) {
  const words = what(example, classes);
  const picture = make("img", {
    src: server.image(fingerprint, example.index),
    alt: `test image ${example.index}: ${words}`,
    title: `test image ${example.index}`,
    width: side(example.aspect),
    height: side(1 / example.aspect),
    loading: "lazy",
  });
  return make("li", {}, picture, make("span", {}, words), make("small", {}, `${percent(example.probability)}, image ${example.index}`));
}
