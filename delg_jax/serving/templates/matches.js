// Two pictures with a line for each match that fits and a dot for each that does not.

const NAMESPACE = "http://www.w3.org/2000/svg";
const SIDE = 1000; // of the drawing, in its own units
const GAP = 12;

function element(name, attributes) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Scale and start of both pictures along the axis on which they follow each other. */
function layout(sizes, stacked) {
  const [along, across] = stacked ? [0, 1] : [1, 0]; // axes of [rows, columns]
  const scales = sizes.map((size) => SIDE / size[across]);
  const lengths = sizes.map((size, index) => size[along] * scales[index]);
  const starts = [0, lengths[0] + GAP];
  const place = (y, x, side) => {
    const found = [y * scales[side], x * scales[side]];
    found[along] += starts[side];
    return found;
  };
  return { scales, place, whole: starts[1] + lengths[1] };
}

/**
 * Draws the pictures, which needs no matches.
 *
 * @param {SVGSVGElement} svg to fill
 * @param {string[]} urls of the query and of the image
 * @param {number[][]} sizes rows and columns of both
 * @param {boolean} stacked whether the image stands below the query, for narrow screens
 */
export function drawPair(svg, urls, sizes, stacked) {
  const { scales, place, whole } = layout(sizes, stacked);
  svg.setAttribute("viewBox", stacked ? `0 0 ${SIDE} ${whole}` : `0 0 ${whole} ${SIDE}`);
  svg.replaceChildren();
  urls.forEach((href, side) => {
    const [rows, columns] = sizes[side];
    const [y, x] = place(0, 0, side);
    const size = { width: columns * scales[side], height: rows * scales[side] };
    svg.append(element("image", { href, x, y, ...size, preserveAspectRatio: "none" }));
  });
}

/**
 * Draws matches over the pictures of `drawPair`.
 *
 * @param {SVGSVGElement} svg with the pictures
 * @param {{sizes: number[][], lines: Array}} found of /api/matches
 * @param {boolean} stacked as of `drawPair`
 */
export function drawMatches(svg, found, stacked) {
  const { place } = layout(found.sizes, stacked);
  for (const [y1, x1, y2, x2, fits] of found.lines) {
    const ends = [place(y1, x1, 0), place(y2, x2, 1)];
    if (!fits) {
      for (const [cy, cx] of ends) svg.append(element("circle", { cx, cy, r: 3, class: "rejected" }));
      continue;
    }
    // A hue by the height in the query tells neighbouring lines apart
    const stroke = `hsl(${Math.round((300 * y1) / found.sizes[0][0])} 90% 45%)`;
    const [[ya, xa], [yb, xb]] = ends;
    svg.append(element("line", { x1: xa, y1: ya, x2: xb, y2: yb, stroke }));
  }
}
