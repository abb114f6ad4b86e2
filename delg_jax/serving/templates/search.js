// The search page. Whatever comes from the server is set as text, never as HTML.

import { Box } from "/box.js";
import { drawMatches, drawPair } from "/matches.js";
import { copy, drawResults } from "/results.js";

const PAGE = 24; // results at a time
const LABELS = { global: "Pictures that look alike (fast)", local: "The same details" };
const at = (id) => document.getElementById(id);
const box = new Box(at("preview"), at("picture"), at("frame"), ["x1", "y1", "x2", "y2"].map(at));
let about = null; // what /api/about says
let file = null; // the picture
let like = null; // index of the image of the database that is the picture
let found = null; // the answer to the last search
let shown = null; // the hit in the dialog
let wantedCount = PAGE;
let running = null; // aborts the running search
let clock = null;
let comparing = null; // aborts the running comparison

const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is delg search --serve still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `The server answered ${response.status}.`);
  return answer;
}

function say(status, error = "") {
  at("status").textContent = status;
  at("error").textContent = error;
  if (error) at("error").scrollIntoView({ block: "nearest" });
}

/** Keeps what is chosen in the address, so that a reload or a bookmark restores it. */
function remember() {
  const state = new URLSearchParams();
  if (at("method").selectedIndex > 0) state.set("method", at("method").value);
  if (at("grouped").checked) state.set("grouped", "1");
  if (like !== null) state.set("like", like);
  if (like !== null && wantedCount !== PAGE) state.set("top", wantedCount);
  const region = regionOrNothing();
  if (like !== null && region) state.set("box", region);
  if (like !== null && shown) state.set("pair", shown.image);
  history.replaceState(null, "", `${location.pathname}${state.size ? `?${state}` : ""}`);
}

function regionOrNothing() {
  try {
    return box.text();
  } catch {
    return "";
  }
}

function choose(chosen, image = null, region = "") {
  if (!chosen) return;
  if (about && chosen.size > about.upload_bytes) {
    const limit = megabytes(about.upload_bytes);
    say("", `The picture has ${megabytes(chosen.size)}; at most ${limit} are allowed.`);
    return;
  }
  file = chosen;
  like = image;
  wantedCount = PAGE;
  URL.revokeObjectURL(at("picture").src);
  at("picture").src = URL.createObjectURL(file);
  at("query").hidden = false;
  at("examples").hidden = true;
  at("drop").classList.add("small");
  at("search").disabled = false;
  if (region) box.set(region.split(","));
  else box.clear();
  say("");
  return search();
}

/** Searches with an image of the database. */
async function chooseImage(image, region = "") {
  try {
    const response = await fetch(`/api/original/${image}`);
    if (!response.ok) throw new Error((await response.json()).error);
    return choose(await response.blob(), image, region);
  } catch (error) {
    say("", error.message);
  }
}

function wait(mine) {
  const started = performance.now();
  const tick = () => {
    at("elapsed").textContent = `Searching, ${Math.round((performance.now() - started) / 1000)} s`;
  };
  tick();
  clearInterval(clock);
  clock = setInterval(tick, 500);
  at("progress").hidden = false;
  at("results").classList.add("old");
  at("results").setAttribute("aria-busy", "true");
  return () => {
    if (running !== mine) return;
    running = null;
    clearInterval(clock);
    at("progress").hidden = true;
    at("results").classList.remove("old");
    at("results").removeAttribute("aria-busy");
  };
}

async function search(more = false) {
  if (!file || !about) return;
  running?.abort();
  const mine = new AbortController();
  let done = () => {};
  try {
    const method = at("method").value;
    const asked = new URLSearchParams({ method, top: wantedCount, judge: 1 });
    const region = box.text();
    at("whole").hidden = !region;
    if (region) asked.set("box", region);
    running = mine;
    done = wait(mine);
    say("");
    remember();
    const headers = { "Content-Type": file.type.startsWith("image/") ? file.type : "image/unknown" };
    const options = { method: "POST", body: file, headers, signal: mine.signal };
    const started = performance.now();
    found = await ask(`/api/search?${asked}`, options);
    found.method = method;
    show(performance.now() - started);
    done();
    if (!more && innerWidth < 700) at("status").scrollIntoView();
  } catch (error) {
    done();
    if (error.name === "AbortError") return;
    found = null;
    at("results").replaceChildren();
    at("timings").hidden = at("more").hidden = true;
    at("verdict").textContent = "";
    say("", error.message);
  }
}

function show(total) {
  found.hits.forEach((hit, index) => { hit.rank = index + 1; });
  const spans = Object.entries({ ...found.milliseconds, "total including transfer": total });
  at("spans").textContent = spans.map(([stage, ms]) => `${stage} ${ms.toFixed(1)} ms`).join(" · ");
  at("timings").hidden = false;
  at("more").hidden = found.hits.length < wantedCount || wantedCount >= about.most_hits;
  at("verdict").textContent = found.likely === 0
    ? "Probably not there: no photograph matches better than wrong ones do by chance." : "";
  draw();
  say(`${found.hits.length} results`);
}

function draw() {
  if (!found) return;
  const unit = found.method.endsWith("+sp") ? "inliers" : "score";
  const options = { unit, likely: found.likely, grouped: at("grouped").checked };
  drawResults(at("results"), found.hits, options, compare);
}

async function compare(hit) {
  comparing?.abort();
  const mine = new AbortController();
  comparing = mine;
  shown = hit;
  remember();
  at("title").textContent = `Result ${hit.rank} of ${found.hits.length}`;
  at("path").textContent = hit.name;
  at("summary").textContent = about.matches ? "Matching …" : "";
  at("previous").disabled = hit.rank === 1;
  at("next").disabled = hit.rank === found.hits.length;
  at("original").href = at("download").href = `/api/original/${hit.image}`;
  at("download").download = hit.name.slice(hit.name.lastIndexOf("/") + 1);
  if (!at("dialog").open) at("dialog").showModal();
  const urls = [at("picture").src, `/api/image/${hit.image}?size=768`];
  const stacked = innerWidth < 700;
  try {
    const sizes = [found.size, await ask(`/api/size/${hit.image}`, { signal: mine.signal })];
    drawPair(at("drawing"), urls, sizes, stacked);
    if (!about.matches) return;
    const body = JSON.stringify({ query: found.query, image: hit.image });
    const headers = { "Content-Type": "application/json" };
    const pair = await ask("/api/matches", { method: "POST", body, headers, signal: mine.signal });
    const verdict = hit.level ? `a ${hit.level === "chance" ? "match that could be chance" :
      `${hit.level} match`}` : pair.verified ? "verified" : "not verified";
    const needed = found.least ? `; ${found.least.strong} make a strong match` : "";
    at("summary").textContent =
      `${pair.lines.length} features matched, ${pair.inliers} fit one geometry: ${verdict}${needed}`;
    drawMatches(at("drawing"), pair, stacked);
  } catch (error) {
    if (error.name !== "AbortError") at("summary").textContent = error.message;
  }
}

function step(by) {
  const hit = shown && found?.hits[shown.rank - 1 + by];
  if (hit) compare(hit);
}

function offer(images) {
  const count = Math.min(6, images);
  const items = Array.from({ length: count }, (_, index) => {
    const image = Math.floor((index + 0.5) * images / count);
    const item = document.createElement("li");
    const button = document.createElement("button");
    const picture = document.createElement("img");
    button.type = "button";
    button.setAttribute("aria-label", `Search with photograph ${image + 1}`);
    picture.src = `/api/image/${image}?size=192`;
    picture.alt = "";
    picture.addEventListener("error", () => item.remove());
    button.append(picture);
    button.addEventListener("click", () => chooseImage(image));
    item.append(button);
    return item;
  });
  at("examples").querySelector("ul").replaceChildren(...items);
  at("examples").hidden = !count || !at("query").hidden;
}

function offerMethods(methods, best) {
  const plain = methods.filter((method) => method in LABELS && method !== best);
  const advanced = document.createElement("optgroup");
  advanced.label = "Advanced";
  advanced.append(...methods.map((method) => new Option(method)));
  const first = new Option("Best match", best);
  at("method").replaceChildren(
    first, ...plain.map((method) => new Option(LABELS[method], method)), advanced);
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
for (const id of ["file", "camera"]) at(id).addEventListener("change", () => choose(at(id).files[0]));
at("method").addEventListener("change", () => (file ? search() : remember()));
at("grouped").addEventListener("change", () => { draw(); remember(); });
at("whole").addEventListener("click", () => { box.clear(); search(); });
at("preview").addEventListener("pointerup", () => search());
at("more").addEventListener("click", () => {
  wantedCount = Math.min(wantedCount + PAGE, about.most_hits);
  search(true);
});
at("cancel").addEventListener("click", () => {
  const mine = running;
  mine?.abort();
  say("The search was cancelled.");
});
at("close").addEventListener("click", () => at("dialog").close());
at("dialog").addEventListener("close", () => { comparing?.abort(); shown = null; remember(); });
at("dialog").addEventListener("keydown", (event) => {
  if (event.target.matches("input")) return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
at("previous").addEventListener("click", () => step(-1));
at("next").addEventListener("click", () => step(1));
at("copy").addEventListener("click", () => copy(at("copy"), shown.name));
at("lines").addEventListener("change", () => at("drawing").classList.toggle("bare", !at("lines").checked));
at("like").addEventListener("click", () => {
  const { image } = shown;
  at("dialog").close();
  scrollTo({ top: 0 });
  chooseImage(image);
});
at("picture").addEventListener("load", () => { at("unseen").hidden = true; at("preview").hidden = false; });
at("picture").addEventListener("error", () => { at("unseen").hidden = false; at("preview").hidden = true; });
document.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
document.addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  choose(event.dataTransfer.files[0]);
});

async function start() {
  const state = new URLSearchParams(location.search);
  about = await ask("/api/about");
  at("images").textContent = about.images;
  offerMethods(about.methods, about.best);
  if (about.methods.includes(state.get("method"))) at("method").value = state.get("method");
  at("grouped").checked = state.has("grouped");
  if (file) return search();
  offer(about.images);
  if (!state.has("like")) return;
  await chooseImage(Number(state.get("like")), state.get("box") ?? "");
  const wanted = Math.min(Number(state.get("top")) || PAGE, about.most_hits);
  if (found && wanted > wantedCount) {
    wantedCount = wanted;
    await search(true);
  }
  const pair = found?.hits.find((hit) => String(hit.image) === state.get("pair"));
  if (pair) compare(pair);
}

try {
  await start();
} catch (error) {
  say("", error.message);
}
