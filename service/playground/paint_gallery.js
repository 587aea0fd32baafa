/** The gallery: the first picture of each of this browser's jobs, the newest first. */

import { byId, element } from "./dom.js";

/** @import { PaintJob } from "./paint_job.js" */

export class Gallery {
  #list = byId("paint-gallery", HTMLElement);
  #area = byId("paint-gallery-area", HTMLElement);
  /** @type {Map<string, HTMLElement>} by the job's id */
  #items = new Map();
  #choose;

  /** @param {(job: PaintJob) => void} choose */
  constructor(choose) {
    this.#choose = choose;
  }

  /**
   * @param {PaintJob[]} jobs with pictures, the oldest first
   * @param {PaintJob | null} shown
   */
  show(jobs, shown) {
    const ids = new Set(jobs.map(({ id }) => id));
    for (const [id, item] of this.#items) if (!ids.has(id)) this.#remove(id, item);
    for (const job of jobs) {
      const item = this.#items.get(job.id) ?? this.#add(job);
      item.firstElementChild?.setAttribute("aria-pressed", String(job === shown));
    }
    this.#area.hidden = jobs.length === 0;
  }

  /** @param {PaintJob} job */
  #add(job) {
    const [{ blob }] = job.pictures;
    const src = URL.createObjectURL(blob);
    const image = element("img", { loading: "lazy", decoding: "async", src, alt: job.input.prompt });
    const count = job.pictures.length;
    const button = element(
      "button",
      { type: "button", title: job.input.prompt },
      image,
      count > 1 && element("span", { className: "paint-count" }, `${count}`),
    );
    button.addEventListener("click", () => this.#choose(job));
    const item = element("li", {}, button);
    this.#items.set(job.id, item);
    this.#list.prepend(item);
    return item;
  }

  /**
   * @param {string} id
   * @param {HTMLElement} item
   */
  #remove(id, item) {
    URL.revokeObjectURL(item.querySelector("img")?.src ?? "");
    item.remove();
    this.#items.delete(id);
  }
}
