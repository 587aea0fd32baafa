/** One picture of See: the picture, and its labels with bars or what is wrong with it. */

import { ApiError, post } from "./api.js";
import { announce, element, showError } from "./dom.js";

/**
 * @typedef {{model: string, topK: string}} Options  empty: the service's default
 * @typedef {{label: string, score: number}} Prediction
 *
 * @typedef {object} PictureCard
 * @property {HTMLLIElement} item
 * @property {() => void} wait  show that the labels are to come
 * @property {(options: Options) => Promise<void>} classify  ask for the labels; never rejects
 * @property {() => void} dispose  take it off the page, and end what runs for it
 */

/**
 * @param {File} file
 * @param {{onRemove: (card: PictureCard) => void, onRetry: (card: PictureCard) => void}} actions
 * @returns {PictureCard}
 */
export function pictureCard(file, { onRemove, onRetry }) {
  const url = URL.createObjectURL(file);
  const answer = element("div", { className: "see-answer" });
  const remove = element("button", { type: "button", className: "button quiet small" }, "Remove");
  remove.setAttribute("aria-label", `Remove ${file.name}`);
  const item = element(
    "li",
    { className: "card see-card" },
    picture(url, file.name),
    element("div", { className: "see-name" }, element("h3", { title: file.name }, file.name), remove),
    answer,
  );
  let running = new AbortController();
  /** @type {PictureCard} */
  const card = {
    item,
    wait() {
      item.setAttribute("aria-busy", "true");
      if (!answer.hasChildNodes()) answer.append(element("p", { className: "hint" }, "Looking …"));
    },
    async classify(options) {
      running.abort();
      const mine = (running = new AbortController());
      try {
        show(answer, await ask(file, options, mine.signal), file.name);
      } catch (error) {
        if (mine.signal.aborted) return;
        refuse(answer, /** @type {Error} */ (error), () => onRetry(card));
      }
      item.removeAttribute("aria-busy");
    },
    dispose() {
      running.abort();
      item.remove();
      URL.revokeObjectURL(url);
    },
  };
  remove.addEventListener("click", () => onRemove(card));
  return card;
}

/**
 * @param {string} url
 * @param {string} name
 */
function picture(url, name) {
  const image = element("img", { src: url, alt: name });
  const frame = element("div", { className: "see-frame" }, image);
  image.addEventListener("error", () => frame.replaceChildren(element("p", { className: "hint" }, "No preview")));
  return frame;
}

/**
 * @param {File} file
 * @param {Options} options
 * @param {AbortSignal} signal
 * @returns {Promise<Prediction[]>}
 */
async function ask(file, { model, topK }, signal) {
  const body = new FormData();
  body.append("file", file);
  if (model) body.append("model", model);
  if (topK) body.append("top_k", topK);
  return (await post("v1/classify", { body, signal })).data[0].predictions;
}

/**
 * @param {HTMLElement} answer
 * @param {Prediction[]} predictions
 * @param {string} name
 */
function show(answer, predictions, name) {
  answer.replaceChildren(element("ol", { className: "see-labels" }, ...predictions.map(labelRow)));
  announce(`${name}: ${predictions[0].label}, ${percent(predictions[0].score)}`);
}

/** @param {Prediction} prediction */
function labelRow({ label, score }) {
  const fill = element("span");
  fill.style.transform = `scaleX(${score})`;
  return element(
    "li",
    {},
    element("span", { className: "see-label" }, label),
    element("span", { className: "see-score" }, percent(score)),
    element("span", { className: "bar", "aria-hidden": "true" }, fill),
  );
}

/** @param {number} score */
function percent(score) {
  return score > 0 && score < 0.001 ? "< 0.1 %" : `${(score * 100).toFixed(1)} %`;
}

/**
 * @param {HTMLElement} answer
 * @param {Error} error
 * @param {() => void} retry
 */
function refuse(answer, error, retry) {
  showError(answer, new Error(aboutThisPicture(error)));
  if (!(error instanceof ApiError && error.isPassing)) return;
  const again = element("button", { type: "button", className: "button small" }, "Try again");
  again.addEventListener("click", retry);
  answer.append(again);
}

/**
 * The message in words of the page: what the request calls its first input is this picture.
 * @param {Error} error
 */
function aboutThisPicture({ message }) {
  return message.replace(/^input\[0\]/, "This picture");
}
