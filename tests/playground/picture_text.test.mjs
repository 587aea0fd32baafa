import assert from "node:assert/strict";
import { test } from "node:test";

import { parametersText } from "../../service/playground/picture_text.js";

const bytes = (text) => [...text].map((character) => character.charCodeAt(0));
const chunk = (kind, content) => [0, 0, 0, content.length, ...bytes(kind), ...bytes(content), 0, 0, 0, 0];
const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const PNG = [...SIGNATURE, ...chunk("tEXt", "Title\0no"), ...chunk("tEXt", "parameters\0{}"), ...chunk("IEND", "")];

// in either order of bytes: one entry, ImageDescription of 6 bytes at 26
const BIG = [...bytes("MM"), 0, 42, 0, 0, 0, 8, 0, 1, 1, 14, 0, 2, 0, 0, 0, 6, 0, 0, 0, 26, 0, 0, 0, 0];
const LITTLE = [...bytes("II"), 42, 0, 8, 0, 0, 0, 1, 0, 14, 1, 2, 0, 6, 0, 0, 0, 26, 0, 0, 0, 0, 0, 0, 0];
const exif = (directory) => [...directory, ...bytes("a ship")];
const jpeg = (content) => [0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 1, 0xff, 0xe1, 0, content.length + 8, ...bytes("Exif\0\0"), ...content, 0xff, 0xda, 0, 2];
const webp = (content) => [...bytes("RIFF"), 9, 9, 9, 9, ...bytes("WEBP"), ...bytes("VP8 "), 1, 0, 0, 0, 7, 0, ...bytes("EXIF"), content.length, 0, 0, 0, ...content];

const text = (content) => parametersText(new Uint8Array(content).buffer);

test("a PNG says it in the chunk of this name, among others", () => {
  assert.equal(text(PNG), "{}");
  assert.equal(text([...SIGNATURE, ...chunk("IEND", "")]), null);
});

test("a JPEG and a WebP say it in EXIF, in either order of bytes", () => {
  for (const directory of [BIG, LITTLE]) {
    assert.equal(text(jpeg(exif(directory))), "a ship");
    assert.equal(text(webp(exif(directory))), "a ship");
    assert.equal(text(webp([...bytes("Exif\0\0"), ...exif(directory)])), "a ship");
  }
});

test("a file that is cut off anywhere says nothing, or all", () => {
  for (const whole of [PNG, jpeg(exif(BIG)), webp(exif(LITTLE))]) {
    const said = text(whole);
    for (let end = 0; end < whole.length; end++) {
      assert.ok([null, said].includes(text(whole.slice(0, end))), `${end}`);
    }
  }
});

test("a file of another kind says nothing", () => {
  assert.equal(text(bytes("GIF89a and more, enough to be read as anything")), null);
});
