/** What the service can do, each model with its own limits and defaults: none is written here. */

import { getJson } from "./api.js";

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

/** @returns {Promise<{images: Model[], classify: Model[], embeddings: Model[]}>} */
export async function loadModels() {
  /** @type {Model[]} */
  const models = (await getJson("v1/models")).data;
  const of = (/** @type {Model["task"]} */ task) => models.filter((model) => model.task === task);
  return {
    images: of("text-to-image"),
    classify: of("image-classification"),
    embeddings: of("embedding"),
  };
}
