import assert from "node:assert/strict";
import { test } from "node:test";

import { curl, javascript, python } from "../../service/playground/snippets.js";

const INPUT = { model: "oil", prompt: "it's a ship", size: "128x128", n: 1, num_inference_steps: 4, seed: 7 };
const OPEN = { url: "http://host:8000/painting", hasKey: false };
const GATED = { ...OPEN, hasKey: true };

test("code with a key names the variable that has it, and code without has no word of it", () => {
  for (const write of [curl, python, javascript]) {
    assert.match(write(INPUT, GATED), /TRIPTYCH_API_KEY/);
    assert.doesNotMatch(write(INPUT, OPEN), /TRIPTYCH_API_KEY/);
  }
});

test("a quote in the prompt stays within the shell's", () => {
  assert.ok(curl(INPUT, OPEN).includes(`"prompt": "it'\\''s a ship"`));
});

test("what OpenAI does not know goes into the extra body", () => {
  const [named, extra] = python(INPUT, OPEN).split("extra_body={");
  assert.ok(named.includes('    size="128x128",'));
  assert.ok(extra.includes('        "num_inference_steps": 4,'));
});

test("a start image is read from a file", () => {
  const input = { ...INPUT, strength: 0.6, loras: [{ name: "ink", scale: 1 }] };
  assert.ok(curl(input, OPEN).includes("/v1/images/edits' \\\n"));
  assert.ok(curl(input, OPEN).includes(`--form-string 'loras=[{"name":"ink","scale":1}]'`));
  for (const write of [curl, python, javascript]) assert.match(write(input, OPEN), /start\.png/);
});
