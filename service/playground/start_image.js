/** The picture that the form starts from: dropped, chosen or handed over, and its strength. */

import { byId } from "./dom.js";
import { NumberField } from "./number_field.js";

/** @import { Model } from "./models.js" */

const STRENGTH_STEP = 0.05;

export class StartImage {
  /** @type {Blob | null} */
  file = null;
  #preview = byId("paint-start-preview", HTMLImageElement);
  #area = byId("paint-start", HTMLDetailsElement);
  /** @type {NumberField | null} */
  #strength = null;

  constructor() {
    const input = byId("paint-start-file", HTMLInputElement);
    input.addEventListener("change", () => {
      if (input.files?.[0]) this.set(input.files[0]);
      input.value = ""; // so that the same file may be chosen again
    });
    byId("paint-start-remove", HTMLButtonElement).addEventListener("click", () => {
      this.set(null);
      input.focus();
    });
  }

  /** @param {Model} model */
  offer({ defaults }) {
    this.#strength = new NumberField(
      "strength",
      "Strength",
      { min: STRENGTH_STEP, max: 1, step: STRENGTH_STEP, value: defaults.strength ?? 1 },
      "How little of it is left: at 1, nothing.",
    );
    byId("paint-strength", HTMLElement).replaceChildren(this.#strength.node);
    this.set(this.file);
  }

  /** What the request says of it; nothing where there is no picture. */
  get input() {
    return this.file && this.#strength ? { strength: this.#strength.value } : {};
  }

  /**
   * @param {Blob | null} file
   * @param {number} [strength]
   */
  set(file, strength) {
    this.file = file;
    URL.revokeObjectURL(this.#preview.src);
    if (file) this.#preview.src = URL.createObjectURL(file);
    else this.#preview.removeAttribute("src");
    if (strength !== undefined && this.#strength) this.#strength.value = strength;
    const isThere = file !== null;
    this.#preview.hidden = !isThere;
    byId("paint-start-hint", HTMLElement).hidden = isThere;
    byId("paint-start-remove", HTMLElement).hidden = !isThere;
    if (this.#strength) this.#strength.isShown = isThere;
    if (isThere) this.#area.open = true;
  }
}
