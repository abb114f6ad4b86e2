for (const [number, group] of document.querySelectorAll(".group").entries()) {
  const content = JSON.parse(group.querySelector("script.content").textContent);
  const view = new FoundView(content, new PairDialog(content, number));
  const list = new QueryList(content, (query, protocol, focus) => {
    view.show(query, protocol);
    list.refresh();
    if (!focus) return;
    view.node.focus({ preventScroll: true }); // it would centre the view, its heading out of sight
    view.node.scrollIntoView({ block: "start" });
  });
  group.querySelector(".explorer").replaceChildren(list.node, view.node);
  for (const figure of group.querySelectorAll("figure.chart")) {
    if (JSON.parse(figure.dataset.chart).queries === null) new LineChart(figure);
    else new QueryChart(figure, content, (query) => list.choose(query, true));
  }
  if (content.queries.length) list.choose(content.queries[0], false);
}
for (const figure of document.querySelectorAll("section:not(.group) > .charts > figure")) {
  new LineChart(figure);
}
