/** Pictures that come to the Paint tab: dropped anywhere on it or pasted, and read for what made them. */

import { byId } from "./dom.js";
import { inputOf } from "./paint_request.js";
import { parametersText } from "./picture_text.js";

/** @import { PaintInput } from "./paint_request.js" */

/**
 * @param {HTMLElement} place
 * @param {(file: File, input: Partial<PaintInput> | null) => void} take
 *   null: a picture that does not say
 */
export function onPicture(place, take) {
  const overlay = byId("paint-overlay", HTMLElement);
  const startDrop = byId("paint-start-drop", HTMLElement);
  /** @param {EventTarget | null} target */
  const isStart = (target) => target instanceof Node && startDrop.contains(target);

  document.addEventListener("dragover", (event) => {
    if (place.hidden || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    overlay.hidden = isStart(event.target);
    startDrop.classList.toggle("over", isStart(event.target));
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) end(); // left the window
  });
  document.addEventListener("drop", async (event) => {
    end();
    if (place.hidden) return;
    event.preventDefault(); // or the browser would open the file
    const file = pictureOf(event.dataTransfer);
    if (file && isStart(event.target)) startFrom(file);
    else if (file) take(file, await inputIn(file));
  });
  document.addEventListener("paste", async (event) => {
    const file = pictureOf(event.clipboardData);
    if (!place.hidden && file) take(file, await inputIn(file));
  });

  function end() {
    overlay.hidden = true;
    startDrop.classList.remove("over");
  }
}

/** @param {DataTransfer | null} transfer */
function pictureOf(transfer) {
  return [...(transfer?.files ?? [])].find(({ type }) => type.startsWith("image/"));
}

/** @param {File} file dropped where a start image belongs, whatever it says */
function startFrom(file) {
  document.dispatchEvent(new CustomEvent("triptych:start-image", { detail: { file } }));
}

/** @param {File} file */
async function inputIn(file) {
  const text = parametersText(await file.arrayBuffer());
  return text === null ? null : inputOf(text);
}
