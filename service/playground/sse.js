/**
 * Server-sent events from the text of a response, as it comes in.
 *
 * https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
 * Knows nothing of HTTP: an EventSource would do, could it send an Authorization header.
 */

/**
 * @typedef {object} ServerEvent
 * @property {string | null} id     of this event, or of the last one that had one
 * @property {string} event
 * @property {string} data
 */

/**
 * @param {AsyncIterable<string>} chunks cut anywhere
 * @returns {AsyncGenerator<ServerEvent>}
 */
export async function* parseEvents(chunks) {
  let id = null;
  let event = "";
  /** @type {string[]} */
  let data = [];
  for await (const line of lines(chunks)) {
    const [field, value] = split(line);
    if (line === "") {
      if (data.length > 0) yield { id, event: event || "message", data: data.join("\n") };
      [event, data] = ["", []];
    } else if (field === "id") id = value;
    else if (field === "event") event = value;
    else if (field === "data") data.push(value);
  }
}

/** @param {AsyncIterable<string>} chunks */
async function* lines(chunks) {
  let rest = "";
  for await (const chunk of chunks) {
    const text = rest + chunk;
    // a carriage return at the end may be the first half of a line's end
    const complete = text.endsWith("\r") ? text.slice(0, -1) : text;
    const parts = complete.split(/\r\n|\n|\r/);
    rest = (parts.pop() ?? "") + text.slice(complete.length);
    yield* parts;
  }
}

/**
 * @param {string} line
 * @returns {[string, string]}
 */
function split(line) {
  const colon = line.indexOf(":");
  if (colon < 0) return [line, ""];
  return [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
}
