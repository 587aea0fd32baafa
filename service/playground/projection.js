/**
 * Principal component analysis to two dimensions, by power iteration without the covariance
 * matrix: n vectors of width d cost n·d a step. Knows nothing of the page.
 */

import { dot } from "./similarity.js";

const MAX_STEPS = 100; // two directions that are still mixed by then show as much as each other
const TOLERANCE = 1e-14; // of the squared change of a direction of length 1

/**
 * @typedef {object} Projection
 * @property {[number, number][]} points  one for each vector, around the origin
 * @property {[number, number]} shares    of the variance that each of the two axes shows, in [0, 1]
 */

/**
 * Lay vectors out on the plane in which they differ most. The same vectors give the same plane.
 * @param {number[][]} vectors  n, all of one width
 * @returns {Projection}
 */
export function project(vectors) {
  const rows = centred(vectors);
  const total = rows.reduce((sum, row) => sum + dot(row, row), 0);
  const first = principalDirection(rows);
  const second = principalDirection(rows.map((row) => without(row, first)));
  const points = rows.map((row) => /** @type {[number, number]} */ ([dot(row, first), dot(row, second)]));
  const share = (/** @type {0 | 1} */ axis) =>
    total === 0 ? 0 : points.reduce((sum, point) => sum + point[axis] ** 2, 0) / total;
  return { points, shares: [share(0), share(1)] };
}

/**
 * @param {number[][]} rows
 * @returns {number[]}  of length 1, or all zeros where the rows are
 */
function principalDirection(rows) {
  // Start from the longest row: an arbitrary direction may be at right angles to all of them.
  let direction = unit(longest(rows));
  for (let step = 0; step < MAX_STEPS; step++) {
    const next = unit(timesCovariance(rows, direction));
    const change = next.reduce((sum, part, i) => sum + (part - direction[i]) ** 2, 0);
    direction = next;
    if (change < TOLERANCE) break;
  }
  return facingUp(direction);
}

/** @param {number[][]} rows */
function longest(rows) {
  return rows.reduce((best, row) => (dot(row, row) > dot(best, best) ? row : best), rows[0] ?? []);
}

/**
 * @param {number[][]} rows
 * @param {number[]} direction
 */
function timesCovariance(rows, direction) {
  const result = new Array(direction.length).fill(0);
  for (const row of rows) {
    const weight = dot(row, direction);
    for (let i = 0; i < row.length; i++) result[i] += weight * row[i];
  }
  return result;
}

/**
 * A direction and its opposite are equally principal: take the one whose largest part is positive.
 * @param {number[]} direction
 */
function facingUp(direction) {
  const largest = direction.reduce((best, part) => (Math.abs(part) > Math.abs(best) + 1e-9 ? part : best), 0);
  return largest < 0 ? direction.map((part) => -part) : direction;
}

/** @param {number[][]} vectors */
function centred(vectors) {
  const width = vectors[0]?.length ?? 0;
  const mean = new Array(width).fill(0);
  for (const vector of vectors) vector.forEach((part, i) => (mean[i] += part / vectors.length));
  return vectors.map((vector) => vector.map((part, i) => part - mean[i]));
}

/**
 * @param {number[]} row
 * @param {number[]} direction
 */
function without(row, direction) {
  const along = dot(row, direction);
  return row.map((part, i) => part - along * direction[i]);
}

/** @param {number[]} vector */
function unit(vector) {
  const length = Math.sqrt(dot(vector, vector));
  return vector.map((part) => (length < 1e-12 ? 0 : part / length));
}
