/**
 * The key that a gateway before the service demands: asked for once, kept by this tab's session.
 *
 * Whoever wants to know when it changes listens to the document's `triptych:key`.
 */

import { element } from "./dom.js";

// Another service behind another prefix of the same origin has another key.
const NAME = `triptych-key:${globalThis.location?.pathname}`;
const ALLOWED = "[!-~]+"; // visible ASCII, as a header takes it

let current = kept();
let isDeclined = false; // on this visit

export function getKey() {
  return current;
}

/** Begin again without it, and without all that was shown for it; the person is asked anew. */
export function forgetKey() {
  keep(null);
  location.reload();
}

/**
 * Ask the person; null where they give none, and then they are not asked again: answers to other
 * calls are still on their way.
 *
 * @param {boolean} wasRefused whether there was a key, which is not right
 * @returns {Promise<string | null>}
 */
export async function askForKey(wasRefused) {
  if (isDeclined) return null;
  const key = await answer(wasRefused); // meanwhile the old one stands, as calls on their way compare
  isDeclined = key === null;
  keep(key);
  document.dispatchEvent(new CustomEvent("triptych:key"));
  return key;
}

function kept() {
  try {
    return sessionStorage.getItem(NAME);
  } catch {
    return null; // the browser keeps nothing: the key lives as long as the page
  }
}

/** @param {string | null} key */
function keep(key) {
  current = key;
  try {
    if (key === null) sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, key);
  } catch {
    // as above
  }
}

/**
 * @param {boolean} wasRefused
 * @returns {Promise<string | null>}
 */
function answer(wasRefused) {
  const input = element("input", {
    type: "password", id: "key", name: "key", required: true, pattern: ALLOWED, autocomplete: "off",
    title: "letters, digits and signs without spaces", "aria-describedby": "key-hint",
  });
  const dialog = keyDialog(input, wasRefused);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "given" ? input.value : null);
    });
  });
}

/**
 * @param {HTMLInputElement} input
 * @param {boolean} wasRefused
 */
function keyDialog(input, wasRefused) {
  const cancel = element("button", { type: "button", className: "button" }, "Not now");
  const form = element(
    "form",
    { className: "key-form" },
    element("h2", { id: "key-title" }, "This service asks for a key"),
    wasRefused && element("p", { className: "error", role: "alert" }, "That key was refused."),
    element("div", { className: "field" }, element("label", { htmlFor: "key" }, "API key"), input),
    element("p", { id: "key-hint", className: "hint" }, "Kept until this tab is closed."),
    element(
      "div",
      { className: "key-buttons" },
      cancel,
      element("button", { type: "submit", className: "button primary" }, "Use this key"),
    ),
  );
  const dialog = element("dialog", { "aria-labelledby": "key-title" }, form);
  cancel.addEventListener("click", () => dialog.close());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close("given");
  });
  return dialog;
}
