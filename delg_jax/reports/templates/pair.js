// The dialog with a query and one result: matches that fit, other matches, attention.
class PairDialog {
  constructor(content, name) {
    this.content = content;
    this.heat = `heat-${name}`; // gradients are found by ids, which are those of the whole page
    this.dialog = element("dialog");
    // A click beside the dialog closes it, as Escape does.
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    document.body.append(this.dialog);
  }

  show(query, hit, method, words) {
    const { content } = this;
    const place = hit[0];
    const matches = content.matches[`${method.run}/${query.number}/${place}`] || null;
    const spots = [
      content.spots[`${method.run}/q${query.number}`] || [],
      content.spots[`${method.run}/${place}`] || [],
    ];
    const figure = element("div", { class: "pair without-spots" });
    figure.append(this.drawing(query, place, matches, spots));
    const title = `${query.name} and ${content.images[place]}`;
    this.dialog.setAttribute("aria-label", title);
    this.dialog.replaceChildren(
      element("h4", {}, title),
      element("p", { class: "note" }, `${method.label}: ${words}.`),
      element("p", { class: "summary" }, this.summary(matches, method)),
      element("div", { class: "controls" },
        matches ? this.toggle(figure, "without-inliers", "Inlier lines", true) : null,
        matches ? this.toggle(figure, "without-others", "Other matches", true) : null,
        matches ? this.toggle(figure, "without-spots", "Attention", false) : null,
        element("button", { type: "button", class: "close", click: () => this.dialog.close() },
          "Close")),
      figure,
      matches ? element("p", { class: "note" },
        "Lines are inlier matches, dots are other matches. " +
        "At most 80 lines and 40 dots are drawn. Attention: the 40 best features of each image; " +
        "colour shows the score and size the scale.") : null,
    );
    this.dialog.showModal();
  }

  summary(matches, method) {
    if (!matches) return "No matches are stored for this pair.";
    const least = this.content.minInliers[method.run];
    const verdict = matches.inliers >= least ? "verified" : `not verified: fewer than ${least}`;
    return `${matches.inliers} inliers of ${matches.matches} matches (${verdict}).`;
  }

  toggle(figure, name, text, on) {
    const box = element("input", { type: "checkbox", checked: on });
    box.addEventListener("change", () => figure.classList.toggle(name, !box.checked));
    return element("label", {}, element("span", {}, box, ` ${text}`));
  }

  // Both pictures at one height beside each other, or on a narrow screen at one width stacked.
  drawing(query, place, matches, spots) {
    const pictures = [query.picture, this.content.imagePictures[place]].map((number) =>
      number === null || number === undefined ? null : this.content.pictures[number]);
    const stacked = window.innerWidth < 640;
    const sizes = pictures.map((picture) => {
      const ratio = picture ? picture[1] / picture[2] : 4 / 3;
      return stacked ? [400, 400 / ratio] : [360 * ratio, 360];
    });
    const gap = 10;
    const second = stacked ? [0, sizes[0][1] + gap] : [sizes[0][0] + gap, 0];
    const corners = [[0, 0], second];
    const [width, height] = [0, 1].map((axis) =>
      Math.max(sizes[0][axis], second[axis] + sizes[1][axis]));
    const svg = drawn("svg", {
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": matches ? `${matches.inliers} inlier lines between the two pictures`
        : "the two pictures",
    }, heat(this.heat));
    pictures.forEach((picture, side) => {
      const [[x, y], [w, h]] = [corners[side], sizes[side]];
      svg.append(drawn("rect", { class: "blank", x, y, width: w, height: h }));
      if (picture) svg.append(drawn("image", { href: picture[0], x, y, width: w, height: h }));
      if (!side && query.box) svg.append(...boxes(query.box, w, h));
      svg.append(...this.spots(spots[side], corners[side], sizes[side]));
    });
    if (matches) svg.append(...this.lines(matches, corners, sizes));
    return svg;
  }

  spots(numbers, [left, top], [width, height]) {
    const nodes = [];
    for (let i = 0; i < numbers.length; i += 4) {
      nodes.push(drawn("circle", {
        class: "spot",
        cx: left + (numbers[i] * width) / 1000,
        cy: top + (numbers[i + 1] * height) / 1000,
        r: (Math.max(numbers[i + 2], 25) * Math.max(width, height)) / 1000,
        fill: `url(#${this.heat})`,
        opacity: 0.25 + numbers[i + 3] / 12,
      }));
    }
    return nodes;
  }

  lines({ lines, others }, corners, sizes) {
    const nodes = [];
    const end = (numbers, i, side) => [0, 1].map((axis) =>
      corners[side][axis] + (numbers[i + 2 * side + axis] * sizes[side][axis]) / 1000);
    for (let i = 0; i < others.length; i += 4) {
      for (const side of [0, 1]) {
        const [cx, cy] = end(others, i, side);
        nodes.push(drawn("circle", { class: "other", cx, cy, r: 2 }));
      }
    }
    for (let i = 0; i < lines.length; i += 4) {
      const [[x1, y1], [x2, y2]] = [end(lines, i, 0), end(lines, i, 1)];
      const stroke = `hsl(${Math.round(lines[i + 1] * 0.3)} 95% 55%)`;
      nodes.push(drawn("line", { class: "inlier", x1, y1, x2, y2, stroke }));
    }
    return nodes;
  }
}

function heat(id) {
  return drawn("defs", {},
    drawn("radialGradient", { id },
      drawn("stop", { offset: 0, "stop-color": "#ff2d00", "stop-opacity": 0.9 }),
      drawn("stop", { offset: 1, "stop-color": "#ffd000", "stop-opacity": 0 })));
}

// The part of a query that was searched for, over its picture of a width and a height.
function boxes([x, y, w, h], width, height) {
  const place = {
    x: (x * width) / 1000, y: (y * height) / 1000,
    width: (w * width) / 1000, height: (h * height) / 1000,
  };
  return ["box under", "box"].map((name) => drawn("rect", { class: name, ...place }));
}
