import assert from "node:assert/strict";
import { test } from "node:test";

import { parseEvents } from "../../service/playground/sse.js";

async function* from(...chunks) {
  yield* chunks;
}

async function parsed(...chunks) {
  const found = [];
  for await (const event of parseEvents(from(...chunks))) found.push(event);
  return found;
}

const STREAM = ': hello\n\nid: 7-0\nevent: step\ndata: {"step":\ndata: 1}\n\ndata:x\nid: 8-0\n\n';
const EVENTS = [
  { id: "7-0", event: "step", data: '{"step":\n1}' },
  { id: "8-0", event: "message", data: "x" },
];

test("events have their id, kind and data, whatever the order of their lines", async () => {
  assert.deepEqual(await parsed(STREAM), EVENTS);
});

test("a stream that is cut anywhere has the same events", async () => {
  for (const ending of ["\n", "\r\n", "\r"]) {
    const text = STREAM.replaceAll("\n", ending) + (ending === "\r" ? ":" : "");
    for (let at = 0; at <= text.length; at++) {
      assert.deepEqual(await parsed(text.slice(0, at), text.slice(at)), EVENTS, `${at}`);
    }
    assert.deepEqual(await parsed(...text), EVENTS);
  }
});

test("an event without an id has the last one's, and one that is not complete is none", async () => {
  assert.deepEqual(await parsed("id: 1-0\ndata: a\n\ndata: b\n\ndata: c\n"), [
    { id: "1-0", event: "message", data: "a" },
    { id: "1-0", event: "message", data: "b" },
  ]);
});
