import assert from "node:assert/strict";
import { test } from "node:test";

import { project } from "../../service/playground/projection.js";

/** A generator of numbers in [-1, 1) that are the same in every run: Park and Miller's. */
function random(seed) {
  let state = seed;
  return () => ((state = (state * 48271) % 2147483647) / 2147483647) * 2 - 1;
}

const randomVectors = (count, width, seed) => {
  const next = random(seed);
  return Array.from({ length: count }, () => Array.from({ length: width }, next));
};
const distance = (a, b) => Math.hypot(...a.map((part, i) => part - b[i]));
const near = (got, wanted, tolerance = 1e-6) => assert.ok(Math.abs(got - wanted) < tolerance, `${got}, not ${wanted}`);

test("points of a plane keep their distances in a space of any width", () => {
  const flat = randomVectors(12, 2, 1);
  const [a, b] = [[0.6, 0, 0, 0.8, 0], [0, 0, 1, 0, 0]]; // at right angles, of length 1
  const vectors = flat.map(([x, y]) => a.map((_, i) => 7 + x * a[i] + y * b[i]));
  const { points, shares } = project(vectors);
  for (let i = 1; i < flat.length; i++) near(distance(points[i], points[0]), distance(flat[i], flat[0]));
  near(shares[0] + shares[1], 1);
});

test("the first axis shows most, and its share is the largest eigenvalue's", () => {
  // along the axes: variances 9, 4 and 1
  const vectors = [[3, 0, 0], [-3, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 1], [0, 0, -1]];
  const { points, shares } = project(vectors);
  near(shares[0], 9 / 14);
  near(shares[1], 4 / 14);
  near(points[0][0], 3);
  near(points[2][1], 2);
  near(points[4][0], 0);
});

test("no other plane shows more of what the vectors differ in", () => {
  const vectors = randomVectors(40, 8, 5).map((row) => row.map((part, i) => part * (8 - i)));
  const { shares } = project(vectors);
  const mean = vectors[0].map((_, i) => vectors.reduce((sum, row) => sum + row[i], 0) / vectors.length);
  const rows = vectors.map((row) => row.map((part, i) => part - mean[i]));
  const total = rows.flat().reduce((sum, part) => sum + part ** 2, 0);
  for (const direction of randomVectors(200, 8, 9)) {
    const length = Math.hypot(...direction);
    const variance = rows.reduce((sum, row) => sum + row.reduce((dot, part, i) => dot + (part * direction[i]) / length, 0) ** 2, 0);
    assert.ok(variance / total <= shares[0] + 1e-9);
  }
  assert.ok(shares[0] >= shares[1] && shares[1] > 0);
});

test("the two axes are not correlated", () => {
  const { points } = project(randomVectors(30, 6, 3));
  near(points.reduce((sum, [x, y]) => sum + x * y, 0), 0, 1e-4);
});

test("moving all vectors moves nothing on the map", () => {
  const vectors = randomVectors(15, 4, 11);
  const moved = vectors.map((row) => row.map((part) => part + 100));
  const [here, there] = [project(vectors).points, project(moved).points];
  here.forEach((point, i) => near(distance(point, there[i]), 0, 1e-4));
});

test("vectors on a line lie on the first axis alone", () => {
  const { points, shares } = project([[0, 0, 0], [1, 2, 2], [2, 4, 4]]);
  assert.deepEqual(points.map(([, y]) => y), [0, 0, 0]);
  near(Math.abs(points[2][0] - points[0][0]), 6);
  near(shares[0], 1);
});

test("vectors that are all the same are one point", () => {
  assert.deepEqual(project([[1, 2], [1, 2]]), { points: [[0, 0], [0, 0]], shares: [0, 0] });
  assert.deepEqual(project([]), { points: [], shares: [0, 0] });
});
