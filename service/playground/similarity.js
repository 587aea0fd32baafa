/** What the embeddings of lines say about each other: similarities, nearest lines, colours. */

/** @typedef {{text: string, number: number}} Line  `number` is its place in the text, from 1 */

/**
 * Return the lines that hold something.
 * @param {string} text
 * @returns {Line[]}
 */
export function linesOf(text) {
  return text
    .split(/\r\n|\r|\n/)
    .map((line, index) => ({ text: line.trim(), number: index + 1 }))
    .filter((line) => line.text !== "");
}

/**
 * @param {number[]} a
 * @param {number[]} b  as long as `a`
 * @returns {number}  in [-1, 1]; 0 where one of them is all zeros, which has no direction
 */
export function cosine(a, b) {
  const length = Math.sqrt(dot(a, a) * dot(b, b));
  return length === 0 ? 0 : clamped(dot(a, b) / length);
}

/**
 * @param {number[][]} vectors  2,048 of them are four million similarities
 * @returns {number[][]}  symmetric
 */
export function similarityMatrix(vectors) {
  const directions = vectors.map(unit);
  return directions.map((row) => directions.map((column) => clamped(dot(row, column))));
}

/** @param {number[]} vector */
function unit(vector) {
  const length = Math.sqrt(dot(vector, vector)) || 1;
  return vector.map((part) => part / length);
}

/** @param {number} similarity that rounding took out of [-1, 1] */
function clamped(similarity) {
  return Math.min(1, Math.max(-1, similarity));
}

/**
 * Rank the vectors by how near they are to the query; equal ones keep their order.
 * @param {number[]} query
 * @param {number[][]} vectors
 * @returns {{index: number, similarity: number}[]}
 */
export function nearest(query, vectors) {
  return vectors
    .map((vector, index) => ({ index, similarity: cosine(query, vector) }))
    .sort((a, b) => b.similarity - a.similarity);
}

/**
 * Return the lowest and the highest similarity of two different lines: what the colours span.
 * Models differ in what they call near, so a fixed scale would paint some of them in one colour.
 * @param {number[][]} matrix
 * @returns {{low: number, high: number}}
 */
export function colourRange(matrix) {
  let [low, high] = [Infinity, -Infinity];
  matrix.forEach((row, index) => {
    for (const value of row.slice(0, index)) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  });
  return low <= high ? { low, high } : { low: 0, high: 1 };
}

/**
 * @param {number} value
 * @param {{low: number, high: number}} range
 * @returns {number}  in [0, 1]: how much of the accent colour a cell gets
 */
export function heat(value, { low, high }) {
  if (high - low < 1e-6) return value < high - 1e-6 ? 0 : 1; // rounding is no difference
  return Math.min(1, Math.max(0, (value - low) / (high - low)));
}

/**
 * Write a similarity for people: zero has no sign.
 * @param {number} value
 */
export function decimal(value) {
  return value.toFixed(2).replace("-0.00", "0.00");
}

/**
 * @param {number[]} a
 * @param {number[]} b  as long as `a`
 */
export function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
