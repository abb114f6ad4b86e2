// The list of results: cards of equal size, a line below which results are unlikely, groups by folder.

const END = 14; // characters at the end of a name, which tell names apart and are always seen

const LEVELS = {
  strong: "strong match",
  weak: "weak match",
  chance: "could be chance",
};

/** The folder of a name, "" if it has none. */
export function folderOf(name) {
  return name.includes("/") ? name.slice(0, name.lastIndexOf("/")) : "";
}

/** Copies a text; where pages may not, it says so. */
export async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}

function make(kind, className, text = "") {
  const made = document.createElement(kind);
  made.className = className;
  made.textContent = text;
  return made;
}

function format(score) {
  return Number.isInteger(score) ? String(score) : score.toPrecision(4);
}

function card(hit, unit, show) {
  const item = make("li", "card");
  const button = make("button", "show");
  button.type = "button";
  button.setAttribute("aria-label", `Compare with result ${hit.rank}, ${hit.name}`);
  const picture = document.createElement("img");
  picture.src = `/api/image/${hit.image}?size=192`;
  picture.alt = "";
  picture.loading = "lazy";
  button.append(picture);
  button.addEventListener("click", () => show(hit));
  const facts = make("div", "facts");
  const name = make("span", "name");
  name.append(make("span", "head", hit.name.slice(0, -END)), make("span", "tail", hit.name.slice(-END)));
  name.title = hit.name;
  facts.append(name);
  if (hit.level) facts.append(make("span", `level ${hit.level}`, LEVELS[hit.level]));
  const score = hit.score === null ? "not in the short list" : `${unit} ${format(hit.score)}`;
  facts.append(make("span", "score", score));
  const copier = make("button", "copy", "Copy");
  copier.type = "button";
  copier.setAttribute("aria-label", `Copy the path of result ${hit.rank}`);
  copier.addEventListener("click", () => copy(copier, hit.name));
  facts.append(copier);
  item.append(button, make("span", "rank", String(hit.rank)), facts);
  return item;
}

function list(hits, unit, show, likely) {
  const made = document.createElement("ol");
  for (const hit of hits) {
    if (likely && hit.rank === likely + 1) {
      made.append(make("li", "divider", "Results below are unlikely to show the same place."));
    }
    made.append(card(hit, unit, show));
  }
  return made;
}

/**
 * @param {HTMLElement} area to fill
 * @param {Array} hits with `rank`, `name`, `image`, `score`, and `level` if it is known
 * @param {{unit: string, likely: number|null, grouped: boolean}} options
 * @param {function} show compares a hit with the query
 */
export function drawResults(area, hits, options, show) {
  if (!options.grouped) {
    area.replaceChildren(list(hits, options.unit, show, options.likely));
    return;
  }
  const groups = new Map();
  for (const hit of hits) {
    const folder = folderOf(hit.name);
    groups.set(folder, [...(groups.get(folder) ?? []), hit]);
  }
  const parts = [...groups].flatMap(([folder, some]) => [
    make("h2", "", `${folder || "No folder"} (${some.length})`),
    list(some, options.unit, show, null),
  ]);
  area.replaceChildren(...parts);
}
