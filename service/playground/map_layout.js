/**
 * Where the points of a map and their labels go on a plane of pixels, y downwards.
 * Knows nothing of the page: the caller says how wide a label is.
 */

const GAP = 10; // between a point's centre and its label, in pixels
const LINE = 16; // a label's height
const DOT = 8; // a point's radius, with some air

/**
 * @typedef {{width: number, height: number}} Size
 * @typedef {{x: number, y: number}} Place
 * @typedef {Place & {anchor: "start" | "middle" | "end"}} Label  x is where `anchor` is, y its middle
 * @typedef {{left: number, right: number, top: number, bottom: number}} Box
 */

/**
 * Scale points to fill the plane but for a margin, both axes alike, so that distances stay true.
 * @param {[number, number][]} points
 * @param {Size} size
 * @param {number} margin
 * @returns {Place[]}
 */
export function fit(points, { width, height }, margin) {
  const [left, right] = extent(points.map(([x]) => x));
  const [low, high] = extent(points.map(([, y]) => y));
  const scale = Math.min((width - 2 * margin) / (right - left || 1), (height - 2 * margin) / (high - low || 1));
  return points.map(([x, y]) => ({
    x: width / 2 + (x - (left + right) / 2) * scale,
    y: height / 2 - (y - (low + high) / 2) * scale,
  }));
}

/**
 * Give each point a label beside it that covers no point or label before; null where none fits.
 * @param {Place[]} places
 * @param {number[]} widths  of the labels
 * @param {Size} size
 * @returns {(Label | null)[]}
 */
export function placeLabels(places, widths, size) {
  /** @type {Box[]} */
  const taken = places.map(({ x, y }) => ({ left: x - DOT, right: x + DOT, top: y - DOT, bottom: y + DOT }));
  return places.map((place, index) => {
    const free = candidates(place).find((label) => {
      const box = boxOf(label, widths[index]);
      return isInside(box, size) && !taken.some((other) => overlaps(box, other));
    });
    if (free) taken.push(boxOf(free, widths[index]));
    return free ?? null;
  });
}

/**
 * @param {Place} place
 * @returns {Label[]}  the best first
 */
function candidates({ x, y }) {
  const heights = [y - LINE, y + LINE, y - 1.75 * LINE, y + 1.75 * LINE];
  return [
    { x: x + GAP, y, anchor: "start" },
    { x: x - GAP, y, anchor: "end" },
    ...heights.flatMap((y) => [
      /** @type {Label} */ ({ x, y, anchor: "middle" }),
      /** @type {Label} */ ({ x: x - GAP, y, anchor: "start" }),
      /** @type {Label} */ ({ x: x + GAP, y, anchor: "end" }),
    ]),
  ];
}

/**
 * @param {Label} label
 * @param {number} width
 * @returns {Box}
 */
function boxOf({ x, y, anchor }, width) {
  const left = x - { start: 0, middle: width / 2, end: width }[anchor];
  return { left, right: left + width, top: y - LINE / 2, bottom: y + LINE / 2 };
}

/**
 * @param {Box} box
 * @param {Size} size
 */
function isInside(box, { width, height }) {
  return box.left >= 0 && box.right <= width && box.top >= 0 && box.bottom <= height;
}

/**
 * @param {Box} a
 * @param {Box} b
 */
function overlaps(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

/** @param {number[]} values */
function extent(values) {
  return [Math.min(...values), Math.max(...values)];
}
