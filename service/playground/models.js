/** What the service can do, each model with its own limits and defaults: none is written here. */

import { ApiError, getJson } from "./api.js";
import { showError } from "./dom.js";

const ASK_AGAIN_MS = 2000; // for models that are not loaded yet

/**
 * A model of `GET /v1/models`; limits and defaults have what applies to its task.
 *
 * @typedef {object} Model
 * @property {string} id
 * @property {"text-to-image" | "image-classification" | "embedding"} task
 * @property {boolean} loaded
 * @property {string} state
 * @property {string} [progress] of loading
 * @property {string} [reason] why it could not be loaded
 * @property {Record<string, number>} limits
 * @property {{size?: string, num_inference_steps?: number, guidance_scale?: number,
 *             true_cfg_scale?: number, strength?: number}} defaults
 * @property {string} [description]
 * @property {string[]} [loras]
 * @property {string} [device]
 */

/**
 * Wait until there are models for the task, and say in the notice why there are none yet.
 *
 * @param {Model["task"]} task
 * @param {HTMLElement} notice
 * @returns {Promise<Model[]>} those that are loaded; none where the service refuses to say
 */
export async function modelsFor(task, notice) {
  for (;;) {
    try {
      const served = (await loadModels()).filter((model) => model.task === task);
      const known = served.filter(isKnown);
      say(notice, known.length > 0 ? null : new Error(whyNone(served)));
      if (known.length > 0) return known;
    } catch (error) {
      say(notice, /** @type {Error} */ (error));
      if (error instanceof ApiError && !error.isPassing) return [];
    }
    await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
  }
}

/**
 * Say it once, however often it is found to be so: screen readers would repeat it.
 *
 * @param {HTMLElement} notice
 * @param {Error | null} error
 */
function say(notice, error) {
  if (notice.textContent !== (error?.message ?? "")) showError(notice, error);
}

/** @param {Model[]} served for the task, of which none was ever loaded */
function whyNone(served) {
  if (served.length === 0) return "This service has no model for this, or its worker is still starting.";
  return served.map(({ id, state, reason, progress }) => {
    if (state === "failed") return `${id} could not be loaded: ${reason ?? "its worker's log says why"}`;
    return `${id} is loading${progress ? `: ${progress}` : " …"}`;
  }).join("\n");
}

/** @returns {Promise<Model[]>} */
async function loadModels() {
  return (await getJson("v1/models")).data;
}

/**
 * Whether it was loaded once: before, its name is all that is known.
 *
 * @param {Model} model
 */
function isKnown({ limits }) {
  return Object.keys(limits).length > 0;
}
