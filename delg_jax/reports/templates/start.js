for (const [number, group] of document.querySelectorAll(".group").entries()) {
  const content = JSON.parse(group.querySelector("script.content").textContent);
  const view = new FoundView(content, new PairDialog(content, number));
  const list = new QueryList(content, (query, protocol, focus) => {
    view.show(query, protocol);
    list.refresh();
    if (focus) view.node.focus();
  });
  group.querySelector(".explorer").replaceChildren(list.node, view.node);
  for (const figure of group.querySelectorAll("[data-order]")) {
    new QueryPlot(figure, content, (query) => list.choose(query, true));
  }
}
