/** Pictures to begin with, drawn here: the page ships no files for them, and loads none. */

const SIDE = 256; // pixels

/** @type {Record<string, (context: CanvasRenderingContext2D) => void>} */
const DRAWINGS = {
  "Red circle": (context) => {
    fill(context, "rgb(245 245 245)");
    context.fillStyle = "rgb(220 40 40)";
    context.arc(128, 128, 78, 0, 2 * Math.PI);
    context.fill();
  },
  "Yellow star": (context) => {
    fill(context, "rgb(40 80 220)");
    context.fillStyle = "rgb(240 210 40)";
    polygon(context, starPoints(130, 134, 96));
  },
  "Green triangle": (context) => {
    fill(context, "rgb(20 20 20)");
    context.fillStyle = "rgb(40 170 60)";
    polygon(context, [[128, 50], [212, 196], [44, 196]]);
  },
};

/** @returns {Promise<{name: string, file: File, url: string}[]>} */
export function drawExamples() {
  return Promise.all(Object.entries(DRAWINGS).map(([name, draw]) => example(name, draw)));
}

/**
 * @param {string} name
 * @param {(context: CanvasRenderingContext2D) => void} draw
 */
async function example(name, draw) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  draw(/** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")));
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  const file = new File([blob], `${name}.png`, { type: "image/png" });
  return { name, file, url: canvas.toDataURL() };
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {string} colour
 */
function fill(context, colour) {
  context.fillStyle = colour;
  context.fillRect(0, 0, SIDE, SIDE);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number[][]} corners
 */
function polygon(context, corners) {
  for (const [x, y] of corners) context.lineTo(x, y);
  context.fill();
}

/**
 * @param {number} x
 * @param {number} y
 * @param {number} radius
 */
function starPoints(x, y, radius) {
  return Array.from({ length: 10 }, (_, i) => {
    const length = i % 2 === 0 ? radius : 0.42 * radius;
    const angle = (i * Math.PI) / 5 - Math.PI / 2;
    return [x + length * Math.cos(angle), y + length * Math.sin(angle)];
  });
}
