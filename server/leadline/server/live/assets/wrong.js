// What an epoch of the chosen job gets wrong: its confusion matrix, and the images in a cell.

import { ConfusionTable } from "./confusion.js";
import { byId, setText, show } from "./dom.js";
import { percent } from "./format.js";
import { addImages, drawImages, shownImages } from "./images.js";
import * as server from "./server.js";

// The latest epoch is followed no faster than this.
const LEAST_MS = 1000;

export class Wrong {
  #id = null;
  #epochs = 0;
  #cell = null;
  #shown = null;
  #isFetching = false;
  #timer = null;
  #confusion = new ConfusionTable(byId("confusion"), (cell) => this.#chooseCell(cell));

  constructor() {
    byId("all-wrong").addEventListener("click", () => this.#chooseCell(null));
    byId("more").addEventListener("click", () => this.#showMore());
    byId("latest").addEventListener("change", () => this.#refresh());
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

  // Takes note of how many epochs the job has.
  draw(epochs) {
    if (epochs === this.#epochs) return;
    this.#epochs = epochs;
    byId("epoch").max = epochs;
    this.#timer ??= setTimeout(() => this.#refresh("off"), this.#shown ? LEAST_MS : 0);
  }

  #chooseEpoch() {
    byId("latest").checked = false;
    if (byId("epoch").checkValidity()) this.#refresh();
  }

  #chooseCell(cell) {
    this.#cell = cell;
    this.#refresh();
  }

  #selection() {
    if (byId("latest").checked) byId("epoch").value = this.#epochs;
    return { id: this.#id, epoch: Number(byId("epoch").value), cell: this.#cell };
  }

  // Fetches until what is shown is what is selected, one request at a time. Screen readers announce
  // what the user selected, but not what follows the latest epoch.
  async #refresh(live = "polite") {
    byId("images-heading").setAttribute("aria-live", live);
    clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#isFetching) return;
    this.#isFetching = true;
    while (this.#id) {
      const selected = this.#selection();
      if (!byId("epoch").checkValidity() || same(selected, this.#shown)) break;
      if (!(await this.#show(selected))) {
        this.#timer ??= setTimeout(() => this.#refresh("off"), server.RETRY_MS);
        break;
      }
    }
    this.#isFetching = false;
  }

  // Returns whether there is no need to try again.
  async #show(selected) {
    const { id, epoch, cell } = selected;
    try {
      const [matrix, listing] = await Promise.all([
        server.confusion(id, epoch),
        server.examples(id, epoch, cell, 0),
      ]);
      if (id !== this.#id) return true;
      this.#confusion.draw(matrix, cell);
      drawImages(listing, cell);
      setText(byId("epoch-says"), `epoch ${epoch}: ${percent(matrix.accuracy)} of ${matrix.images.toLocaleString("en")} test images correct`);
      this.#showError("");
    } catch (error) {
      this.#showError(error.message);
      if (server.isTransient(error)) return false;
    }
    this.#shown = selected;
    return true;
  }

  async #showMore() {
    const { id, epoch, cell } = this.#shown;
    byId("more").disabled = true; // a second click would add the same images again
    try {
      const listing = await server.examples(id, epoch, cell, shownImages());
      if (same(this.#shown, { id, epoch, cell })) addImages(listing);
    } catch (error) {
      this.#showError(error.message);
    } finally {
      byId("more").disabled = false;
    }
  }

  #showError(message) {
    setText(byId("confusion-trouble"), message);
    show(byId("confusion-trouble"), message !== "");
  }
}

function same(selected, other) {
  return (
    other !== null &&
    selected.id === other.id &&
    selected.epoch === other.epoch &&
    selected.cell?.true === other.cell?.true &&
    selected.cell?.taken === other.cell?.taken
  );
}
