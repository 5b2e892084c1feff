// What an epoch of the chosen job gets wrong: its confusion matrix, and the images of a cell.

import { ConfusionTable } from "./confusion.js";
import { byId, say, show } from "./dom.js";
import { percent } from "./format.js";
import { addImages, drawImages, shownImages } from "./images.js";
import * as server from "./server.js";

// While epochs are short, those that nobody asked for follow no faster than this.
const LEAST_MS = 1000;

export class Wrong {
  #id = null;
  #epochs = 0;
  #cell = null;
  #shown = null;
  #isAsking = false;
  #timer = null;
  #confusion = new ConfusionTable(byId("confusion"), (cell) => this.#chooseCell(cell));

  constructor() {
    byId("all-wrong").addEventListener("click", () => this.#chooseCell(null));
    byId("more").addEventListener("click", () => this.#showMore());
    byId("latest").addEventListener("change", () => this.#ask());
    byId("epoch").addEventListener("input", () => this.#chooseEpoch());
    byId("epoch-form").addEventListener("submit", (event) => event.preventDefault());
  }

  // Shows another job, from its latest epoch on.
  choose(id) {
    this.#id = id;
    this.#epochs = 0;
    this.#cell = null;
    this.#shown = null;
    byId("latest").checked = true;
    byId("images").replaceChildren();
    show(byId("more"), false);
  }

  // Says how many epochs the job has by now.
  draw(epochs) {
    if (epochs === this.#epochs) return;
    this.#epochs = epochs;
    byId("epoch").max = epochs;
    this.#timer ??= setTimeout(() => this.#ask("off"), this.#shown ? LEAST_MS : 0);
  }

  #chooseEpoch() {
    byId("latest").checked = false;
    if (byId("epoch").checkValidity()) this.#ask();
  }

  #chooseCell(cell) {
    this.#cell = cell;
    this.#ask();
  }

  #wanted() {
    if (byId("latest").checked) byId("epoch").value = this.#epochs;
    return { id: this.#id, epoch: Number(byId("epoch").value), cell: this.#cell };
  }

  // Asks, a question at a time, until what is shown is what is wanted. What somebody has asked for
  // is read aloud, and what follows by itself is not.
  async #ask(live = "polite") {
    byId("images-heading").setAttribute("aria-live", live);
    clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#isAsking) return;
    this.#isAsking = true;
    while (this.#id) {
      const wanted = this.#wanted();
      if (!byId("epoch").checkValidity() || same(wanted, this.#shown)) break;
      if (!(await this.#show(wanted))) {
        this.#timer ??= setTimeout(() => this.#ask("off"), server.RETRY_MS);
        break;
      }
    }
    this.#isAsking = false;
  }

  // Returns whether that is settled.
  async #show(wanted) {
    const { id, epoch, cell } = wanted;
    try {
      const [matrix, found] = await Promise.all([
        server.confusion(id, epoch),
        server.examples(id, epoch, cell, 0),
      ]);
      if (id !== this.#id) return true;
      this.#confusion.draw(matrix, cell);
      drawImages(found, cell);
      say(byId("epoch-says"), `epoch ${epoch}: ${percent(matrix.accuracy)} of ${matrix.images.toLocaleString("en")} test images correct`);
      this.#complain("");
    } catch (error) {
      this.#complain(error.message);
      if (server.mayPass(error)) return false;
    }
    this.#shown = wanted;
    return true;
  }

  async #showMore() {
    const { id, epoch, cell } = this.#shown;
    byId("more").disabled = true; // a second click would bring the same images again
    try {
      const found = await server.examples(id, epoch, cell, shownImages());
      if (same(this.#shown, { id, epoch, cell })) addImages(found);
    } catch (error) {
      this.#complain(error.message);
    } finally {
      byId("more").disabled = false;
    }
  }

  #complain(message) {
    say(byId("confusion-trouble"), message);
    show(byId("confusion-trouble"), message !== "");
  }
}

function same(one, other) {
  return (
    other !== null &&
    one.id === other.id &&
    one.epoch === other.epoch &&
    one.cell?.true === other.cell?.true &&
    one.cell?.taken === other.cell?.taken
  );
}
