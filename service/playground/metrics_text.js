/** Prometheus' text format, as far as a page needs it: names, labels and numbers. */

/** @typedef {{labels: Record<string, string>, value: number}} Sample */

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/**
 * @param {string} text
 * @returns {Map<string, Sample[]>} by name
 */
export function parseMetrics(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const found = LINE.exec(line);
    if (found === null) continue;
    const [, name, labels = "", value] = found;
    const sample = { labels: parseLabels(labels), value: Number(value) };
    samples.set(name, [...(samples.get(name) ?? []), sample]);
  }
  return samples;
}

/** @param {string} text */
function parseLabels(text) {
  const pairs = [...text.matchAll(LABEL)].map(([, name, value]) => [name, unescape(value)]);
  return Object.fromEntries(pairs);
}

/** @param {string} value */
function unescape(value) {
  return value.replace(/\\(.)/g, (_, letter) => (letter === "n" ? "\n" : letter));
}
