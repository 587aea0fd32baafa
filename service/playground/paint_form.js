/** The form: each field with the limits and the default of the chosen model, none of its own. */

import { byId, element } from "./dom.js";
import { NumberField } from "./number_field.js";
import { sides, sizeFault, suggestedSizes } from "./paint_request.js";
import { StartImage } from "./start_image.js";

/** @import { Model } from "./models.js" */
/** @import { PaintInput } from "./paint_request.js" */

const GUIDANCE_STEP = 0.1;
const LORA_STEP = 0.1;
const LEAST_TRUE_CFG = 1 + GUIDANCE_STEP; // at 1 it is off

export class PaintForm {
  /** @type {Model[]} */
  #models = [];
  /** @type {Map<string, NumberField>} by the request's field */
  #numbers = new Map();
  /** @type {Map<string, NumberField>} by the LoRA's name */
  #loras = new Map();
  #form = byId("paint-form", HTMLFormElement);
  #prompt = byId("paint-prompt", HTMLTextAreaElement);
  #negative = byId("paint-negative-prompt", HTMLTextAreaElement);
  #select = byId("paint-model", HTMLSelectElement);
  #width = byId("paint-width", HTMLInputElement);
  #height = byId("paint-height", HTMLInputElement);
  #seed = byId("paint-seed", HTMLInputElement);
  start = new StartImage();

  constructor() {
    this.#select.addEventListener("change", () => this.#choose(this.model));
    this.#form.addEventListener("input", () => this.#check());
    this.#form.addEventListener("invalid", openDetails, true);
    byId("paint-seed-random", HTMLElement).addEventListener("click", () => this.lockSeed(null));
    byId("paint-seed-locked", HTMLElement).addEventListener("click", () => {
      this.lockSeed(this.lastSeed);
      this.#seed.select();
    });
    this.#seed.max = String(Number.MAX_SAFE_INTEGER); // JSON's numbers are no larger in a browser
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#form.requestSubmit();
    });
  }

  /** What the seed becomes when it is locked: that of the picture which is looked at. */
  lastSeed = 0;

  /** @param {Model[]} models with their limits */
  offer(models) {
    const chosen = this.#select.value;
    this.#models = models;
    this.#select.replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
    this.#select.disabled = models.length < 2;
    if (models.some(({ id }) => id === chosen)) this.#select.value = chosen;
    this.#choose(this.model);
  }

  get model() {
    const chosen = this.#models.find(({ id }) => id === this.#select.value);
    if (!chosen) throw new Error("there is no model to paint with: this is a bug");
    return chosen;
  }

  get hasModel() {
    return this.#models.length > 0;
  }

  /** @returns {PaintInput} */
  get input() {
    const negative = this.#negative.value.trim() && { negative_prompt: this.#negative.value };
    const loras = this.#chosenLoras();
    return {
      model: this.model.id,
      prompt: this.#prompt.value,
      size: `${this.#width.value}x${this.#height.value}`,
      n: this.#number("n") ?? 1,
      num_inference_steps: this.#number("num_inference_steps") ?? 1,
      ...present("guidance_scale", this.#number("guidance_scale")),
      ...(negative && { ...negative, ...present("true_cfg_scale", this.#number("true_cfg_scale")) }),
      ...(this.#seed.hidden ? {} : { seed: this.#seed.valueAsNumber }),
      ...this.start.input,
      ...(loras.length > 0 && { loras }),
    };
  }

  /**
   * Fill in a request; what it does not say becomes the model's default.
   *
   * @param {Partial<PaintInput>} input
   * @param {Blob | null} startImage
   */
  fill(input, startImage) {
    if (this.#models.some(({ id }) => id === input.model)) this.#select.value = input.model ?? "";
    this.#choose(this.model);
    this.#prompt.value = input.prompt ?? "";
    this.#negative.value = input.negative_prompt ?? "";
    byId("paint-negative", HTMLDetailsElement).open = this.#negative.value !== "";
    if (input.size) this.#setSize(sides(input.size));
    for (const [name, field] of this.#numbers) {
      const value = input[/** @type {keyof PaintInput} */ (name)];
      if (typeof value === "number") field.value = value;
    }
    for (const { name, scale } of input.loras ?? []) {
      const field = this.#loras.get(name);
      if (field) field.value = scale;
    }
    byId("paint-loras", HTMLDetailsElement).open = (input.loras ?? []).length > 0;
    this.start.set(startImage, input.strength);
    this.lockSeed(input.seed ?? null);
    this.#check();
  }

  /** @param {string} prompt to paint with all else as it stands */
  submit(prompt) {
    this.#prompt.value = prompt;
    this.#form.requestSubmit();
  }

  /** @param {number | null} seed null: random */
  lockSeed(seed) {
    this.#seed.hidden = this.#seed.disabled = seed === null;
    if (seed !== null) this.#seed.value = String(seed);
    byId("paint-seed-random", HTMLElement).ariaPressed = String(seed === null);
    byId("paint-seed-locked", HTMLElement).ariaPressed = String(seed !== null);
  }

  focus() {
    this.#prompt.focus();
    this.#prompt.setSelectionRange(this.#prompt.value.length, this.#prompt.value.length);
  }

  /**
   * Mark the field that the service found fault with; null: none.
   *
   * @param {string | null} param such as input.size
   */
  blame(param) {
    const name = (param ?? "").replace(/^input\./, "").replace(/\[.*/, "");
    for (const field of this.#form.querySelectorAll("[name]")) {
      const isIt = field.getAttribute("name") === (name === "size" ? "width" : name);
      if (isIt) field.setAttribute("aria-invalid", "true");
      else field.removeAttribute("aria-invalid");
    }
  }

  /** @param {Model} model */
  #choose(model) {
    byId("paint-model-hint", HTMLElement).textContent = model.description ?? "";
    const characters = model.limits.max_prompt_characters;
    this.#prompt.maxLength = this.#negative.maxLength = characters;
    this.#offerSizes(model);
    this.#offerNumbers(model);
    this.#offerLoras(model);
    this.start.offer(model);
    this.#check();
  }

  /** @param {Model} model */
  #offerSizes(model) {
    const { min_side, max_side, side_multiple } = model.limits;
    for (const side of [this.#width, this.#height]) {
      Object.assign(side, { min: min_side, max: max_side, step: side_multiple });
    }
    byId("paint-sizes", HTMLElement).replaceChildren(
      ...suggestedSizes(model).map((size) => {
        const value = `${size.width}x${size.height}`;
        const props = { type: "button", className: "button small", title: value, "data-size": value };
        const chip = element("button", props, size.name);
        chip.addEventListener("click", () => this.#setSize(size));
        return chip;
      }),
    );
    this.#setSize(sides(model.defaults.size ?? ""));
  }

  /** @param {{width: number, height: number}} size */
  #setSize({ width, height }) {
    this.#width.value = String(width);
    this.#height.value = String(height);
    this.#check();
  }

  /** @param {Model} model */
  #offerNumbers({ limits, defaults }) {
    this.#numbers = new Map();
    this.#offerNumber("num_inference_steps", "Steps", {
      min: 1, max: limits.max_num_inference_steps, step: 1,
      value: defaults.num_inference_steps ?? 1,
    });
    if (limits.max_guidance_scale !== undefined) {
      this.#offerNumber("guidance_scale", "Guidance", {
        min: 0, max: limits.max_guidance_scale, step: GUIDANCE_STEP,
        value: defaults.guidance_scale ?? 0,
      });
    }
    this.#offerNumber("n", "Pictures", { min: 1, max: limits.max_n, step: 1, value: 1 });
    const nodes = [...this.#numbers.values()].map(({ node }) => node);
    byId("paint-numbers", HTMLElement).replaceChildren(...nodes);
    const trueCfg = this.#offerNumber("true_cfg_scale", "Scale", {
      min: LEAST_TRUE_CFG, max: limits.max_true_cfg_scale, step: GUIDANCE_STEP,
      value: defaults.true_cfg_scale ?? LEAST_TRUE_CFG,
    });
    byId("paint-true-cfg", HTMLElement).replaceChildren(trueCfg.node);
  }

  /**
   * @param {string} name
   * @param {string} label
   * @param {import("./number_field.js").Range} range
   */
  #offerNumber(name, label, range) {
    const field = new NumberField(name, label, range);
    this.#numbers.set(name, field);
    return field;
  }

  /** @param {Model} model */
  #offerLoras({ loras = [], limits: { max_lora_scale: most } }) {
    const range = { min: -most, max: most, step: LORA_STEP, value: 0 };
    this.#loras = new Map(loras.map((name) => [name, new NumberField("loras", name, range)]));
    const nodes = [...this.#loras.values()].map(({ node }) => node);
    byId("paint-lora-list", HTMLElement).replaceChildren(...nodes);
    byId("paint-loras", HTMLElement).hidden = loras.length === 0;
  }

  #chosenLoras() {
    return [...this.#loras].map(([name, { value }]) => ({ name, scale: value })).filter(
      ({ scale }) => scale !== 0,
    );
  }

  /** @param {string} name */
  #number(name) {
    return this.#numbers.get(name)?.value;
  }

  /** What no single field can say of itself. */
  #check() {
    if (!this.hasModel) return;
    const [width, height] = [this.#width.valueAsNumber, this.#height.valueAsNumber];
    this.#width.setCustomValidity(sizeFault(width, height, this.model.limits));
    for (const chip of byId("paint-sizes", HTMLElement).querySelectorAll("button")) {
      chip.ariaPressed = String(chip.dataset.size === `${width}x${height}`);
    }
    const trueCfg = this.#numbers.get("true_cfg_scale");
    if (trueCfg) trueCfg.isShown = this.#negative.value.trim() !== "";
  }
}

/**
 * @param {string} name
 * @param {number | undefined} value
 */
function present(name, value) {
  return value === undefined ? {} : { [name]: value };
}

/** @param {Event} event of a field, which the browser cannot show where it is folded away */
function openDetails({ target }) {
  const details = /** @type {HTMLElement} */ (target).closest("details");
  if (details) details.open = true;
}
