/** The similarities of lines as a heat map: a table, whose cells hold their values as text. */

import { element } from "./dom.js";
import { colourRange, decimal, heat, similarityMatrix } from "./similarity.js";

const MOST_LINES = 40; // a larger table is one that nobody reads

/**
 * @param {string[]} texts
 * @param {number[][]} vectors  of the texts
 */
export function matrixCard(texts, vectors) {
  const shown = texts.slice(0, MOST_LINES);
  const matrix = similarityMatrix(vectors.slice(0, MOST_LINES));
  const range = colourRange(matrix);
  const title = element("h3", { id: "read-matrix-title" }, "How alike the lines are");
  const table = element(
    "table",
    { className: "read-matrix", "aria-labelledby": "read-matrix-title" },
    element("thead", {}, headings(shown)),
    element("tbody", {}, ...shown.map((text, row) => tableRow(text, row, matrix[row], range))),
  );
  // It scrolls sideways where it is wider than the page, so the keyboard must reach it.
  const scroller = element("div", { className: "read-scroller", tabIndex: 0, role: "group", "aria-labelledby": title.id }, table);
  const rest = texts.length - shown.length;
  return element(
    "section",
    { className: "card", "aria-labelledby": title.id },
    element("div", { className: "read-title" }, title, legend(range)),
    scroller,
    rest > 0 && element("p", { className: "hint" }, `The first ${MOST_LINES} lines; ${rest} more are in the JSON.`),
  );
}

/** @param {string[]} texts */
function headings(texts) {
  const numbers = texts.map((text, index) => element("th", { scope: "col", title: text }, String(index + 1)));
  return element("tr", {}, element("td"), ...numbers);
}

/**
 * @param {string} text
 * @param {number} row
 * @param {number[]} similarities  to each line
 * @param {{low: number, high: number}} range
 */
function tableRow(text, row, similarities, range) {
  const number = element("span", { className: "read-number" }, String(row + 1));
  const heading = element("th", { scope: "row", title: text }, number, element("span", {}, text));
  const cells = similarities.map((value) => cell(value, heat(value, range)));
  return element("tr", {}, heading, ...cells);
}

/**
 * @param {number} value
 * @param {number} share  of the accent colour
 */
function cell(value, share) {
  const made = element("td", {}, decimal(value));
  made.style.setProperty("--heat", share.toFixed(3));
  return made;
}

/** @param {{low: number, high: number}} range */
function legend({ low, high }) {
  return element(
    "p",
    { className: "hint read-legend" },
    decimal(low),
    element("span", { className: "read-scale", "aria-hidden": "true" }),
    decimal(high),
  );
}
