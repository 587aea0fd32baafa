// OpenAI's client for Node against a running service, whose address is in TRIPTYCH_URL.
// test_openai_node.py runs this file, and reports each test as one of its own.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: `${process.env.TRIPTYCH_URL}/v1`, apiKey: "none" });

const PAINT = { prompt: "a red circle", size: "64x64", quality: "low" };
const SIGNATURES = { png: "89504e47", jpeg: "ffd8ff", webp: "52494646" };

function assertIsImage(bytes, format = "png") {
  const head = bytes.subarray(0, 4).toString("hex");
  assert.ok(head.startsWith(SIGNATURES[format]), `${head} begins no ${format}`);
}

function decoded(image) {
  return Buffer.from(image.b64_json, "base64");
}

async function painted() {
  const answer = await client.images.generate({ ...PAINT, seed: 3 });
  return toFile(decoded(answer.data[0]), "image.png", { type: "image/png" });
}

test("it paints four images under OpenAI's name for a model", async () => {
  const answer = await client.images.generate({ ...PAINT, model: "gpt-image-1", n: 4 });
  assert.equal(answer.model, "flux_shapes");
  assert.equal(new Set(answer.data.map((image) => image.b64_json)).size, 4);
  answer.data.forEach((image) => assertIsImage(decoded(image)));
  assert.equal(answer.usage.output_tokens, 4 * 16);
});

test("it fetches an image by its url", async () => {
  const answer = await client.images.generate({ ...PAINT, response_format: "url" });
  const fetched = await fetch(answer.data[0].url);
  assert.equal(fetched.status, 200);
  assertIsImage(Buffer.from(await fetched.arrayBuffer()));
});

test("it paints in other file formats", async () => {
  for (const format of ["jpeg", "webp"]) {
    const answer = await client.images.generate({ ...PAINT, output_format: format });
    assert.equal(answer.output_format, format);
    assertIsImage(decoded(answer.data[0]), format);
  }
});

test("it streams partial images and the image", async () => {
  const stream = await client.images.generate({ ...PAINT, stream: true, partial_images: 2 });
  const events = [];
  for await (const event of stream) events.push(event);
  const types = events.map((event) => event.type);
  assert.deepEqual(types.slice(-1), ["image_generation.completed"]);
  assert.deepEqual([...new Set(types.slice(0, -1))], ["image_generation.partial_image"]);
  events.forEach((event) => assertIsImage(decoded(event)));
  assert.ok(events.at(-1).usage.total_tokens > 0);
});

test("it edits an image file", async () => {
  const answer = await client.images.edit({ ...PAINT, image: await painted() });
  assertIsImage(decoded(answer.data[0]));
});

test("it streams an edit", async () => {
  const stream = await client.images.edit({ ...PAINT, image: await painted(), stream: true });
  const types = [];
  for await (const event of stream) types.push(event.type);
  assert.deepEqual(types, ["image_edit.completed"]);
});

test("it varies an image file", async () => {
  const answer = await client.images.createVariation({ image: await painted(), n: 2, size: "64x64" });
  assert.equal(answer.data.length, 2);
});

test("it embeds with its default of base64 as with floats", async () => {
  const body = { model: "text-embedding-3-small", input: ["a red circle", "a blue star"] };
  const byDefault = await client.embeddings.create(body);
  const floats = await client.embeddings.create({ ...body, encoding_format: "float" });
  assert.equal(byDefault.model, "f_net_shapes");
  assert.deepEqual(
    byDefault.data.map((row) => Array.from(row.embedding, Math.fround)),
    floats.data.map((row) => row.embedding.map(Math.fround)),
  );
});

test("it embeds arrays of token ids", async () => {
  const answer = await client.embeddings.create({ model: "f_net_shapes", input: [[5, 6], [7]] });
  assert.deepEqual(answer.data.map((row) => [row.index, row.embedding.length]), [[0, 128], [1, 128]]);
});

test("it is refused dimensions that the model does not have", async () => {
  const body = { model: "f_net_shapes", input: "a red circle", dimensions: 64 };
  await assert.rejects(client.embeddings.create(body), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "dimensions");
    return true;
  });
});

test("it lists and retrieves models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids.sort(), ["f_net_shapes", "flux_shapes", "vit_shapes"]);
  assert.equal((await client.models.retrieve("dall-e-3")).id, "flux_shapes");
});

test("it shows the request's id and the job's", async () => {
  const headers = { "x-request-id": "r-1" };
  const { response, request_id } = await client.images.generate(PAINT, { headers }).withResponse();
  assert.equal(request_id, "r-1");
  assert.match(response.headers.get("x-job-id"), /^job_[0-9a-f]{32}$/);
});
