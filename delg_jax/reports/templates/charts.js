// Charts by uPlot (templates/vendor). Colours are those of the page, light or dark.
const DASHES = [[], [9, 3], [3, 3], [12, 3, 3, 3]];
const BORDERS = ["solid", "dashed", "dotted", "dashed"]; // of the legend, as near as CSS comes
const CURVE_COLOURS = 8;
const DRAG = 4; // pixels from which on a click is a drag, which zooms

class LineChart {
  constructor(figure) {
    this.chart = JSON.parse(figure.dataset.chart);
    this.place = element("div", { class: `plot ${this.chart.marks}` });
    figure.querySelector(".absent").replaceWith(this.place);
    this.draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(this.place);
  }

  draw() {
    const values = this.chart.curves.map(([, curve]) => curve);
    if (this.plot) this.plot.destroy();
    this.plot = new uPlot(this.options(), [this.chart.x, ...values], this.place);
    furnished(this.plot.ctx.canvas, { role: "img", "aria-label": this.chart.title }, []);
  }

  size() {
    return { width: this.place.clientWidth, height: 240 };
  }

  options() {
    const { chart } = this;
    const few = chart.x.length < 2; // a single number needs limits around it
    return {
      ...this.size(),
      padding: [8, 12, 0, 0],
      scales: {
        x: { time: false, range: few ? [chart.x[0] - 1, chart.x[0] + 1] : this.across() },
        y: { range: chart.limits },
      },
      axes: [this.bottom(), { ...this.axis(chart.y_label), size: labelWidth }],
      series: [
        { label: chart.x_label },
        ...chart.curves.map(([name], number) => this.series(name, number)),
      ],
      ...this.interaction(),
    };
  }

  bottom() {
    return { ...this.axis(this.chart.x_label), size: 30 };
  }

  // Limits across, also after zooming; half a column more where columns stand.
  across() {
    const beside = this.chart.marks === "line" ? 0 : 0.5;
    return (plot, low, high) => [low - beside, high + beside];
  }

  interaction() {
    return { legend: this.legend(true) };
  }

  legend(live) {
    const dash = (plot, number) =>
      this.chart.marks === "line" ? BORDERS[(number - 1) % BORDERS.length] : "solid";
    return { live, markers: { width: 2, dash } };
  }

  axis(label) {
    const grid = { stroke: colour("--line"), width: 1 };
    const font = "13px system-ui, sans-serif";
    return {
      label: label || null, labelSize: 20, labelFont: font, font,
      stroke: colour("--soft"), grid, ticks: { ...grid, size: 4 },
    };
  }

  series(label, number) {
    const stroke = colour(`--c${number % CURVE_COLOURS}`);
    const value = (plot, shown) => (shown === null ? "–" : String(shown));
    const common = { label, stroke, value, spanGaps: true };
    return {
      line: { ...common, width: 2, dash: DASHES[number % DASHES.length], points: { show: false } },
      dots: { ...common, paths: () => null, points: { show: true, size: 5, fill: stroke } },
      bars: { ...common, fill: stroke, paths: uPlot.paths.bars({ size: [0.7, 24, 1] }),
        points: { show: false } },
    }[this.chart.marks];
  }
}

// A chart whose columns are queries: pointing, or a slider, tells which; a click shows it.
class QueryChart extends LineChart {
  constructor(figure, content, onChoose) {
    super(figure);
    this.byNumber = new Map(content.queries.map((query) => [query.number, query]));
    this.content = content;
    this.protocol = content.protocols.indexOf(this.chart.protocol);
    this.show = () => onChoose(this.query());
    this.slider = element("input", {
      type: "range", min: 0, max: this.chart.queries.length - 1, value: 0,
      "aria-label": `Query in ${this.chart.title}`,
    });
    this.text = element("p", { class: "pointed note" });
    for (const event of ["input", "focus"]) {
      this.slider.addEventListener(event, () => this.point(Number(this.slider.value)));
    }
    this.slider.addEventListener("keydown", (event) => event.key === "Enter" && this.show());
    const button = element("button", { type: "button", click: this.show }, "Show this query");
    figure.append(this.slider, this.text, button);
    this.name(0);
  }

  draw() {
    super.draw();
    const { over } = this.plot;
    over.addEventListener("mousedown", (event) => { this.pressed = event.clientX; });
    over.addEventListener("click", (event) => {
      if (Math.abs(event.clientX - this.pressed) < DRAG) this.show();
    });
  }

  interaction() {
    return {
      legend: this.legend(false), // the line below names the query and its values
      cursor: {
        y: false,
        move: (plot, left, top) => [plot.valToPos(plot.posToIdx(left), "x"), top],
        bind: { mouseleave: () => null }, // the query stays marked
        drag: { dist: DRAG, click: () => null }, // uPlot takes a click beside a column for a drag
      },
      hooks: {
        setCursor: [(plot) => this.name(plot.cursor.idx)],
        draw: [() => this.point(Number(this.slider.value))],
      },
    };
  }

  // Places in an order need no numbers.
  bottom() {
    const values = (plot, places) => places.map(() => "");
    const none = { show: false };
    return { ...super.bottom(), values, size: 8, grid: none, ticks: none };
  }

  query() {
    return this.byNumber.get(this.chart.queries[Number(this.slider.value)]);
  }

  // Puts the marker on a column.
  point(column) {
    this.plot.setCursor({ left: this.plot.valToPos(column, "x"), top: 0 });
    this.name(column);
  }

  // Says which query a column is.
  name(column) {
    if (column === null || column === undefined) return;
    this.slider.value = column;
    const query = this.query();
    const values = this.content.methods.map((method, number) =>
      `${method.label} ${percent(query.precisions[this.protocol][number])}`);
    this.text.textContent = `${query.name}: ${values.join(", ")}`;
    this.slider.setAttribute("aria-valuetext", this.text.textContent);
  }
}

// Of the labels of an axis, in pixels.
function labelWidth(plot, labels) {
  return 14 + 8 * Math.max(...(labels || [""]).map((label) => label.length));
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
