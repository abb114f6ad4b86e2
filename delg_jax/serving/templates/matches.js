// Two pictures with a line for each match that fits and a dot for each that does not.

const NAMESPACE = "http://www.w3.org/2000/svg";
const SIDE = 1000; // of the drawing, in its own units
const GAP = 12;

function element(name, attributes) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/**
 * @param {SVGSVGElement} svg to fill
 * @param {string[]} urls of the query and of the image
 * @param {{sizes: number[][], lines: Array}} found of /api/matches
 * @param {boolean} stacked whether the image stands below the query, for narrow screens
 */
export function drawMatches(svg, urls, found, stacked) {
  const [along, across] = stacked ? [0, 1] : [1, 0]; // axes of [rows, columns]
  const scales = found.sizes.map((size) => SIDE / size[across]);
  const lengths = found.sizes.map((size, index) => size[along] * scales[index]);
  const starts = [0, lengths[0] + GAP];
  const whole = starts[1] + lengths[1];
  svg.setAttribute("viewBox", stacked ? `0 0 ${SIDE} ${whole}` : `0 0 ${whole} ${SIDE}`);
  svg.replaceChildren();

  const place = (y, x, side) => {
    const at = [y * scales[side], x * scales[side]];
    at[along] += starts[side];
    return at;
  };
  urls.forEach((href, side) => {
    const [rows, columns] = found.sizes[side];
    const [y, x] = place(0, 0, side);
    const size = { width: columns * scales[side], height: rows * scales[side] };
    svg.append(element("image", { href, x, y, ...size, preserveAspectRatio: "none" }));
  });
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
