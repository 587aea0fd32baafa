import assert from "node:assert/strict";
import { test } from "node:test";

import {
  inputOf, previewSteps, sizeFault, suggestedSizes,
} from "../../service/playground/paint_request.js";

const MODEL = {
  limits: {
    min_side: 64, max_side: 256, side_multiple: 16, max_pixels: 65536, max_aspect: 3,
    max_preview_steps: 3,
  },
  defaults: { size: "128x128" },
};
const PARAMETERS = {
  model: "oil", prompt: "a ship", seed: 7, width: 96, height: 160, num_inference_steps: 4,
  guidance_scale: null, job: "job_0", loras: [{ name: "ink", scale: 0.5 }],
};

test("previews are spaced evenly over the steps that are run, without the last", () => {
  assert.deepEqual(previewSteps({ num_inference_steps: 20 }, MODEL), [5, 10, 15]);
  assert.deepEqual(previewSteps({ num_inference_steps: 20, strength: 0.5 }, MODEL), [2, 5, 7]);
  assert.deepEqual(previewSteps({ num_inference_steps: 2 }, MODEL), [1]);
  assert.deepEqual(previewSteps({ num_inference_steps: 1 }, MODEL), []);
});

test("suggested sizes keep to the limits and about the default's number of pixels", () => {
  const sizes = suggestedSizes(MODEL);
  assert.deepEqual(sizes.map(({ name }) => name), ["1:1", "4:3", "3:4", "16:9", "9:16"]);
  assert.deepEqual(sizes[0], { name: "1:1", width: 128, height: 128 });
  for (const { width, height } of sizes) {
    assert.equal(width % 16 + height % 16, 0);
    assert.ok(Math.abs(width * height / 128 ** 2 - 1) < 0.2, `${width}x${height}`);
  }
});

test("a size that the model does not take is not suggested, and its fault is said", () => {
  const limits = { ...MODEL.limits, min_side: 128, max_pixels: 17000 };
  const names = suggestedSizes({ ...MODEL, limits }).map(({ name }) => name);
  assert.deepEqual(names, ["1:1"]);
  assert.match(sizeFault(192, 128, limits), /24576 pixels; at most 17000/);
  assert.match(sizeFault(64, 256, MODEL.limits), /3 times/);
  assert.equal(sizeFault(128, 128, limits), "");
});

test("the parameters of a picture are its request", () => {
  assert.deepEqual(inputOf(JSON.stringify(PARAMETERS)), {
    model: "oil", prompt: "a ship", seed: 7, size: "96x160", n: 1, num_inference_steps: 4,
    loras: [{ name: "ink", scale: 0.5 }],
  });
});

test("a seed that JSON has rounded is left out", () => {
  const text = JSON.stringify(PARAMETERS).replace('"seed":7', '"seed":9223372036854775807');
  assert.equal("seed" in inputOf(text), false);
});

test("what is not of the right kind is left out", () => {
  const text = `{"prompt": "a ship", "model": {}, "seed": "7", "width": "96", "height": 160,
    "num_inference_steps": 1e999, "strength": "<b>", "negative_prompt": 5, "loras": [null]}`;
  assert.deepEqual(inputOf(text), { prompt: "a ship", n: 1 });
  assert.deepEqual(inputOf('{"prompt": "a ship", "loras": 5}'), { prompt: "a ship", n: 1 });
});

test("the parameters of another program are none of ours", () => {
  for (const text of ["a ship\nSteps: 20, Sampler: Euler", "null", "[]", '{"seed": 1}']) {
    assert.equal(inputOf(text), null);
  }
});
