/** The entry: the three tabs, whose name stands in the address, and what starts in each. */

import { element, showError } from "./dom.js";

const NAMES = ["paint", "see", "read"];

/** What one tab asks of another: the event's name to the tab that answers it. */
const REQUESTS = { "triptych:classify": "see", "triptych:start-image": "paint" };

/** @param {string} name */
const tab = (name) => /** @type {HTMLElement} */ (document.getElementById(`${name}-tab`));
/** @param {string} name */
const panel = (name) => /** @type {HTMLElement} */ (document.getElementById(`${name}-panel`));

/** @param {string} name */
function show(name) {
  for (const each of NAMES) {
    const isShown = each === name;
    tab(each).setAttribute("aria-selected", String(isShown));
    tab(each).tabIndex = isShown ? 0 : -1;
    panel(each).hidden = !isShown;
  }
}

function showAddressed() {
  const name = location.hash.slice(1);
  show(NAMES.includes(name) ? name : NAMES[0]);
}

/** @param {string} name */
function go(name) {
  if (location.hash.slice(1) !== name) history.pushState(null, "", `#${name}`);
  show(name);
}

/** @param {KeyboardEvent} event */
function moveByKey(event) {
  const here = NAMES.findIndex((name) => tab(name) === event.target);
  const last = NAMES.length - 1;
  /** @type {Record<string, number>} */
  const targets = {
    ArrowLeft: here === 0 ? last : here - 1,
    ArrowRight: here === last ? 0 : here + 1,
    Home: 0,
    End: last,
  };
  if (here < 0 || !(event.key in targets)) return;
  event.preventDefault();
  const name = NAMES[targets[event.key]];
  go(name);
  tab(name).focus();
}

/**
 * Each module has `start`, and one that fails takes no other with it.
 *
 * @param {string} module
 * @param {HTMLElement} place
 */
async function start(module, place) {
  try {
    await (await import(`./${module}.js`)).start(place);
  } catch (error) {
    const notice = element("div");
    place.append(notice);
    showError(notice, /** @type {Error} */ (error));
    throw error;
  }
}

for (const name of NAMES) {
  tab(name).addEventListener("click", () => go(name));
  tab(name).addEventListener("keydown", moveByKey);
  start(name, panel(name));
}
for (const [request, name] of Object.entries(REQUESTS)) {
  document.addEventListener(request, () => go(name));
}
start("status", /** @type {HTMLElement} */ (document.getElementById("status")));
addEventListener("hashchange", showAddressed);
addEventListener("popstate", showAddressed);
showAddressed();
