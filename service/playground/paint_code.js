/** The request that made a picture as code, one language at a time, ready to paste. */

import { copyText, element } from "./dom.js";
import { getKey } from "./key.js";
import { curl, javascript, python } from "./snippets.js";

/** @import { PaintInput } from "./paint_request.js" */

const LANGUAGES = { curl, Python: python, JavaScript: javascript };

/** @typedef {keyof typeof LANGUAGES} Language */

/** @type {Language} which of them was looked at last */
let chosen = "curl";

/** @param {PaintInput} input */
export function codePanel(input) {
  const code = element("code");
  const pre = element("pre", { tabIndex: 0, role: "group", "aria-label": "The request as code" }, code);
  const names = /** @type {Language[]} */ (Object.keys(LANGUAGES));
  const chips = names.map((name) => {
    const chip = element("button", { type: "button", className: "button small" }, name);
    chip.addEventListener("click", () => show(name));
    return chip;
  });
  const copy = element("button", { type: "button", className: "button small" }, "Copy");
  copy.addEventListener("click", async () => {
    await copyText(code.textContent ?? "");
    copy.textContent = "Copied";
  });

  /** @param {Language} name */
  function show(name) {
    chosen = name;
    code.textContent = LANGUAGES[name](input, place());
    for (const chip of chips) chip.ariaPressed = String(chip.textContent === name);
  }

  show(chosen);
  const bar = element("div", { className: "paint-code-bar" }, element("div", { className: "chips" }, ...chips), copy);
  return element("div", { className: "paint-code" }, bar, pre);
}

function place() {
  const url = new URL(".", document.baseURI).href.replace(/\/$/, "");
  return { url, hasKey: getKey() !== null };
}
