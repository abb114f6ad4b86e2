// The search page. Whatever comes from the server is set as text, never as HTML.

import { Box } from "/box.js";
import { drawMatches } from "/matches.js";

const at = (id) => document.getElementById(id);
const box = new Box(at("preview"), at("picture"), at("frame"), ["x1", "y1", "x2", "y2"].map(at));
let about = null; // what /api/about says
let file = null; // the picture
let found = null; // the answer to the last search
let running = null; // aborts the running search

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `The server answered ${response.status}.`);
  return answer;
}

function say(status, error = "") {
  at("status").textContent = status;
  at("error").textContent = error;
}

function choose(chosen) {
  if (!chosen) return;
  if (about && chosen.size > about.upload_bytes) {
    say("", `The picture has ${chosen.size} bytes; ${about.upload_bytes} are allowed.`);
    return;
  }
  file = chosen;
  URL.revokeObjectURL(at("picture").src);
  at("picture").src = URL.createObjectURL(file);
  at("query").hidden = false;
  at("search").disabled = false;
  box.clear();
  say("");
  search();
}

async function search() {
  if (!file || !about) return;
  running?.abort();
  const mine = new AbortController();
  running = mine;
  try {
    const asked = new URLSearchParams({ method: at("method").value, top: at("top").value });
    const region = box.text();
    if (region) asked.set("box", region);
    say("Searching … (the first picture of a size takes longer)");
    const headers = { "Content-Type": file.type.startsWith("image/") ? file.type : "image/unknown" };
    const options = { method: "POST", body: file, headers, signal: mine.signal };
    const started = performance.now();
    found = await ask(`/api/search?${asked}`, options);
    show(asked.get("method"), performance.now() - started);
  } catch (error) {
    if (error.name === "AbortError") return;
    at("results").replaceChildren();
    at("timings").textContent = "";
    say("", error.message);
  }
}

function show(method, total) {
  const unit = method.endsWith("+sp") ? "inliers" : "score";
  const spans = Object.entries({ ...found.milliseconds, "total including transfer": total });
  at("timings").textContent = spans.map(([stage, ms]) => `${stage} ${ms.toFixed(1)} ms`).join(" · ");
  at("results").replaceChildren(...found.hits.map((hit, index) => result(hit, index + 1, unit)));
  say(`${found.hits.length} results by ${method}`);
}

function result(hit, rank, unit) {
  const item = document.createElement("li");
  const button = document.createElement(about.matches ? "button" : "div");
  const picture = document.createElement("img");
  picture.src = `/api/image/${hit.image}?size=192`;
  picture.alt = "";
  picture.loading = "lazy";
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = `${rank}. ${hit.name}`;
  const score = document.createElement("span");
  score.className = "score";
  score.textContent = hit.score === null ? "not in the short list" : `${unit} ${format(hit.score)}`;
  button.append(picture, name, score);
  if (about.matches) {
    button.type = "button";
    button.addEventListener("click", () => compare(hit));
  }
  item.append(button);
  return item;
}

function format(score) {
  return Number.isInteger(score) ? String(score) : score.toPrecision(4);
}

async function compare(hit) {
  at("title").textContent = hit.name;
  at("summary").textContent = "Matching …";
  at("drawing").replaceChildren();
  at("dialog").showModal();
  try {
    const body = JSON.stringify({ query: found.query, image: hit.image });
    const headers = { "Content-Type": "application/json" };
    const pair = await ask("/api/matches", { method: "POST", body, headers });
    const verdict = pair.verified ? "verified" : "not verified";
    at("summary").textContent =
      `${pair.lines.length} matches, ${pair.inliers} inliers (${verdict}), ` +
      `${pair.milliseconds.toFixed(1)} ms`;
    const urls = [at("picture").src, `/api/image/${hit.image}?size=768`];
    drawMatches(at("drawing"), urls, pair, window.innerWidth < 700);
  } catch (error) {
    at("summary").textContent = error.message;
  }
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
at("file").addEventListener("change", () => choose(at("file").files[0]));
at("method").addEventListener("change", search);
at("whole").addEventListener("click", () => { box.clear(); search(); });
at("preview").addEventListener("pointerup", search);
at("close").addEventListener("click", () => at("dialog").close());
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

try {
  about = await ask("/api/about");
  at("images").textContent = about.images;
  at("top").max = about.most_hits;
  at("method").replaceChildren(...about.methods.map((method) => new Option(method)));
  if (file) search();
} catch (error) {
  say("", error.message);
}
