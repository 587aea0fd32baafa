/**
 * What a picture's file says of how it was made.
 *
 * A PNG has it in the text chunk `parameters` (https://www.w3.org/TR/png-3/#11tEXt), a JPEG and a
 * WebP as EXIF's ImageDescription. Pure; a file that is cut off or of another kind says nothing.
 */

const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const KEYWORD = "parameters\0";
const IMAGE_DESCRIPTION = 0x010e; // TIFF 6.0, section 8
const EXIF_MARK = "Exif\0\0";

/**
 * @param {ArrayBuffer} content
 * @returns {string | null}
 */
export function parametersText(content) {
  const view = new DataView(content);
  try {
    if (PNG.every((byte, i) => view.getUint8(i) === byte)) return ofPng(view);
    if (view.getUint16(0) === 0xffd8) return ofJpeg(view);
    if (latin1(view, 0, 4) === "RIFF" && latin1(view, 8, 4) === "WEBP") return ofWebp(view);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // read past the end
  }
  return null;
}

/** @param {DataView} view */
function ofPng(view) {
  for (let at = PNG.length; at < view.byteLength; ) {
    const length = view.getUint32(at);
    const isText = latin1(view, at + 4, 4) === "tEXt";
    const text = isText ? latin1(view, at + 8, length) : "";
    if (text.startsWith(KEYWORD)) return text.slice(KEYWORD.length);
    at += 12 + length; // length, kind, content, checksum
  }
  return null;
}

/** @param {DataView} view */
function ofJpeg(view) {
  for (let at = 2; view.getUint8(at) === 0xff; ) {
    const isApp1 = view.getUint8(at + 1) === 0xe1;
    if (isApp1 && latin1(view, at + 4, EXIF_MARK.length) === EXIF_MARK) {
      return ofExif(view, at + 4 + EXIF_MARK.length);
    }
    at += 2 + view.getUint16(at + 2);
  }
  return null;
}

/** @param {DataView} view */
function ofWebp(view) {
  for (let at = 12; at < view.byteLength; ) {
    const length = view.getUint32(at + 4, true);
    if (latin1(view, at, 4) === "EXIF") {
      const isMarked = latin1(view, at + 8, EXIF_MARK.length) === EXIF_MARK; // some writers do so
      return ofExif(view, at + 8 + (isMarked ? EXIF_MARK.length : 0));
    }
    at += 8 + length + (length % 2);
  }
  return null;
}

/**
 * @param {DataView} view
 * @param {number} start of the TIFF structure, from which its offsets count
 */
function ofExif(view, start) {
  const isLittle = latin1(view, start, 2) === "II";
  const directory = start + view.getUint32(start + 4, isLittle);
  const numEntries = view.getUint16(directory, isLittle);
  for (let entry = directory + 2; entry < directory + 2 + 12 * numEntries; entry += 12) {
    if (view.getUint16(entry, isLittle) === IMAGE_DESCRIPTION) {
      const length = view.getUint32(entry + 4, isLittle);
      return latin1(view, start + view.getUint32(entry + 8, isLittle), length).replace(/\0+$/, "");
    }
  }
  return null;
}

/**
 * @param {DataView} view
 * @param {number} at
 * @param {number} length
 */
function latin1(view, at, length) {
  if (at + length > view.byteLength) throw new RangeError("the file is cut off");
  return new TextDecoder("latin1").decode(new Uint8Array(view.buffer, view.byteOffset + at, length));
}
