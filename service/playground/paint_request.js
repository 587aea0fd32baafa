/** What a request to paint says, from a model's limits and a picture's own words. Pure. */

/** @import { Model } from "./models.js" */

/**
 * The body of `POST /v1/images/generations`, without the start image.
 *
 * @typedef {object} PaintInput
 * @property {string} model
 * @property {string} prompt
 * @property {string} size
 * @property {number} n
 * @property {number} num_inference_steps
 * @property {number} [guidance_scale]
 * @property {number} [seed] random where it is absent
 * @property {string} [negative_prompt]
 * @property {number} [true_cfg_scale]
 * @property {number} [strength] where there is a start image
 * @property {{name: string, scale: number}[]} [loras]
 */

/**
 * Whether a value is what a PaintInput has by this name.
 *
 * @type {Record<string, (value: any) => boolean>}
 */
const FIELDS = {
  model: isText,
  prompt: isText,
  num_inference_steps: Number.isFinite,
  guidance_scale: Number.isFinite,
  seed: Number.isSafeInteger, // JSON.parse has rounded a larger one
  negative_prompt: isText,
  true_cfg_scale: Number.isFinite,
  strength: Number.isFinite,
  loras: (value) => Array.isArray(value) && value.every(isLora),
};

/**
 * After which steps the job is to show its pictures: evenly spaced, without the last.
 *
 * @param {PaintInput} input
 * @param {Model} model
 */
export function previewSteps({ num_inference_steps, strength = 1 }, model) {
  const numRun = Math.max(1, Math.floor(num_inference_steps * strength)); // so many at least
  const most = model.limits.max_preview_steps;
  const spaced = Array.from({ length: most }, (_, i) => Math.floor((numRun * (i + 1)) / (most + 1)));
  return [...new Set(spaced)].filter((step) => step > 0);
}

/** @param {string} size such as 128x128 */
export function sides(size) {
  const [width, height] = size.split("x").map(Number);
  return { width, height };
}

/**
 * What is wrong with a size, or "" where nothing is.
 *
 * @param {number} width
 * @param {number} height
 * @param {Model["limits"]} limits
 */
export function sizeFault(width, height, { max_aspect, max_pixels }) {
  if (Math.max(width, height) > max_aspect * Math.min(width, height)) {
    return `One side may be ${max_aspect} times as long as the other at most.`;
  }
  if (width * height > max_pixels) {
    return `${width} × ${height} is ${width * height} pixels; at most ${max_pixels} are allowed.`;
  }
  return "";
}

const RATIOS = [[1, 1], [4, 3], [3, 4], [16, 9], [9, 16]];

/**
 * Sizes to choose from, of about as many pixels as the default one, in what the model takes.
 *
 * @param {Model} model
 */
export function suggestedSizes({ limits, defaults }) {
  const { width, height } = sides(/** @type {string} */ (defaults.size));
  const { min_side, max_side, side_multiple } = limits;
  const fitting = (/** @type {number} */ side) =>
    Math.min(max_side, Math.max(min_side, side_multiple * Math.round(side / side_multiple)));
  return RATIOS.map(([across, down]) => {
    const unit = Math.sqrt((width * height) / (across * down));
    return { name: `${across}:${down}`, width: fitting(across * unit), height: fitting(down * unit) };
  }).filter((size) => sizeFault(size.width, size.height, limits) === "");
}

/**
 * The request that made a picture, from the `parameters` in its file. What is not there, or not
 * what it should be, is left out.
 *
 * @param {string} text
 * @returns {Partial<PaintInput> | null} null where it is not of this service
 */
export function inputOf(text) {
  const parameters = parsed(text);
  if (!isText(parameters?.prompt)) return null;
  const known = Object.keys(FIELDS).filter((name) => FIELDS[name](parameters[name]));
  const { width, height } = parameters;
  const hasSize = Number.isSafeInteger(width) && Number.isSafeInteger(height);
  return {
    ...Object.fromEntries(known.map((name) => [name, parameters[name]])),
    ...(hasSize && { size: `${width}x${height}` }),
    n: 1,
  };
}

/** @param {unknown} value */
function isText(value) {
  return typeof value === "string";
}

/** @param {any} value */
function isLora(value) {
  return isText(value?.name) && Number.isFinite(value.scale);
}

/**
 * @param {string} text
 * @returns {any}
 */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // another program's
  }
}
