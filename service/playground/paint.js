/** Paint: from the form to jobs, and from jobs to pictures, the line and the gallery. */

import { ApiError } from "./api.js";
import { announce, bringIntoView, byId, showError } from "./dom.js";
import { GalleryStore } from "./gallery_store.js";
import { Jobs } from "./jobs.js";
import { getKey } from "./key.js";
import { modelsFor } from "./models.js";
import { startsInS } from "./paint_estimate.js";
import { PaintForm } from "./paint_form.js";
import { Gallery } from "./paint_gallery.js";
import { isOver } from "./paint_job.js";
import { QueueList } from "./paint_queue.js";
import { Stage } from "./paint_stage.js";
import { fileName } from "./paint_words.js";
import { onPicture } from "./picture_drop.js";

/** @import { PaintJob } from "./paint_job.js" */
/** @import { PaintInput } from "./paint_request.js" */

/** @param {HTMLElement} place */
export async function start(place) {
  const paint = new Paint();
  onPicture(place, (file, input) => paint.take(file, input));
  document.addEventListener("triptych:key", async () => {
    await paint.openGallery();
    if (getKey() !== null) await paint.offerModels(); // without one it was refused before
  });
  await paint.openGallery();
  await paint.offerModels();
}

class Paint {
  #form = new PaintForm();
  #tellOfModels = () => {};
  /** @type {Promise<void>} until there is a model */
  #modelsOffered = new Promise((resolve) => {
    this.#tellOfModels = resolve;
  });
  #notice = byId("paint-notice", HTMLElement);
  #submit = byId("paint-submit", HTMLButtonElement);
  #stage = new Stage({
    sameSeed: (job, index) => this.#edit(job, index),
    vary: ({ input: { seed: _, ...input }, startImage }) => this.#paint(input, startImage),
    startFrom: (job, index) => this.#startFrom(fileOf(job, index)),
    classify: (job, index) => {
      const detail = { file: fileOf(job, index) };
      document.dispatchEvent(new CustomEvent("triptych:classify", { detail }));
    },
    forget: (job) => this.#forget(job),
    tryOut: (prompt) => this.#form.submit(prompt),
  });
  #queue = new QueueList({
    show: (job) => this.#look(job),
    cancel: (job) => this.#jobs.cancel(job),
    edit: (job) => this.#edit(job, null),
    dismiss: (job) => this.#forget(job),
  });
  #gallery = new Gallery((job) => this.#look(job));
  #jobs = new Jobs((job) => this.#onChange(job));
  /** @type {PaintJob | null} what the person chose to look at, until the next request */
  #chosen = null;

  constructor() {
    byId("paint-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#form.hasModel) this.#paint(this.#form.input, this.#form.start.file);
    });
    document.addEventListener("triptych:start-image", (event) => {
      this.#startFrom(/** @type {CustomEvent<{file: File}>} */ (event).detail.file);
    });
    this.#show();
  }

  /** Take requests, once there is a model for them. */
  async offerModels() {
    const models = await modelsFor("text-to-image", this.#notice);
    if (models.length > 0 && !this.#form.hasModel) this.#form.offer(models);
    this.#submit.disabled = !this.#form.hasModel;
    if (this.#form.hasModel) this.#tellOfModels();
  }

  /** Show the jobs of this key, and follow on those that are not over. */
  async openGallery() {
    this.#chosen = null;
    await this.#jobs.open(new GalleryStore(getKey()));
    this.#show();
  }

  /**
   * Fill the form with what made a picture; a picture that does not say is one to start from.
   *
   * @param {File} file
   * @param {Partial<PaintInput> | null} input
   */
  take(file, input) {
    if (!this.#form.hasModel) return;
    if (input === null) {
      this.#startFrom(file);
      this.#say("The picture does not say what made it: it is the start image now.");
      return;
    }
    this.#form.fill(input, null);
    this.#form.focus();
    const wanted = input.model ?? this.#form.model.id;
    const other = wanted === this.#form.model.id ? "" : ` The preset ${wanted} is not served here.`;
    const start = input.strength === undefined ? "" : " It was painted over another picture, which is not in it.";
    const seed = input.seed === undefined ? " Its seed is not known here." : "";
    this.#say(`The form has what made the picture.${other}${start}${seed}`);
  }

  /**
   * @param {PaintInput} input
   * @param {Blob | null} startImage
   */
  async #paint(input, startImage) {
    if (!this.#form.hasModel) return;
    showError(this.#notice, null);
    this.#form.blame(null);
    try {
      const job = await this.#jobs.submit(input, startImage, this.#form.model);
      const isFirst = this.#jobs.unfinished.length === 1;
      this.#chosen = isFirst ? job : null;
      announce("In the queue");
      bringIntoView(this.#stage.node);
    } catch (error) {
      showError(this.#notice, /** @type {Error} */ (error));
      if (error instanceof ApiError) this.#form.blame(error.param);
    }
    this.#show();
  }

  /** @param {PaintJob} job */
  #onChange(job) {
    if (job.status === "succeeded" && job !== this.#chosen) this.#chosen = null;
    if (isOver(job)) announce(job.note ?? `Painted: ${job.input.prompt}`);
    this.#show();
  }

  #show() {
    const jobs = this.#jobs.all;
    const painted = jobs.filter((job) => job.pictures.length > 0);
    const latest = painted.at(-1) ?? this.#jobs.unfinished[0] ?? null;
    const shown = this.#chosen ?? latest;
    this.#stage.show(shown);
    this.#queue.show(jobs.filter((job) => job.pictures.length === 0), (job) =>
      startsInS(job, this.#jobs.unfinished, painted),
    );
    this.#gallery.show(painted, shown);
    this.#form.lastSeed = shown?.pictures[0]?.seed ?? 0;
  }

  /** @param {PaintJob} job */
  #look(job) {
    this.#chosen = job;
    this.#show();
    bringIntoView(this.#stage.node);
  }

  /**
   * @param {PaintJob} job
   * @param {number | null} index of the picture whose seed is wanted again
   */
  async #edit({ input, pictures, startImage }, index) {
    await this.#modelsOffered; // the gallery is there before: what is clicked then is not lost
    const again = index === null ? input : { ...input, n: 1, seed: pictures[index].seed };
    this.#form.fill(again, startImage);
    this.#form.focus();
  }

  /** @param {File} file */
  #startFrom(file) {
    this.#form.start.set(file);
    this.#form.focus();
  }

  /** @param {PaintJob} job */
  async #forget(job) {
    if (this.#chosen === job) this.#chosen = null;
    await this.#jobs.forget(job).catch((error) => {
      showError(this.#notice, new Error(`It is gone here; the service still has it. ${error.message}`));
    });
  }

  /** @param {string} text */
  #say(text) {
    this.#notice.textContent = text;
  }
}

/**
 * @param {PaintJob} job
 * @param {number} index of the picture
 */
function fileOf(job, index) {
  const { blob } = job.pictures[index];
  return new File([blob], fileName(job, index), { type: blob.type });
}
