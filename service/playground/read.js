/** Read: lines of text in; what is near what comes out, as lists, a heat map and a map. */

import { ApiError, postJson } from "./api.js";
import { announce, bringIntoView, byId, copyText, element, showError } from "./dom.js";
import { getKey } from "./key.js";
import { modelsFor } from "./models.js";
import { mapCard } from "./read_map.js";
import { matrixCard } from "./read_matrix.js";
import { decimal, linesOf, nearest, similarityMatrix } from "./similarity.js";

const FEW = 10; // up to here a map shows nothing that the matrix does not
const NEAREST = 5;

const LINES = `a red circle
a small crimson disc
two red dots
a large red ring on white
a blue star
a small navy star at the top
a green triangle
a big green triangle at the bottom
an orange square
a yellow square on black
a purple cross
a tiny violet cross in the corner`;
const QUERY = "something round and red";

/**
 * @typedef {import("./similarity.js").Line} Line
 *
 * @typedef {object} Comparison
 * @property {string} model
 * @property {Line[]} lines
 * @property {number[][]} vectors     of the lines
 * @property {{text: string, vector: number[]} | null} query
 */

/** @type {Comparison | null} */
let shown = null;
let running = new AbortController();

/** @param {HTMLElement} place */
export async function start(place) {
  byId("read-lines", HTMLTextAreaElement).value = LINES;
  byId("read-query", HTMLInputElement).value = QUERY;
  const form = byId("read-form", HTMLFormElement);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    compare();
  });
  place.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  byId("read-copy", HTMLButtonElement).addEventListener("click", copy);
  byId("read-compare", HTMLButtonElement).disabled = false; // until here nobody listened
  document.addEventListener("triptych:key", () => {
    if (getKey() !== null) offerModels(); // without one it was refused before
  });
  await offerModels();
}

async function offerModels() {
  const models = await modelsFor("embedding", byId("read-notice", HTMLElement));
  const options = models.map(({ id }) => element("option", { value: id }, id));
  byId("read-model", HTMLSelectElement).replaceChildren(...options);
  byId("read-model-field", HTMLElement).hidden = models.length < 2;
}

async function compare() {
  const lines = linesOf(byId("read-lines", HTMLTextAreaElement).value);
  const query = byId("read-query", HTMLInputElement).value.trim();
  const notice = byId("read-notice", HTMLElement);
  running.abort();
  const mine = (running = new AbortController());
  setBusy(true);
  try {
    shown = await embed(lines, query, mine.signal);
    showError(notice, null);
    show(shown);
  } catch (error) {
    if (mine.signal.aborted) return;
    showError(notice, new Error(inTheirWords(/** @type {Error} */ (error), lines)));
  }
  setBusy(false);
}

/** @param {boolean} isBusy */
function setBusy(isBusy) {
  byId("read-results", HTMLElement).setAttribute("aria-busy", String(isBusy));
}

/**
 * Ask for the vectors of all lines and of the query at once.
 * @param {Line[]} lines
 * @param {string} query  empty: none
 * @param {AbortSignal} signal
 * @returns {Promise<Comparison>}
 */
async function embed(lines, query, signal) {
  if (lines.length === 0) throw new Error("There are no lines to compare.");
  const input = lines.map(({ text }) => text).concat(query === "" ? [] : [query]);
  const model = byId("read-model", HTMLSelectElement).value || null;
  const answer = await postJson("v1/embeddings", { input, model }, { signal });
  /** @type {number[][]} */
  const all = answer.data.map((/** @type {{embedding: number[]}} */ each) => each.embedding);
  const vectors = all.slice(0, lines.length);
  return {
    model: answer.model,
    lines,
    vectors,
    query: query === "" ? null : { text: query, vector: all[lines.length] },
  };
}

/**
 * Name the line as it stands in the text, where the service names an item of the request.
 * @param {Error} error
 * @param {Line[]} lines
 */
function inTheirWords(error, lines) {
  const param = error instanceof ApiError ? error.param : null;
  const index = Number(/^input\[(\d+)\]$/.exec(param ?? "")?.[1] ?? NaN);
  if (param === null || Number.isNaN(index)) return error.message;
  const name = index < lines.length ? `Line ${lines[index].number}` : "The text to find";
  return error.message.replace(param, name);
}

/** @param {Comparison} comparison */
function show(comparison) {
  const { lines, vectors, query } = comparison;
  const results = byId("read-results", HTMLElement);
  const texts = lines.map(({ text }) => text);
  results.replaceChildren();
  if (query) results.append(nearestCard(comparison, query));
  if (lines.length > 1) results.append(matrixCard(texts, vectors));
  if (lines.length > FEW) {
    const card = mapCard(texts, vectors, query);
    results.append(card.element);
    card.draw();
  }
  byId("read-copy", HTMLElement).hidden = false;
  bringIntoView(results);
  announce(`${lines.length} lines compared`);
}

/**
 * @param {Comparison} comparison
 * @param {{text: string, vector: number[]}} query
 */
function nearestCard({ lines, vectors }, query) {
  const rows = nearest(query.vector, vectors)
    .slice(0, NEAREST)
    .map(({ index, similarity }) => nearestRow(lines[index].text, similarity));
  return element(
    "section",
    { className: "card", "aria-labelledby": "read-nearest-title" },
    element("h3", { id: "read-nearest-title" }, `Nearest to “${query.text}”`),
    element("ol", { className: "read-nearest" }, ...rows),
  );
}

/**
 * @param {string} text
 * @param {number} similarity
 */
function nearestRow(text, similarity) {
  const fill = element("span");
  fill.style.transform = `scaleX(${Math.max(0, similarity)})`;
  return element(
    "li",
    {},
    element("span", { className: "read-text" }, text),
    element("span", { className: "read-value" }, decimal(similarity)),
    element("span", { className: "bar", "aria-hidden": "true" }, fill),
  );
}

async function copy() {
  if (shown === null) return;
  await copyText(JSON.stringify(asJson(shown)));
}

/** @param {Comparison} comparison */
function asJson({ model, lines, vectors, query }) {
  const texts = lines.map(({ text }) => text);
  const found = query && nearest(query.vector, vectors).map(({ index, similarity }) => ({
    text: texts[index],
    similarity: rounded(similarity),
  }));
  const similarities = similarityMatrix(vectors).map((row) => row.map(rounded));
  return { model, lines: texts, similarities, ...(query && { query: query.text, nearest: found }) };
}

/** @param {number} similarity of vectors in single precision */
function rounded(similarity) {
  return Math.round(similarity * 1e6) / 1e6;
}
