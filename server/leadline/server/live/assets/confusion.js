// The confusion matrix: a table of buttons, each of which shows the images of its cell.

import { make, setText } from "./dom.js";

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class ConfusionTable {
  #table;
  #buttons = [];
  #classes = "";

  // `choose` is called with { true, taken } when a cell is clicked.
  constructor(table, choose) {
    this.#table = table;
    table.addEventListener("keydown", (event) => this.#move(event));
    table.addEventListener("click", (event) => {
      const place = this.#placeOf(event.target);
      if (place) choose({ true: place[0], taken: place[1] });
    });
  }

  // Shows counts, and which cell's images are shown; null for none.
  draw({ classes, counts }, cell) {
    if (this.#classes !== JSON.stringify(classes)) this.#build(classes);
    counts.forEach((row, truth) => {
      const images = Math.max(row.reduce((sum, count) => sum + count, 0), 1);
      row.forEach((count, predicted) => {
        const button = this.#buttons[truth][predicted];
        setText(button, count ? `${count}` : "·");
        const words = `${count} of true ${classes[truth]} predicted ${classes[predicted]}: show images`;
        button.setAttribute("aria-label", words);
        button.setAttribute("aria-pressed", cell?.true === truth && cell?.taken === predicted);
        button.parentElement.style.setProperty("--share", `${Math.round((100 * count) / images)}%`);
      });
    });
  }

  #build(classes) {
    this.#classes = JSON.stringify(classes);
    const names = classes.map((name) => make("th", { scope: "col" }, make("span", {}, name)));
    const head = make("tr", {}, make("th", { scope: "col" }, "true \\ predicted"), ...names);
    this.#buttons = classes.map(() => classes.map(() => make("button", { type: "button", tabindex: -1 })));
    this.#buttons[0][0].tabIndex = 0;
    const rows = this.#buttons.map((row, truth) =>
      make("tr", {}, make("th", { scope: "row" }, classes[truth]), ...row.map((button) => make("td", {}, button))),
    );
    this.#table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
  }

  // A roving tabindex: one cell is in the tab order, and arrow keys lead to the others.
  #move(event) {
    const place = this.#placeOf(event.target);
    const step = STEPS[event.key];
    if (!place || !step) return;
    const next = this.#buttons[place[0] + step[0]]?.[place[1] + step[1]];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  #placeOf(target) {
    for (const [truth, row] of this.#buttons.entries()) {
      const predicted = row.indexOf(target);
      if (predicted >= 0) return [truth, predicted];
    }
    return null;
  }
}
