/** The line: what waits, runs or went wrong, each with its place, progress and a button to stop it. */

import { byId, element } from "./dom.js";
import { isOver } from "./paint_job.js";
import { stateText } from "./paint_words.js";

/** @import { PaintJob } from "./paint_job.js" */

/**
 * @typedef {object} QueueActions
 * @property {(job: PaintJob) => void} show
 * @property {(job: PaintJob) => void} cancel
 * @property {(job: PaintJob) => void} edit     fill the form with its request
 * @property {(job: PaintJob) => void} dismiss
 */

export class QueueList {
  #list = byId("paint-queue", HTMLElement);
  #area = byId("paint-queue-area", HTMLElement);
  /** @type {Map<string, Row>} by the job's id */
  #rows = new Map();
  #actions;

  /** @param {QueueActions} actions */
  constructor(actions) {
    this.#actions = actions;
  }

  /**
   * @param {PaintJob[]} jobs those without pictures
   * @param {(job: PaintJob) => number | null} beginsInS
   */
  show(jobs, beginsInS) {
    const ids = new Set(jobs.map(({ id }) => id));
    for (const [id, row] of this.#rows) if (!ids.has(id)) this.#remove(id, row);
    for (const job of jobs) {
      const row = this.#rows.get(job.id) ?? this.#add(job);
      row.show(job, beginsInS(job));
    }
    this.#area.hidden = jobs.length === 0;
  }

  /** @param {PaintJob} job */
  #add(job) {
    const row = new Row(job, this.#actions);
    this.#rows.set(job.id, row);
    this.#list.append(row.node);
    return row;
  }

  /**
   * @param {string} id
   * @param {Row} row
   */
  #remove(id, row) {
    const hadFocus = row.node.contains(document.activeElement);
    row.node.remove();
    this.#rows.delete(id);
    // who goes by keyboard goes on with the next one
    if (hadFocus) (this.#list.querySelector("button") ?? byId("paint-prompt", HTMLElement)).focus();
  }
}

class Row {
  #preview = element("img", { alt: "", hidden: true });
  #state = element("p", { className: "paint-row-state" });
  #progress = element("progress", { "aria-label": "Progress" });
  #buttons = element("div", { className: "paint-row-buttons" });
  #isOver = false;
  #actions;
  node;

  /**
   * @param {PaintJob} job
   * @param {QueueActions} actions
   */
  constructor(job, actions) {
    this.#actions = actions;
    const look = element(
      "button",
      { type: "button", className: "paint-row-picture", "aria-label": `Look at “${job.input.prompt}”` },
      this.#preview,
    );
    look.addEventListener("click", () => actions.show(job));
    const words = element("p", { className: "paint-row-prompt" }, job.input.prompt);
    const text = element("div", {}, words, this.#state, this.#progress);
    this.node = element("li", { className: "paint-row" }, look, text, this.#buttons);
    this.#buttons.append(this.#button("Cancel", job, actions.cancel));
  }

  /**
   * @param {PaintJob} job
   * @param {number | null} beginsInS
   */
  show(job, beginsInS) {
    this.node.dataset.status = job.status;
    this.#state.textContent = job.note ?? stateText(job, beginsInS);
    this.#progress.max = job.totalSteps;
    this.#progress.value = job.step;
    this.#progress.hidden = isOver(job);
    this.#preview.hidden = !job.previews[0];
    if (job.previews[0]) this.#preview.src = job.previews[0];
    const cancel = this.#buttons.querySelector("button");
    if (cancel && job.status === "canceling") cancel.disabled = true;
    if (isOver(job) && !this.#isOver) this.#offerMore(job);
  }

  /** @param {PaintJob} job that has no pictures to show */
  #offerMore(job) {
    this.#isOver = true;
    const hadFocus = this.#buttons.contains(document.activeElement);
    const edit = this.#button("Edit", job, this.#actions.edit);
    this.#buttons.replaceChildren(edit, this.#button("Dismiss", job, this.#actions.dismiss));
    if (hadFocus) edit.focus();
  }

  /**
   * @param {string} label
   * @param {PaintJob} job
   * @param {(job: PaintJob) => void} act
   */
  #button(label, job, act) {
    const props = { type: "button", className: "button small", "aria-label": `${label} “${job.input.prompt}”` };
    const button = element("button", props, label);
    button.addEventListener("click", () => act(job));
    return button;
  }
}
