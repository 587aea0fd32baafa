/** A number with its name: a slider for the hand and a field for the exact value, always equal. */

import { element } from "./dom.js";

let numMade = 0; // for ids

/**
 * @typedef {object} Range
 * @property {number} min
 * @property {number} max
 * @property {number} step
 * @property {number} value
 */

export class NumberField {
  #slider;
  #input;
  node;

  /**
   * @param {string} name of the request's field
   * @param {string} label
   * @param {Range} range
   * @param {string} [hint]
   */
  constructor(name, label, { min, max, step, value }, hint) {
    const id = `number-${(numMade += 1)}`;
    const hintId = hint ? `${id}-hint` : null;
    // any digits may be typed where there are fractions: the step is the slider's
    const typedStep = Number.isInteger(step) ? step : "any";
    this.#input = element("input", {
      id, name, type: "number", min, max, step: typedStep, value, required: true,
      "aria-describedby": hintId,
    });
    this.#slider = element("input", {
      type: "range", min, max, step, value, tabIndex: -1, "aria-hidden": "true",
    });
    this.#slider.addEventListener("input", () => {
      this.#input.value = this.#slider.value;
    });
    this.#input.addEventListener("input", () => {
      this.#slider.value = this.#input.value;
    });
    this.node = element(
      "div",
      { className: "number-field" },
      element("label", { htmlFor: id }, label),
      this.#slider,
      this.#input,
      hint && element("p", { id: hintId, className: "hint" }, hint),
    );
  }

  /** What is not shown is not checked either. */
  set isShown(/** @type {boolean} */ isShown) {
    this.node.hidden = !isShown;
    this.#input.disabled = !isShown;
  }

  get value() {
    return this.#input.valueAsNumber;
  }

  set value(value) {
    this.#input.valueAsNumber = value;
    this.#slider.valueAsNumber = value;
  }
}
