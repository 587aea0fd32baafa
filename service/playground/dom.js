/** Making elements, and telling people what happened. */

/** @typedef {Node | string | null | undefined | false} Child absent children are left out */

/**
 * Make an element. Props are the element's own properties (`className`, `type`, `onclick` …);
 * what has a dash in it is an attribute (`aria-label`, `data-index`), and null is left out.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, unknown>} [props]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (name.includes("-") || name === "role") made.setAttribute(name, String(value));
    else Object.assign(made, { [name]: value });
  }
  made.append(...present(children));
  return made;
}

/** @param {Child[]} children */
export function present(children) {
  return /** @type {(Node | string)[]} */ (children.filter((child) => child || child === ""));
}

/**
 * The element of this id, which index.html has.
 *
 * @template {typeof HTMLElement} Kind
 * @param {string} id
 * @param {Kind} kind such as HTMLInputElement
 * @returns {InstanceType<Kind>}
 */
export function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`#${id} is no ${kind.name}: this is a bug`);
  return /** @type {InstanceType<Kind>} */ (found);
}

/**
 * Say it to those who listen to the page.
 *
 * @param {string} text
 */
export function announce(text) {
  byId("announcer", HTMLElement).textContent = text;
}

/**
 * Put it on the clipboard, and say so.
 *
 * @param {string} text
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copySelected(text); // a page without TLS has no other way
  }
  announce("Copied");
}

/** @param {string} text */
function copySelected(text) {
  const focused = document.activeElement;
  const area = element("textarea", { className: "visually-hidden", value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
}

/**
 * Where the page is narrow, results lie below what asks for them.
 *
 * @param {HTMLElement} results
 */
export function bringIntoView(results) {
  const { top } = results.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) results.scrollIntoView();
}

/**
 * Show in the container what went wrong; what stood there goes. `null` empties it.
 *
 * @param {HTMLElement} container
 * @param {Error | null} error
 */
export function showError(container, error) {
  container.replaceChildren();
  if (error === null) return;
  container.append(element("p", { className: "error", role: "alert" }, error.message));
}
