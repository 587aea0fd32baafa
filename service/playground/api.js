/**
 * The only place that calls fetch: JSON, files and server-sent events of the service's own API.
 *
 * Paths are relative to the page, so that it works behind a path prefix. Where a gateway demands a
 * key, the person is asked for one, once for all calls that wait, and the call is made again.
 */

import { askForKey, getKey } from "./key.js";
import { parseEvents } from "./sse.js";

const FIRST_WAIT_MS = 500; // before a broken stream is opened again; doubled each time
const LONGEST_WAIT_MS = 8000;
const UNREACHABLE = "The service cannot be reached.";

/** What the service answered instead of a result; its message is made for people. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, code?: string | null, param?: string | null,
   *          retryAfterS?: number | null}} [details] status 0: there was no answer
   */
  constructor(message, { status = 0, code = null, param = null, retryAfterS = null } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.param = param;
    this.retryAfterS = retryAfterS;
  }

  /** Whether the same call may be answered later. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** @param {string} path */
export async function getJson(path) {
  return body(await call(path), "json");
}

/** @param {string} path */
export async function getText(path) {
  return body(await call(path), "text");
}

/** @param {string} path */
export async function getBlob(path) {
  return body(await call(path), "blob");
}

/**
 * @param {string} path
 * @param {unknown} body
 * @param {{signal?: AbortSignal}} [options]
 */
export async function postJson(path, body, { signal } = {}) {
  return post(path, { body: JSON.stringify(body), contentType: "application/json", signal });
}

/**
 * @param {string} path
 * @param {{body?: BodyInit, contentType?: string, signal?: AbortSignal}} [options]
 *   without `contentType` the browser says it, as it must of a form
 */
export async function post(path, { body: content, contentType, signal } = {}) {
  const headers = contentType ? { "Content-Type": contentType } : undefined;
  return body(await call(path, { method: "POST", headers, body: content, signal }), "json");
}

/** @param {string} path */
export async function remove(path) {
  await call(path, { method: "DELETE" });
}

/**
 * Follow a job to its `finished`, over broken connections and restarts of the service.
 *
 * @param {string} path
 * @param {{lastEventId?: string | null, signal?: AbortSignal,
 *          onBreak?: (error: ApiError) => void}} [options]
 * @returns {AsyncGenerator<{id: string | null, event: string, data: any}>}
 */
export async function* events(path, { lastEventId = null, signal, onBreak } = {}) {
  let last = lastEventId;
  for (let waitMs = FIRST_WAIT_MS; ; waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS)) {
    try {
      const response = await open(path, last, signal);
      if (response.body === null) return; // 204: `last` was the end
      for await (const { id, event, data } of parseEvents(texts(response.body))) {
        [last, waitMs] = [id ?? last, FIRST_WAIT_MS];
        yield { id, event, data: JSON.parse(data) };
        if (event === "finished") return;
      }
    } catch (error) {
      if (signal?.aborted || !(error instanceof ApiError) || !error.isPassing) throw error;
      onBreak?.(error);
    }
    await pause(waitMs, signal);
  }
}

/**
 * @param {string} path
 * @param {string | null} last
 * @param {AbortSignal} [signal]
 */
function open(path, last, signal) {
  const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
  return call(path, { headers, signal });
}

/** @param {ReadableStream<Uint8Array<ArrayBuffer>>} body */
async function* texts(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw unanswered(UNREACHABLE, error);
      });
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // of a connection that is broken already
  }
}

/**
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>} of success
 */
async function call(path, init = {}) {
  for (let key = getKey(); ; ) {
    const response = await send(path, init, key);
    if (response.ok) return response;
    const error = await errorOf(response);
    const other = response.status === 401 ? await anotherKey(key) : null;
    if (other === null) throw error;
    key = other;
  }
}

/**
 * @param {string} path
 * @param {RequestInit} init
 * @param {string | null} key
 */
async function send(path, init, key) {
  const headers = new Headers(init.headers);
  if (key !== null) headers.set("Authorization", `Bearer ${key}`);
  try {
    return await fetch(path, { ...init, headers });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw unanswered(UNREACHABLE, error);
  }
}

/**
 * @param {Response} response
 * @param {"json" | "text" | "blob"} kind
 * @returns {Promise<any>}
 */
async function body(response, kind) {
  try {
    return await response[kind]();
  } catch (error) {
    throw unanswered("The service's answer broke off.", error); // or is a gateway's own page
  }
}

/**
 * @param {string} message
 * @param {unknown} cause
 */
function unanswered(message, cause) {
  const error = new ApiError(message);
  error.cause = cause;
  return error;
}

/** @type {Promise<string | null> | null} */
let asking = null; // the dialog that all calls wait for

/**
 * The key to try after this one was refused; null where the person gives none.
 *
 * @param {string | null} refused
 */
async function anotherKey(refused) {
  const current = getKey();
  if (current !== refused) return current; // given while this call was on its way
  asking ??= askForKey(refused !== null).finally(() => {
    asking = null;
  });
  return asking;
}

/** @param {Response} response */
async function errorOf(response) {
  const text = await body(response, "text");
  const retryAfterS = Number(response.headers.get("retry-after")) || null;
  const { message, code, param } = envelope(text);
  const plain = message ?? `The service answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(plain, { status: response.status, code, param, retryAfterS });
}

/**
 * @param {string} text
 * @returns {{message?: string, code?: string, param?: string}}
 */
function envelope(text) {
  try {
    return JSON.parse(text).error ?? {};
  } catch {
    return {}; // a gateway's own page
  }
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal]
 */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
