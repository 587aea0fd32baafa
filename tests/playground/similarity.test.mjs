import assert from "node:assert/strict";
import { test } from "node:test";

import { colourRange, cosine, decimal, heat, linesOf, nearest, similarityMatrix } from "../../service/playground/similarity.js";

test("lines are trimmed, empty ones left out, and each keeps its number in the text", () => {
  assert.deepEqual(linesOf("one\r\n\n  two \n \nthree"), [
    { text: "one", number: 1 },
    { text: "two", number: 3 },
    { text: "three", number: 5 },
  ]);
  assert.deepEqual(linesOf(" \n\n"), []);
});

test("the cosine is that of the angle, whatever the lengths", () => {
  assert.equal(cosine([3, 0], [5, 5]).toFixed(12), Math.SQRT1_2.toFixed(12));
  assert.equal(cosine([1, 2], [-2, 1]), 0);
  assert.equal(cosine([0.1, 0.2, 0.3], [-0.2, -0.4, -0.6]).toFixed(12), "-1.000000000000");
});

test("a vector of zeros is like nothing", () => {
  assert.equal(cosine([0, 0], [1, 1]), 0);
});

test("rounding never leaves the range from -1 to 1", () => {
  const vector = [0.1, 0.7, 0.3];
  assert.ok(cosine(vector, vector.map((part) => part * 3)) <= 1);
});

test("the matrix has the similarity of each two lines on both sides of its diagonal", () => {
  const matrix = similarityMatrix([[1, 0], [0, 2], [1, 1]]);
  assert.deepEqual(matrix.map((row) => row.map((value) => value.toFixed(3))), [
    ["1.000", "0.000", "0.707"],
    ["0.000", "1.000", "0.707"],
    ["0.707", "0.707", "1.000"],
  ]);
});

test("the nearest come first, and equal ones in their order", () => {
  const found = nearest([1, 0], [[0, 1], [2, 0], [1, 1], [0, 3]]);
  assert.deepEqual(found.map(({ index }) => index), [1, 2, 0, 3]);
  assert.equal(found[0].similarity, 1);
});

test("the colours span what different lines have", () => {
  const range = colourRange([[1, 0.2, -0.4], [0.2, 1, 0.6], [-0.4, 0.6, 1]]);
  assert.deepEqual(range, { low: -0.4, high: 0.6 });
  assert.equal(heat(-0.4, range), 0);
  assert.equal(heat(0.1, range), 0.5);
  assert.equal(heat(0.6, range), 1);
  assert.equal(heat(1, range), 1);
});

test("one line has no other to span a range with", () => {
  assert.deepEqual(colourRange([[1]]), { low: 0, high: 1 });
  assert.deepEqual(colourRange([]), { low: 0, high: 1 });
});

test("where all lines are equally far, a line is still nearer to itself", () => {
  const range = { low: 0.3, high: 0.3 };
  assert.equal(heat(0.3, range), 1);
  assert.equal(heat(0.1, range), 0);
});

test("a similarity is written with two digits, and zero without a sign", () => {
  assert.deepEqual([0.996, -0.2, -0.001, 0].map(decimal), ["1.00", "-0.20", "0.00", "0.00"]);
});
