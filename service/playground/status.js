/** The strip that says how the service is: ready, what waits, how fast, on what. */

import { ApiError, getJson, getText } from "./api.js";
import { announce, element } from "./dom.js";
import { forgetKey, getKey } from "./key.js";
import { parseMetrics } from "./metrics_text.js";

const PAUSE_MS = 5000;
const MINUTE_S = 60;
const MOST_JOBS = 50; // of the last minute, whose images are counted
const WAKING = ["visibilitychange", "triptych:key"]; // events after which to look at once
const QUEUE_DEPTH = "triptych_queue_depth";
const HEARTBEAT = "triptych_worker_heartbeat_timestamp_seconds";

/** @typedef {{isReady: boolean, isRefused: boolean, text: string, devices: string[]}} Readiness */
/** @typedef {{id: string, finished_at: number}} EndedJob */

/** @type {Map<string, Promise<number>>} how many images each job of the last minute painted */
const imagesOf = new Map();

/** @param {HTMLElement} place */
export async function start(place) {
  const state = element("p", { className: "state" });
  const facts = element("ul", { className: "facts" });
  const keyButton = element("button", { type: "button", className: "link", hidden: true });
  keyButton.addEventListener("click", forgetKey);
  place.append(state, facts, links(keyButton));
  let said = "";
  for (;;) {
    const { readiness, texts } = await look();
    state.dataset.ready = String(readiness.isReady);
    state.textContent = readiness.text;
    keyButton.hidden = getKey() === null && !readiness.isRefused;
    keyButton.textContent = getKey() === null ? "Enter a key" : "Forget key";
    facts.replaceChildren(...texts.map((text) => element("li", {}, text)));
    if (said !== "" && said !== readiness.text) announce(`The service: ${readiness.text}`);
    said = readiness.text;
    await nextLook(readiness.isRefused);
  }
}

/** Ask all there is to ask; what is not answered is not shown. */
async function look() {
  const [readiness, samples] = await Promise.all([
    readReadiness(),
    getText("metrics").then(parseMetrics).catch(() => null),
  ]);
  const now = Math.max(0, ...(samples?.get(HEARTBEAT)?.map(({ value }) => value) ?? []));
  const rate = now > 0 ? await imagesOfLastMinute(now).catch(() => null) : null;
  const queues = samples?.get(QUEUE_DEPTH);
  const texts = [
    readiness.devices.join(", "),
    queues ? waiting(queues) : "",
    rate === null ? "" : `${rate} ${rate === 1 ? "image" : "images"}/min`,
  ];
  return { readiness, texts: texts.filter((text) => text !== "") };
}

/** @returns {Promise<Readiness>} */
async function readReadiness() {
  try {
    /** @type {{workers: {device: string}[]}} */
    const { workers } = await getJson("readyz");
    const devices = [...new Set(workers.map(({ device }) => device.toUpperCase()))];
    return { isReady: true, isRefused: false, text: "Ready", devices };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const isRefused = error.status === 401;
    return { isReady: false, isRefused, text: error.message, devices: [] };
  }
}

/** @param {import("./metrics_text.js").Sample[]} queues */
function waiting(queues) {
  const depths = queues
    .filter(({ value }) => value > 0)
    .map(({ labels, value }) => `${value} ${labels.task}`);
  return depths.length === 0 ? "nothing waits" : `waiting: ${depths.join(", ")}`;
}

/**
 * Of this client's own jobs: the service tells nobody of those of others.
 *
 * @param {number} now in Unix seconds, by the service's clock
 */
async function imagesOfLastMinute(now) {
  const query = `type=image.generation&status=succeeded&limit=${MOST_JOBS}`;
  /** @type {{data: EndedJob[]}} */
  const { data } = await getJson(`v1/jobs?${query}`);
  const recent = data.filter((job) => job.finished_at > now - MINUTE_S).map((job) => job.id);
  for (const id of imagesOf.keys()) {
    if (!recent.includes(id)) imagesOf.delete(id);
  }
  const counts = await Promise.all(recent.map(numImages));
  return counts.reduce((sum, count) => sum + count, 0);
}

/** @param {string} id */
function numImages(id) {
  const known = imagesOf.get(id);
  if (known !== undefined) return known;
  const asked = getJson(`v1/jobs/${id}/result`).then(
    ({ data }) => data.length,
    () => 0, // forgotten since
  );
  imagesOf.set(id, asked);
  return asked;
}

/** @param {HTMLElement} keyButton */
function links(keyButton) {
  const { grafanaUrl, version } = document.documentElement.dataset;
  return element(
    "nav",
    { className: "links", "aria-label": "About this service" },
    element("a", { href: "docs" }, "API"),
    element("a", { href: "metrics" }, "Metrics"),
    grafanaUrl ? element("a", { href: grafanaUrl }, "Grafana") : null,
    element("span", {}, `v${version}`),
    keyButton,
  );
}

/**
 * Wait a while, and until somebody looks; without a key, which would be asked for again and again,
 * until there is one.
 *
 * @param {boolean} isRefused
 */
function nextLook(isRefused) {
  return new Promise((resolve) => {
    const look = () => {
      clearTimeout(timer);
      if (document.hidden || (isRefused && getKey() === null)) return;
      for (const event of WAKING) document.removeEventListener(event, look);
      resolve(null);
    };
    const timer = setTimeout(look, PAUSE_MS);
    for (const event of WAKING) document.addEventListener(event, look);
  });
}
