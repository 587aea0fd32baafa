/** How a job is put into words. Pure. */

import { isOver } from "./paint_job.js";

/** @import { PaintJob } from "./paint_job.js" */

/**
 * What a job does now, in a few words.
 *
 * @param {PaintJob} job
 * @param {number | null} beginsInS of one that waits, where that is known
 */
export function stateText(job, beginsInS) {
  if (isOver(job)) return job.note ?? "";
  if (job.status === "canceling") return "Stopping …";
  if (job.status === "queued") return waitingText(job, beginsInS);
  const left = job.remainingS === null ? "" : ` · ${about(job.remainingS)} left`;
  return job.step === 0 ? "Starting …" : `Step ${job.step} of ${job.totalSteps}${left}`;
}

/**
 * @param {PaintJob} job
 * @param {number | null} beginsInS
 */
function waitingText({ position }, beginsInS) {
  if (position === null) return "Waiting …";
  const place = position === 0 ? "Next in line" : `${ordinal(position + 1)} in line`;
  return beginsInS === null ? place : `${place} · begins in ${about(beginsInS)}`;
}

/** @param {number} seconds */
export function about(seconds) {
  if (seconds < 90) return `about ${Math.max(1, Math.round(seconds))} s`;
  return `about ${Math.round(seconds / 60)} min`;
}

/** @param {number} number */
function ordinal(number) {
  const ends = { one: "st", two: "nd", few: "rd", other: "th", zero: "th", many: "th" };
  return `${number}${ends[new Intl.PluralRules("en", { type: "ordinal" }).select(number)]}`;
}

/**
 * What made a picture, in the order of the form.
 *
 * @param {PaintJob} job
 * @param {number} index of the picture
 */
export function settingsText({ input, pictures, runS }, index) {
  const { width, height, seed } = pictures[index];
  return [
    `${width} × ${height}`,
    `${input.num_inference_steps} steps`,
    input.guidance_scale !== undefined && `guidance ${input.guidance_scale}`,
    `seed ${seed}`,
    input.strength !== undefined && `strength ${input.strength}`,
    input.negative_prompt && `without “${input.negative_prompt}” × ${input.true_cfg_scale}`,
    ...(input.loras ?? []).map(({ name, scale }) => `${name} × ${scale}`),
    input.model,
    runS !== null && `${runS.toFixed(1)} s`,
  ].filter(Boolean).join(" · ");
}

/**
 * A name for the file, from the prompt's letters and the seed.
 *
 * @param {PaintJob} job
 * @param {number} index of the picture
 */
export function fileName({ input, pictures }, index) {
  const { seed, blob } = pictures[index];
  const words = input.prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  const ending = blob.type.replace("image/", "") || "png";
  return `${words.slice(0, 60) || "picture"}-${seed}.${ending}`;
}
