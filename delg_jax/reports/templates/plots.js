// Plots whose columns are queries: pointing, or a slider, tells which; a click shows it.
class QueryPlot {
  constructor(figure, content, onChoose) {
    this.byNumber = new Map(content.queries.map((query) => [query.number, query]));
    this.order = figure.dataset.order.split(" ").map(Number);
    this.content = content;
    const title = figure.querySelector("figcaption").textContent;
    this.protocol = content.protocols.findIndex((name) => title.startsWith(capital(name)));
    this.svg = figure.querySelector("svg");
    this.width = Number(this.svg.querySelector(".grid").getAttribute("x2"));
    this.marker = drawn("line", { class: "marker", y1: 0, y2: this.svg.viewBox.baseVal.height - 52 });
    this.slider = element("input", {
      type: "range", min: 0, max: this.order.length - 1, value: 0,
      "aria-label": `Query in ${title}`,
    });
    this.text = element("p", { class: "pointed note" });
    const show = () => onChoose(this.query());
    this.slider.addEventListener("input", () => this.point(Number(this.slider.value)));
    this.slider.addEventListener("focus", () => this.point(Number(this.slider.value)));
    this.slider.addEventListener("keydown", (event) => event.key === "Enter" && show());
    this.svg.addEventListener("pointermove", (event) => this.point(this.column(event)));
    this.svg.addEventListener("click", (event) => {
      this.point(this.column(event));
      show();
    });
    const button = element("button", { type: "button", click: show }, "Show this query");
    figure.append(this.slider, this.text, button);
    this.point(0);
  }

  query() {
    return this.byNumber.get(this.order[Number(this.slider.value)]);
  }

  column(event) {
    const frame = this.svg.getBoundingClientRect();
    const { x, width } = this.svg.viewBox.baseVal;
    const place = x + ((event.clientX - frame.left) / frame.width) * width;
    const last = this.order.length - 1;
    return Math.min(Math.max(Math.round((place / this.width) * Math.max(last, 1)), 0), last);
  }

  point(column) {
    this.slider.value = column;
    const x = (column / Math.max(this.order.length - 1, 1)) * this.width;
    furnished(this.marker, { x1: x, x2: x }, []);
    if (!this.marker.parentNode) this.svg.append(this.marker);
    const query = this.query();
    const values = this.content.lanes.map((lane, number) =>
      `${lane.label} ${percent(query.precisions[this.protocol][number])}`);
    this.text.textContent = `${query.name}: ${values.join(", ")}`;
    this.slider.setAttribute("aria-valuetext", this.text.textContent);
  }
}
