/** The stage: one picture large, finished or on its way, and what can be done with it. */

import { byId, element } from "./dom.js";
import { codePanel } from "./paint_code.js";
import { isOver } from "./paint_job.js";
import { fileName, settingsText, stateText } from "./paint_words.js";

/** @import { PaintJob } from "./paint_job.js" */

const EXAMPLES = ["a large red circle", "three orange stars in a row", "a yellow star above a green ring"];

/** @typedef {(job: PaintJob, index: number) => void} Act on one of the job's pictures */

/**
 * @typedef {object} StageActions
 * @property {Act} sameSeed
 * @property {Act} vary
 * @property {Act} startFrom
 * @property {Act} classify
 * @property {Act} forget
 * @property {(prompt: string) => void} tryOut
 */

export class Stage {
  node = byId("paint-stage", HTMLElement);
  #actions;
  /** @type {PaintJob | null} */
  job = null;
  #index = 0;
  #isDrawn = false; // with its pictures, which do not change any more
  #hasCode = false; // stays open from picture to picture
  /** @type {string[]} */
  #urls = [];

  /** @param {StageActions} actions */
  constructor(actions) {
    this.#actions = actions;
  }

  /** @param {PaintJob | null} job null: nothing has been painted yet */
  show(job) {
    if (job === this.job && this.#isDrawn) return;
    if (job !== this.job) this.#index = 0;
    this.job = job;
    this.#isDrawn = job !== null && job.pictures.length > 0;
    this.#draw();
  }

  #draw() {
    for (const url of this.#urls) URL.revokeObjectURL(url);
    this.#urls = [];
    if (this.job === null) this.node.replaceChildren(emptyStage(this.#actions.tryOut));
    else if (this.#isDrawn) this.node.replaceChildren(...this.#finished(this.job));
    else this.node.replaceChildren(unfinished(this.job));
  }

  /** @param {PaintJob} job */
  #finished(job) {
    const urls = job.pictures.map(({ blob }) => URL.createObjectURL(blob));
    this.#urls = urls;
    const { width, height } = job.pictures[this.#index];
    const href = urls[this.#index];
    const image = element("img", { src: href, alt: job.input.prompt, width, height });
    const link = element("a", { href, target: "_blank", title: "Open the picture alone" }, image);
    return [
      element("figure", { className: "paint-frame" }, link),
      urls.length > 1 && this.#strip(urls),
      element(
        "div",
        { className: "paint-caption" },
        element("p", { className: "paint-prompt" }, job.input.prompt),
        element("p", { className: "hint" }, settingsText(job, this.#index)),
      ),
      this.#buttons(job, urls[this.#index]),
      this.#code(job),
    ].filter((node) => node !== false);
  }

  /** @param {string[]} urls */
  #strip(urls) {
    const buttons = urls.map((url, index) => {
      const image = element("img", { src: url, alt: `Picture ${index + 1} of ${urls.length}` });
      const button = element("button", { type: "button", "aria-pressed": index === this.#index }, image);
      button.addEventListener("click", () => this.#select(index));
      return button;
    });
    return element("div", { className: "paint-strip" }, ...buttons);
  }

  /** @param {number} index */
  #select(index) {
    this.#index = index;
    this.#draw();
    /** @type {HTMLElement | undefined} */ (
      this.node.querySelectorAll(".paint-strip button")[index]
    )?.focus();
  }

  /**
   * @param {PaintJob} job
   * @param {string} url
   */
  #buttons(job, url) {
    const download = fileName(job, this.#index);
    const button = (/** @type {string} */ label, /** @type {Act} */ act, kind = "") => {
      const made = element("button", { type: "button", className: `button ${kind}` }, label);
      made.addEventListener("click", () => act(job, this.#index));
      return made;
    };
    return element(
      "div",
      { className: "paint-actions" },
      element("a", { className: "button", href: url, download }, "Download"),
      button("Same seed again", this.#actions.sameSeed),
      button("Vary", this.#actions.vary),
      button("Use as start image", this.#actions.startFrom),
      button("Classify this", this.#actions.classify),
      button("Delete", this.#actions.forget, "quiet"),
    );
  }

  /** @param {PaintJob} job */
  #code(job) {
    const { seed } = job.pictures[0]; // a job's pictures follow from its first seed
    const summary = element("summary", {}, "This request as code");
    const details = element("details", { className: "paint-more", open: this.#hasCode }, summary);
    details.append(codePanel({ ...job.input, seed }));
    details.addEventListener("toggle", () => {
      this.#hasCode = details.open;
    });
    return details;
  }
}

/** @param {PaintJob} job */
function unfinished(job) {
  const previews = job.previews.filter(Boolean).map((src) => element("img", { src, alt: "" }));
  return element(
    "figure",
    { className: "paint-frame painting", "data-status": job.status },
    previews.length > 0 && element("div", { className: "paint-previews" }, ...previews),
    !isOver(job) && element("figcaption", {}, stateText(job, null)),
  );
}

/** @param {(prompt: string) => void} tryOut */
function emptyStage(tryOut) {
  const examples = EXAMPLES.map((prompt) => {
    const button = element("button", { type: "button", className: "button" }, prompt);
    button.addEventListener("click", () => tryOut(prompt));
    return button;
  });
  return element(
    "div",
    { className: "paint-frame empty" },
    element("p", {}, "Say what you want to see, and it is painted here. Or try one of these."),
    element("div", { className: "chips" }, ...examples),
  );
}
