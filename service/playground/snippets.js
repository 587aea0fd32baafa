/** A request to paint as code that is ready to paste. Pure. */

/** @import { PaintInput } from "./paint_request.js" */

/**
 * @typedef {object} Place
 * @property {string} url      of the service, without a slash at its end
 * @property {boolean} hasKey  whether it wants one
 */

const KEY_VARIABLE = "TRIPTYCH_API_KEY"; // the key itself stays out of what people paste
const START_FILE = "start.png";
/** Parameters of the client's own method; the others go into `extra_body`. */
const OPENAI = ["model", "prompt", "size", "n"];

/**
 * @param {PaintInput} input
 * @param {Place} place
 */
export function curl(input, place) {
  const isOne = input.n === 1;
  const output = isOne ? ["-H 'Accept: image/png' -o image.png"] : [];
  const route = isFromImage(input) ? "edits" : "generations";
  const lines = [
    `curl -s ${shellQuoted(`${place.url}/v1/images/${route}`)}`,
    ...(place.hasKey ? [`-H "Authorization: Bearer $${KEY_VARIABLE}"`] : []),
    ...output,
    ...(isFromImage(input) ? formLines(input) : jsonLines(input)),
  ];
  return lines.join(" \\\n  ");
}

/** @param {PaintInput} input */
function jsonLines(input) {
  const body = JSON.stringify(input, null, 2).replaceAll("\n", "\n  ");
  return ["-H 'Content-Type: application/json'", `-d ${shellQuoted(body)}`];
}

/** @param {PaintInput} input */
function formLines(input) {
  const fields = Object.entries(input).map(([name, value]) => {
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    return `--form-string ${shellQuoted(`${name}=${text}`)}`;
  });
  return [`-F image=@${START_FILE}`, ...fields];
}

/** @param {string} text */
function shellQuoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * With the stock `openai` client.
 *
 * @param {PaintInput} input
 * @param {Place} place
 */
export function python(input, place) {
  const key = place.hasKey ? `os.environ["${KEY_VARIABLE}"]` : '"none"';
  const named = Object.entries(input).filter(([name]) => OPENAI.includes(name));
  const extra = Object.entries(input).filter(([name]) => !OPENAI.includes(name));
  const image = isFromImage(input)
    ? [`        "image": base64.b64encode(open("${START_FILE}", "rb").read()).decode(),`]
    : [];
  return [
    "import base64",
    ...(place.hasKey ? ["import os"] : []),
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${place.url}/v1`)}, api_key=${key})`,
    "result = client.images.generate(",
    ...named.map(([name, value]) => `    ${name}=${JSON.stringify(value)},`),
    "    extra_body={",
    ...extra.map(([name, value]) => `        "${name}": ${JSON.stringify(value)},`),
    ...image,
    "    },",
    ")",
    "for i, image in enumerate(result.data):",
    '    with open(f"image-{i}.png", "wb") as file:',
    "        file.write(base64.b64decode(image.b64_json))",
    "",
  ].join("\n");
}

/**
 * For Node, without a package.
 *
 * @param {PaintInput} input
 * @param {Place} place
 */
export function javascript(input, place) {
  const fs = isFromImage(input) ? "readFile, writeFile" : "writeFile";
  const fields = Object.entries(input).map(
    ([name, value]) => `    ${name}: ${JSON.stringify(value)},`,
  );
  if (isFromImage(input)) fields.push(`    image: await readFile("${START_FILE}", "base64"),`);
  return [
    `import { ${fs} } from "node:fs/promises";`,
    "",
    `const response = await fetch(${JSON.stringify(`${place.url}/v1/images/generations`)}, {`,
    '  method: "POST",',
    "  headers: {",
    '    "Content-Type": "application/json",',
    ...(place.hasKey ? [`    Authorization: \`Bearer \${process.env.${KEY_VARIABLE}}\`,`] : []),
    "  },",
    "  body: JSON.stringify({",
    ...fields,
    "  }),",
    "});",
    "const { data, error } = await response.json();",
    "if (error) throw new Error(error.message);",
    "for (const [i, image] of data.entries()) {",
    '  await writeFile(`image-${i}.png`, image.b64_json, "base64");',
    "}",
    "",
  ].join("\n");
}

/** @param {PaintInput} input */
function isFromImage(input) {
  return input.strength !== undefined;
}
