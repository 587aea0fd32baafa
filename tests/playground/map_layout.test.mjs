import assert from "node:assert/strict";
import { test } from "node:test";

import { fit, placeLabels } from "../../service/playground/map_layout.js";

const PLANE = { width: 400, height: 200 };

test("points fill the plane but for the margin, up is up, and distances stay true", () => {
  const places = fit([[0, 0], [1, 0], [0, 1]], PLANE, 20);
  assert.deepEqual(places, [{ x: 120, y: 180 }, { x: 280, y: 180 }, { x: 120, y: 20 }]);
});

test("a single point is in the middle", () => {
  assert.deepEqual(fit([[5, 5]], PLANE, 20), [{ x: 200, y: 100 }]);
});

test("a label stands at the right of its point where nothing is in the way", () => {
  assert.deepEqual(placeLabels([{ x: 100, y: 100 }], [60], PLANE), [{ x: 110, y: 100, anchor: "start" }]);
});

test("a label that would leave the plane goes to the other side", () => {
  assert.deepEqual(placeLabels([{ x: 380, y: 100 }], [60], PLANE), [{ x: 370, y: 100, anchor: "end" }]);
});

test("a label avoids points, and labels that are already there", () => {
  const places = [{ x: 100, y: 100 }, { x: 150, y: 100 }];
  const [first, second] = placeLabels(places, [60, 60], PLANE);
  assert.deepEqual(first, { x: 90, y: 100, anchor: "end" });
  assert.deepEqual(second, { x: 160, y: 100, anchor: "start" });
});

test("a label without a place is left out", () => {
  const crowd = [[95, 90], [125, 90], [95, 110], [125, 110], [110, 84], [110, 116], [80, 100], [140, 100]];
  const places = [{ x: 110, y: 100 }, ...crowd.map(([x, y]) => ({ x, y }))];
  assert.equal(placeLabels(places, [60, 0, 0, 0, 0, 0, 0, 0, 0], PLANE)[0], null);
});
