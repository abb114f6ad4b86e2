// One query: its picture, and what every method found for it.
const KINDS = ["wrong", "right", "ignored", "unknown"];
const MARKS = ["✗", "✓", "–", "?"];

class FoundView {
  constructor(content, dialog) {
    this.content = content;
    this.dialog = dialog;
    this.node = element("section", { class: "query", tabindex: -1, hidden: true });
  }

  show(query, protocol) {
    this.node.hidden = false;
    const title = element("h4", {}, query.name);
    const parts = this.content.methods.flatMap((method, number) =>
      this.method(query, protocol, method, number));
    this.node.replaceChildren(title, ...this.asked(query), element("p", { class: "note" },
      "✓ right, ✗ wrong, – ignored by the protocol, ? unknown. ↑ and ↓: ranks gained and lost " +
      "against the first stage. Click a result to see its matches."), ...parts);
    this.node.setAttribute("aria-label", `Results of ${query.name}`);
  }

  asked(query) {
    if (query.picture === null || query.picture === undefined) {
      return [element("p", { class: "note" }, "No picture of this query is stored here.")];
    }
    const [uri, width, height] = this.content.pictures[query.picture];
    const picture = drawn("svg", {
      viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `query ${query.name}`,
    }, drawn("image", { href: uri, width, height }));
    if (query.box) picture.append(...boxes(query.box, width, height));
    return [element("div", { class: "asked" }, picture)];
  }

  method(query, protocol, method, number) {
    const precision = query.precisions[protocol][number];
    let heading = `${method.label}: AP ${percent(precision)}`;
    const reference = method.firstStage ?? method.baseline;
    if (reference !== null) {
      const gain = difference(precision, query.precisions[protocol][reference]);
      if (gain !== null) heading += ` (${signed(gain)} over ${this.content.methods[reference].label})`;
    }
    const hits = query.found[protocol][number].map((hit) =>
      element("li", {}, this.hit(query, hit, method)));
    return [element("h5", {}, heading), element("ol", { class: "hits" }, hits)];
  }

  hit(query, hit, method) {
    const [place, kind, rank, before] = hit;
    const moved = rank && before ? before - rank : 0;
    const name = this.content.images[place];
    const words = this.words(kind, rank, before, moved);
    const picture = this.content.imagePictures[place];
    const arrow = moved ? (moved > 0 ? `↑${moved}` : `↓${-moved}`) : "";
    const show = () => this.dialog.show(query, hit, method, words);
    return element("button",
      { type: "button", class: `hit ${KINDS[kind]}`, title: name, click: show,
        "aria-label": `${words}: ${name}` },
      query.picture === undefined || picture === null || picture === undefined
        ? element("span", { class: "absent" }, name)
        : element("img", { src: this.content.pictures[picture][0], alt: "" }),
      element("span", { class: "facts" },
        element("span", { class: "mark" }, MARKS[kind]),
        element("span", {}, rank ? String(rank) : ""),
        element("span", { class: "moved" }, arrow)));
  }

  words(kind, rank, before, moved) {
    if (!rank) return "ignored by the protocol";
    const change = !before ? "" : !moved ? ", as in the first stage"
      : `, ${moved > 0 ? "up" : "down"} ${Math.abs(moved)} from rank ${before}`;
    return `rank ${rank}, ${kind === 3 ? "not known whether right" : KINDS[kind]}${change}`;
  }
}
