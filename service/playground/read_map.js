/** A map of lines: each a point on the plane in which the lines differ most. */

import { element } from "./dom.js";
import { fit, placeLabels } from "./map_layout.js";
import { project } from "./projection.js";

const MARGIN = 34;
const LABEL_SHARE = 16; // pixels of the map's width for each character that a label may have
const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string[]} texts
 * @param {number[][]} vectors
 * @param {{text: string, vector: number[]} | null} query
 * @returns {{element: HTMLElement, draw: () => void}}  `draw` once it stands on the page
 */
export function mapCard(texts, vectors, query) {
  // The query comes first, and so gets its label before the lines that are near to it.
  const { points, shares } = project(query ? [query.vector, ...vectors] : vectors);
  const all = query ? [query.text, ...texts] : texts;
  const share = Math.round(100 * (shares[0] + shares[1]));
  const frame = element("div", { className: "read-map" });
  const card = element(
    "section",
    { className: "card", "aria-labelledby": "read-map-title" },
    element(
      "div",
      { className: "read-title" },
      element("h3", { id: "read-map-title" }, "A map of the lines"),
      element("p", { className: "hint" }, `It shows ${share} % of their differences.`),
    ),
    frame,
  );
  const draw = () => frame.replaceChildren(drawing(frame.clientWidth, points, all, query !== null));
  new ResizeObserver(draw).observe(frame);
  return { element: card, draw };
}

/**
 * @param {number} width
 * @param {[number, number][]} points
 * @param {string[]} texts
 * @param {boolean} hasQuery  as the first point
 */
function drawing(width, points, texts, hasQuery) {
  const size = { width, height: Math.round(Math.min(520, Math.max(300, width * 0.6))) };
  const places = fit(points, size, MARGIN);
  const labels = texts.map((text) => shortened(text, Math.round(width / LABEL_SHARE)));
  const spots = placeLabels(places, widthsOf(labels), size);
  const svg = svgElement("svg", { ...size, viewBox: `0 0 ${size.width} ${size.height}`, role: "img" });
  svg.setAttribute("aria-label", "A map of the lines. The table above says how alike they are.");
  places.forEach(({ x, y }, index) => {
    const kind = hasQuery && index === 0 ? "read-query-point" : "read-point";
    const group = svgElement("g", { class: kind }, svgElement("title", {}, texts[index]));
    group.append(svgElement("circle", { cx: x, cy: y, r: 5 }));
    const spot = spots[index];
    if (spot) group.append(svgElement("text", { x: spot.x, y: spot.y, "text-anchor": spot.anchor }, labels[index]));
    svg.prepend(group); // the query on top
  });
  return svg;
}

/**
 * @param {string} text
 * @param {number} longest  in characters
 */
function shortened(text, longest) {
  const characters = [...text];
  return characters.length > longest ? `${characters.slice(0, longest - 1).join("")}…` : text;
}

/** @param {string[]} labels */
function widthsOf(labels) {
  const context = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
  context.font = `13px ${getComputedStyle(document.body).fontFamily}`; // as read.css has it
  return labels.map((label) => context.measureText(label).width);
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 */
function svgElement(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}
