/**
 * See: pictures that are dropped, pasted, chosen or handed over by Paint, each with its labels.
 *
 * Each picture is a request of its own, so that what is wrong with one says so beside it and takes
 * no other with it; the service gathers them into batches by itself.
 */

import { announce, bringIntoView, byId, element } from "./dom.js";
import { getKey } from "./key.js";
import { modelsFor } from "./models.js";
import { drawExamples } from "./see_examples.js";
import { pictureCard } from "./see_picture.js";

const LANES = 3; // requests at a time: a browser has six connections, and Paint needs some of them

/**
 * @typedef {import("./see_picture.js").PictureCard} PictureCard
 * @typedef {import("./models.js").Model} Model
 */

/** @type {Set<PictureCard>} */
const cards = new Set();
/** @type {Model[]} */
let models = [];
const lanes = new Array(LANES).fill(Promise.resolve());
let nextLane = 0;

/** @param {HTMLElement} place */
export async function start(place) {
  listenForPictures(place);
  document.addEventListener("triptych:classify", (event) => {
    add([/** @type {CustomEvent<{file: File}>} */ (event).detail.file]);
  });
  byId("see-clear", HTMLButtonElement).addEventListener("click", clear);
  byId("see-options", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
  byId("see-options", HTMLFormElement).addEventListener("change", classifyAgain);
  byId("see-examples", HTMLElement).append(...(await drawExamples()).map(exampleButton));
  document.addEventListener("triptych:key", () => {
    if (getKey() !== null) offerModels(); // without one it was refused before
  });
  await offerModels();
}

/** @param {HTMLElement} place */
function listenForPictures(place) {
  const input = byId("see-files", HTMLInputElement);
  input.addEventListener("change", () => {
    add([...(input.files ?? [])]);
    input.value = ""; // so that the same file may be chosen again
  });
  document.addEventListener("paste", (event) => {
    if (!place.hidden) add([...(event.clipboardData?.files ?? [])]);
  });
  const drop = byId("see-drop", HTMLElement);
  document.addEventListener("dragover", (event) => {
    if (place.hidden) return;
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) drop.classList.remove("over"); // left the window
  });
  document.addEventListener("drop", (event) => {
    if (place.hidden) return;
    event.preventDefault(); // or the browser would open the file
    drop.classList.remove("over");
    add([...(event.dataTransfer?.files ?? [])]);
  });
}

async function offerModels() {
  models = await modelsFor("image-classification", byId("see-notice", HTMLElement));
  const select = byId("see-model", HTMLSelectElement);
  select.replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
  select.addEventListener("change", limitLabels);
  byId("see-model-field", HTMLElement).hidden = models.length < 2;
  limitLabels();
}

function limitLabels() {
  const chosen = byId("see-model", HTMLSelectElement).value;
  const most = models.find(({ id }) => id === chosen)?.limits.num_labels;
  byId("see-top-k", HTMLInputElement).max = most === undefined ? "" : String(most);
  byId("see-top-k-hint", HTMLElement).textContent = most === undefined ? "" : `1 to ${most}`;
}

/** @param {{name: string, file: File, url: string}} example */
function exampleButton({ name, file, url }) {
  const picture = element("img", { src: url, alt: "", width: 120, height: 120 });
  const button = element("button", { type: "button", className: "see-example" }, picture, name);
  button.addEventListener("click", () => add([file]));
  return button;
}

/** @param {File[]} files  the first of which comes first on the page */
function add(files) {
  const added = files.map((file) => pictureCard(file, { onRemove: remove, onRetry: enqueue }));
  byId("see-pictures", HTMLElement).prepend(...added.map(({ item }) => item));
  for (const card of added) {
    cards.add(card);
    enqueue(card);
  }
  showWhatIsThere();
  bringIntoView(byId("see-pictures", HTMLElement));
}

/** @param {PictureCard} card */
function enqueue(card) {
  card.wait();
  const lane = nextLane++ % LANES;
  lanes[lane] = lanes[lane].then(() => (cards.has(card) ? card.classify(options()) : undefined));
}

/** @returns {import("./see_picture.js").Options} */
function options() {
  return {
    model: byId("see-model", HTMLSelectElement).value,
    topK: byId("see-top-k", HTMLInputElement).value,
  };
}

function classifyAgain() {
  if (!byId("see-options", HTMLFormElement).reportValidity()) return;
  for (const card of cards) enqueue(card);
}

/** @param {PictureCard} card */
function remove(card) {
  const next = card.item.nextElementSibling ?? card.item.previousElementSibling;
  card.dispose();
  cards.delete(card);
  showWhatIsThere();
  const focus = next?.querySelector("button") ?? byId("see-files", HTMLInputElement);
  focus.focus(); // the button that had it is gone
}

function clear() {
  for (const card of cards) card.dispose();
  cards.clear();
  showWhatIsThere();
  announce("No pictures");
  byId("see-files", HTMLInputElement).focus();
}

function showWhatIsThere() {
  byId("see-empty", HTMLElement).hidden = cards.size > 0;
  byId("see-clear", HTMLElement).hidden = cards.size === 0;
}
