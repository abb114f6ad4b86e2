for (const [number, group] of document.querySelectorAll(".group").entries()) {
  const content = JSON.parse(group.querySelector("script.content").textContent);
  const view = new FoundView(content, new PairDialog(content, number));
  const list = new QueryList(content, (query, protocol, focus) => {
    view.show(query, protocol);
    list.refresh();
    if (focus) view.node.focus();
  });
  group.querySelector(".explorer").replaceChildren(list.node, view.node);
  for (const figure of group.querySelectorAll("figure.chart")) {
    if (JSON.parse(figure.dataset.chart).queries === null) new LineChart(figure);
    else new QueryChart(figure, content, (query) => list.choose(query, true));
  }
}
for (const figure of document.querySelectorAll("section:not(.group) > .charts > figure")) {
  new LineChart(figure);
}
