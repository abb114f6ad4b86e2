// The list of queries: search, order, protocol, pages of rows.
const ROWS = 20;

class QueryList {
  constructor(content, onChoose) {
    this.content = content;
    this.onChoose = onChoose;
    this.protocol = Math.max(content.protocols.indexOf("medium"), 0);
    this.orders = this.possibleOrders();
    this.order = "chosen";
    this.words = "";
    this.page = 0;
    this.current = null;
    this.status = element("p", { class: "note", role: "status" });
    this.head = element("tr");
    this.body = element("tbody");
    const table = element("table", { class: "list" }, element("thead", {}, this.head), this.body);
    this.back = element("button", { type: "button", click: () => this.turn(-1) }, "Earlier");
    this.on = element("button", { type: "button", click: () => this.turn(1) }, "Later");
    this.node = element("div", {}, this.controls(),
      element("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Queries" }, table),
      element("div", { class: "controls" }, this.back, this.on, this.status));
    this.refresh();
  }

  controls() {
    const search = element("input", { type: "search" });
    search.addEventListener("input", () => this.restart({ words: search.value.toLowerCase() }));
    const protocols = this.content.protocols.map((name, number) => [number, capital(name)]);
    const orders = Object.entries(this.orders).map(([name, { text }]) => [name, text]);
    return element("div", { class: "controls" },
      labelled("Search names", search),
      labelled("Protocol", choice(protocols, this.protocol, (value) => {
        this.restart({ protocol: Number(value) });
        if (this.current) this.onChoose(this.current, this.protocol, false);
      })),
      labelled("Sort by", choice(orders, this.order, (value) => this.restart({ order: value }))));
  }

  // How queries can be sorted; those without a value go last.
  possibleOrders() {
    const precision = (query, method) => query.precisions[this.protocol][method];
    const orders = {
      chosen: { text: "as chosen", value: null },
      name: { text: "name", value: (query) => query.name },
    };
    this.content.methods.forEach((method, number) => {
      const value = (query) => precision(query, number);
      orders[`least${number}`] = { text: `${method.label}, worst first`, value };
      for (const [kind, other] of [["first stage", method.firstStage], ["run 1", method.baseline]]) {
        if (other === null) continue;
        const gain = (query) => difference(precision(query, number), precision(query, other));
        orders[`gain${kind}${number}`] = {
          text: `${method.label}, gain over ${kind}`,
          value: (query) => (gain(query) === null ? null : -gain(query)),
        };
        orders[`loss${kind}${number}`] = { text: `${method.label}, loss to ${kind}`, value: gain };
      }
    });
    return orders;
  }

  restart(change) {
    Object.assign(this, change, { page: 0 });
    this.refresh();
  }

  turn(pages) {
    this.page += pages;
    this.refresh();
  }

  sorted() {
    const found = this.content.queries.filter((query) =>
      query.name.toLowerCase().includes(this.words));
    const { value } = this.orders[this.order];
    if (!value) return found;
    const rank = (query) => value(query) ?? Infinity;
    return found.sort((a, b) => (rank(a) < rank(b) ? -1 : rank(a) > rank(b) ? 1 : 0));
  }

  refresh() {
    const found = this.sorted();
    const start = this.page * ROWS;
    this.head.replaceChildren(...["query", ...this.content.methods.map((method) => method.label)]
      .map((text) => element("th", { scope: "col" }, text)));
    this.body.replaceChildren(...found.slice(start, start + ROWS).map((query) => this.row(query)));
    this.back.disabled = this.page === 0;
    this.on.disabled = start + ROWS >= found.length;
    const end = Math.min(start + ROWS, found.length);
    this.status.textContent = found.length
      ? `${start + 1} to ${end} of ${found.length} queries; average precision in percent`
      : "no query of that name";
  }

  row(query) {
    const choose = () => this.choose(query, true);
    const cells = query.precisions[this.protocol].map((value) => element("td", {}, percent(value)));
    return element("tr", { "aria-current": query === this.current ? "true" : null },
      element("td", {}, element("button", { type: "button", click: choose }, query.name)), cells);
  }

  choose(query, focus) {
    this.current = query;
    [...this.body.rows].forEach((row) => row.removeAttribute("aria-current"));
    this.onChoose(query, this.protocol, focus);
  }
}
