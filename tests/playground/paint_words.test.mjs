import assert from "node:assert/strict";
import { test } from "node:test";

import { startsInS } from "../../service/playground/paint_estimate.js";
import { changeOf } from "../../service/playground/paint_job.js";
import { fileName, settingsText, stateText } from "../../service/playground/paint_words.js";

const INPUT = { model: "oil", prompt: "a ship", size: "128x128", n: 1, num_inference_steps: 20 };

const job = (values) => ({
  input: INPUT, status: "queued", position: 0, step: 0, totalSteps: 20, remainingS: null,
  previews: [], pictures: [], runS: null, note: null, ...values,
});

test("a job says its place in the line, then its step and how long it takes", () => {
  assert.equal(stateText(job({}), null), "Next in line");
  assert.equal(stateText(job({ position: 1 }), 12.2), "2nd in line · begins in about 12 s");
  assert.equal(stateText(job({ position: 10 }), 200), "11th in line · begins in about 3 min");
  assert.equal(stateText(job({ status: "running" }), null), "Starting …");
  const running = job({ status: "running", step: 5, remainingS: 0.4 });
  assert.equal(stateText(running, null), "Step 5 of 20 · about 1 s left");
  assert.equal(stateText(job({ status: "canceling" }), null), "Stopping …");
  assert.equal(stateText(job({ status: "failed", note: "no memory" }), null), "no memory");
});

test("events change a job, and one that is being canceled does not run again", () => {
  const step = { step: 2, total_steps: 20, remaining_s: 1.5 };
  const change = { status: "running", step: 2, totalSteps: 20, remainingS: 1.5, position: null };
  assert.deepEqual(changeOf(job({}), "step", step), change);
  assert.equal(changeOf(job({ status: "canceling" }), "step", step).status, "canceling");
  assert.deepEqual(changeOf(job({}), "queued", { queue_position: 3 }), { status: "queued", position: 3 });
  const seen = job({ previews: ["data:first"] });
  const { previews } = changeOf(seen, "preview", { index: 1, b64_json: "AA" });
  assert.deepEqual(previews, ["data:first", "data:image/png;base64,AA"]);
});

test("a job begins when those before it are done, larger ones later", () => {
  const painted = [job({ runS: 2 })];
  const running = job({ status: "running", remainingS: 5 });
  const large = job({ input: { ...INPUT, n: 4 } });
  const last = job({ position: 1 });
  assert.equal(startsInS(last, [running, large, last], painted), 5 + 4 * 2);
});

test("jobs of others count as one of the latest of ours", () => {
  const painted = [job({ runS: 2 }), job({ runS: 4 })];
  const waiting = job({ position: 3 });
  assert.equal(startsInS(waiting, [waiting], painted), 3 * 3);
  assert.equal(startsInS(waiting, [waiting], []), null);
});

test("a picture's settings are told in the order of the form, and its file is named by them", () => {
  const input = { ...INPUT, guidance_scale: 2, strength: 0.6, loras: [{ name: "ink", scale: 0.5 }] };
  const blob = new Blob([], { type: "image/png" });
  const done = job({ input, runS: 1.26, pictures: [{ width: 128, height: 96, seed: 7, blob }] });
  const words = "128 × 96 · 20 steps · guidance 2 · seed 7 · strength 0.6 · ink × 0.5 · oil · 1.3 s";
  assert.equal(settingsText(done, 0), words);
  assert.equal(fileName(done, 0), "a-ship-7.png");
  assert.equal(fileName(job({ ...done, input: { ...input, prompt: "../…" } }), 0), "picture-7.png");
});
