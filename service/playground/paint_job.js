/** A job to paint, as the page knows it. Pure. */

/** @import { PaintInput } from "./paint_request.js" */

/**
 * @typedef {"queued" | "running" | "canceling" | "succeeded" | "failed" | "canceled" | "expired"} Status
 *
 * @typedef {object} Picture
 * @property {Blob} blob
 * @property {number} seed
 * @property {number} width
 * @property {number} height
 *
 * @typedef {object} PaintJob
 * @property {string} id
 * @property {PaintInput} input
 * @property {Blob | null} startImage
 * @property {number} createdAt   Unix seconds
 * @property {Status} status
 * @property {number | null} position    jobs before it, while it waits
 * @property {number} step
 * @property {number} totalSteps
 * @property {number | null} remainingS  as the last step estimated
 * @property {string[]} previews  of each picture the latest, as a data URI
 * @property {Picture[]} pictures once it has succeeded
 * @property {number | null} runS how long it ran
 * @property {string | null} note what disturbs it, or why it has failed
 */

const FINAL = ["succeeded", "failed", "canceled", "expired"];

/** @param {{status: string}} job ours, or as the service describes it */
export const isOver = ({ status }) => FINAL.includes(status);

/**
 * @param {any} created as the service describes it
 * @param {PaintInput} input
 * @param {Blob | null} startImage
 * @returns {PaintJob}
 */
export function newJob(created, input, startImage) {
  return {
    id: created.id,
    input,
    startImage,
    createdAt: created.created_at,
    status: "queued",
    position: created.queue_position,
    step: 0,
    totalSteps: created.progress.total_steps,
    remainingS: null,
    previews: [],
    pictures: [],
    runS: null,
    note: null,
  };
}

/**
 * What an event changes of a job that is not over.
 *
 * @param {PaintJob} job
 * @param {string} event
 * @param {any} data
 * @returns {Partial<PaintJob>}
 */
export function changeOf(job, event, data) {
  const status = statusAfter(job, "running");
  switch (event) {
    case "queued":
      return { status: statusAfter(job, "queued"), position: data.queue_position };
    case "started":
      return { status, position: null };
    case "step": {
      const { step, total_steps: totalSteps, remaining_s: remainingS = null } = data;
      return { status, step, totalSteps, remainingS, position: null };
    }
    case "preview":
      return { previews: Object.assign([...job.previews], { [data.index]: dataUri(data.b64_json) }) };
    default:
      return {};
  }
}

/**
 * What is to be canceled stays so, whatever is still told of before.
 *
 * @param {PaintJob} job that is not over
 * @param {Status} told
 */
export function statusAfter(job, told) {
  return job.status === "canceling" ? job.status : told;
}

/** @param {string} png in base64 */
const dataUri = (png) => `data:image/png;base64,${png}`;

