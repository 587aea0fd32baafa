/** When a job that waits will begin, from how long others took. Pure. */

import { sides } from "./paint_request.js";

/** @import { PaintJob } from "./paint_job.js" */
/** @import { PaintInput } from "./paint_request.js" */

const NUM_MEASURED = 5; // of the latest jobs

/**
 * Seconds until the job begins; null where nothing has been measured yet.
 *
 * @param {PaintJob} job
 * @param {PaintJob[]} unfinished of this browser, the first in line first
 * @param {PaintJob[]} painted the oldest first
 */
export function startsInS(job, unfinished, painted) {
  const measured = painted.slice(-NUM_MEASURED).filter(({ runS }) => runS !== null);
  const totalS = sum(measured.map(({ runS }) => runS ?? 0));
  const totalWork = sum(measured.map(({ input }) => workOf(input)));
  const ahead = unfinished.slice(0, unfinished.indexOf(job));
  const own = ahead.map((each) => each.remainingS ?? (workOf(each.input) * totalS) / totalWork);
  const numWaiting = ahead.filter(({ status }) => status === "queued").length;
  const numOthers = Math.max(0, (job.position ?? 0) - numWaiting);
  const others = numOthers === 0 ? 0 : (numOthers * totalS) / measured.length;
  const seconds = sum(own) + others;
  return Number.isFinite(seconds) ? seconds : null; // 0/0 where nothing was measured
}

/** @param {PaintInput} input what it costs, compared with others */
function workOf({ size, n, num_inference_steps, strength = 1, negative_prompt }) {
  const { width, height } = sides(size);
  return width * height * n * num_inference_steps * strength * (negative_prompt ? 2 : 1);
}

/** @param {number[]} numbers */
function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}
