/**
 * This browser's jobs: asked for, followed to their end, canceled, and kept with their pictures.
 *
 * Browsers open six connections to a host, so only the first jobs in the line are followed by their
 * events; a look at the list each second tells of all others. Nothing is followed while the page
 * is hidden. Knows nothing of how it looks.
 */

import { ApiError, events, getBlob, getJson, post, postJson, remove } from "./api.js";
import { changeOf, isOver, newJob, statusAfter } from "./paint_job.js";
import { previewSteps } from "./paint_request.js";

/** @import { GalleryStore } from "./gallery_store.js" */
/** @import { Model } from "./models.js" */
/** @import { PaintJob, Picture, Status } from "./paint_job.js" */
/** @import { PaintInput } from "./paint_request.js" */

const NUM_FOLLOWED = 2; // of six connections, with a second window in mind
const LOOK_EVERY_MS = 1000;
const MOST_KEPT = 200; // jobs in the gallery
const FORGOTTEN = "The service has forgotten this job.";

export class Jobs {
  /** @type {PaintJob[]} the oldest first */
  all = [];
  #changed;
  /** @type {GalleryStore<PaintJob> | null} */
  #store = null;
  /** @type {Map<string, AbortController>} by the id of the job that is followed */
  #followed = new Map();
  #isLooking = false;
  #isStopped = false; // until the next request, as asking again would only be refused again

  /** @param {(job: PaintJob) => void} changed called whenever something of a job has changed */
  constructor(changed) {
    this.#changed = changed;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#unfollow();
      else this.#watch();
    });
  }

  /**
   * Show the jobs of this store and no others; those that are not over are followed on.
   *
   * @param {GalleryStore<PaintJob>} store
   */
  async open(store) {
    this.#unfollow();
    this.#store = store;
    this.all = [];
    const kept = await store.all().catch(() => []); // a browser that keeps nothing
    this.all.unshift(...kept.filter(({ id }) => this.all.every((job) => job.id !== id)));
    this.#isStopped = false;
    this.#watch();
  }

  /** Those that wait or run, the first in line first. */
  get unfinished() {
    return this.all.filter((job) => !isOver(job));
  }

  /**
   * Ask for pictures. Raises ApiError where the service does not take the request.
   *
   * @param {PaintInput} input
   * @param {Blob | null} startImage
   * @param {Model} model
   */
  async submit(input, startImage, model) {
    const image = startImage && { image: await dataUri(startImage) };
    const body = { ...input, ...image, preview_steps: previewSteps(input, model) };
    const created = await postJson("v1/jobs", { type: "image.generation", input: body });
    const job = newJob(created, input, startImage);
    this.all.push(job);
    this.#isStopped = false;
    this.#changed(job);
    this.#watch();
    await this.#keep(job);
    return job;
  }

  /** @param {PaintJob} job */
  async cancel(job) {
    this.#update(job, { status: "canceling" });
    this.#isStopped = false;
    while (!isOver(job) && !this.#isStopped) {
      try {
        return await this.#learn(job, await post(`v1/jobs/${job.id}/cancel`));
      } catch (error) {
        this.#disturbed(job, /** @type {Error} */ (error));
      }
      await pause(LOOK_EVERY_MS);
    }
    if (isOver(job)) return;
    job.status = "running"; // nobody asks for its end any more
    this.#changed(job);
  }

  /**
   * Forget the job here, and where it is over also in the service.
   *
   * @param {PaintJob} job
   */
  async forget(job) {
    await this.#drop(job);
    await remove(`v1/jobs/${job.id}`).catch(unlessGone);
  }

  #unfollow() {
    for (const controller of this.#followed.values()) controller.abort();
  }

  #watch() {
    if (document.hidden || this.#isStopped) return;
    const first = this.unfinished.slice(0, NUM_FOLLOWED);
    for (const job of first) if (!this.#followed.has(job.id)) this.#follow(job);
    this.#lookOn();
  }

  /** @param {PaintJob} job */
  async #follow(job) {
    const controller = new AbortController();
    this.#followed.set(job.id, controller);
    const onBreak = (/** @type {ApiError} */ error) => this.#disturbed(job, error);
    try {
      const followed = events(`v1/jobs/${job.id}/events`, { signal: controller.signal, onBreak });
      for await (const { event, data } of followed) {
        if (event === "finished") await this.#finish(job, data.status);
        else this.#update(job, changeOf(job, event, data));
      }
    } catch (error) {
      if (!controller.signal.aborted) this.#disturbed(job, /** @type {Error} */ (error));
    } finally {
      if (!isOver(job) && !controller.signal.aborted) await pause(LOOK_EVERY_MS);
      this.#followed.delete(job.id);
      this.#watch();
    }
  }

  /** Look each second, for as long as there is a job whose events do not tell all. */
  async #lookOn() {
    if (this.#isLooking) return;
    this.#isLooking = true;
    while (!document.hidden && !this.#isStopped && this.unfinished.some((job) => this.#isUntold(job))) {
      await this.#look().catch((error) => {
        for (const job of this.unfinished) this.#disturbed(job, error);
      });
      await pause(LOOK_EVERY_MS);
    }
    this.#isLooking = false;
  }

  /** @param {PaintJob} job whose place in the line changes, or that nobody follows */
  #isUntold(job) {
    return job.status === "queued" || !this.#followed.has(job.id);
  }

  async #look() {
    const query = "type=image.generation&status=queued,running,canceling&limit=100";
    const { data } = await getJson(`v1/jobs?${query}`);
    const told = new Map(data.map((/** @type {any} */ each) => [each.id, each]));
    for (const job of this.unfinished.filter((each) => this.#isUntold(each))) {
      await this.#learn(job, told.get(job.id) ?? (await this.#ask(job)));
    }
  }

  /**
   * @param {PaintJob} job that is not among the unfinished ones
   * @returns {Promise<any>} null where the service has forgotten it
   */
  async #ask(job) {
    try {
      return await getJson(`v1/jobs/${job.id}`);
    } catch (error) {
      unlessGone(error);
      return null;
    }
  }

  /**
   * @param {PaintJob} job
   * @param {any} told as the service describes it; null: it does not know it
   */
  async #learn(job, told) {
    if (told === null) await this.#end(job, "expired", FORGOTTEN);
    else if (isOver(told)) await this.#finish(job, told.status);
    else {
      const { step, total_steps } = told.progress;
      const { queue_position } = told;
      const status = statusAfter(job, told.status);
      const isNews = step > job.step || status !== job.status || queue_position !== job.position;
      const progress = { step, totalSteps: total_steps };
      if (isNews) this.#update(job, { status, position: queue_position, ...progress });
    }
  }

  /**
   * @param {PaintJob} job
   * @param {Status} status
   */
  async #finish(job, status) {
    if (isOver(job)) return;
    if (status === "canceled") return this.#end(job, status, "Canceled.");
    try {
      const result = await getJson(`v1/jobs/${job.id}/result`);
      const pictures = await Promise.all(result.data.map(fetchPicture));
      this.#update(job, { status, pictures, runS: result.timings.run_s, previews: [] });
      await this.#keep(job);
      await this.#forgetOldest();
    } catch (error) {
      if (error instanceof ApiError && status !== "succeeded") this.#end(job, status, error.message);
      else this.#disturbed(job, /** @type {Error} */ (error)); // and looked at again
    }
  }

  /**
   * @param {PaintJob} job
   * @param {Status} status
   * @param {string} note
   */
  async #end(job, status, note) {
    if (isOver(job)) return;
    await this.#store?.remove(job.id).catch(() => {}); // there is no store, and nothing in it
    this.#update(job, { status, note });
  }

  async #forgetOldest() {
    const painted = this.all.filter((job) => job.status === "succeeded");
    for (const job of painted.slice(0, -MOST_KEPT)) await this.#drop(job);
  }

  /** @param {PaintJob} job which lives as long as the page where the browser keeps nothing */
  async #keep(job) {
    await this.#store?.save(job).catch((error) => console.warn("The gallery is not kept:", error));
  }

  /** @param {PaintJob} job */
  async #drop(job) {
    this.all = this.all.filter((each) => each !== job);
    this.#changed(job);
    await this.#store?.remove(job.id).catch(() => {}); // there is no store, and nothing in it
  }

  /**
   * @param {PaintJob} job
   * @param {Error} error
   */
  #disturbed(job, error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 404) this.#end(job, "expired", FORGOTTEN);
    else if (error.isPassing) this.#update(job, { note: `${error.message} Trying again …` });
    else {
      this.#isStopped = true;
      this.#update(job, { note: error.message });
    }
  }

  /**
   * Answers overtake each other: what is over stays so.
   *
   * @param {PaintJob} job
   * @param {Partial<PaintJob>} values
   */
  #update(job, values) {
    if (isOver(job)) return;
    Object.assign(job, { note: null, ...values });
    this.#changed(job);
  }
}

/**
 * @param {any} item of a result
 * @returns {Promise<Picture>}
 */
async function fetchPicture({ url, seed, width, height }) {
  // the URL has the server's own name for itself, and knows nothing of a prefix before it
  const blob = await getBlob(url.slice(url.indexOf("v1/images/")));
  return { blob, seed, width, height };
}

/**
 * @param {Blob} blob
 * @returns {Promise<string>}
 */
function dataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** @param {unknown} error */
function unlessGone(error) {
  if (!(error instanceof ApiError && error.status === 404)) throw error;
}

/** @param {number} ms */
function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
