// A study: its series as pictures, and a look through one of them. Helpers and rules are those of page.js.
"use strict";

// Instances of a series that one question asks for.
const LIST_ROWS = 1000;
// Pictures that are asked for before they are looked at.
const AHEAD = 4;
const CINE_MS = 66;

const dialog = byId("study");
const picture = byId("picture");
let study;        // the address of the study that is open
let frames = [];  // of the series that is shown: addresses, in the order of acquisition
let at = 0;
let cine;
let view;         // what is done to the picture here: zoom, shift, inversion

const json = async (address) => {
  const response = await fetch(address, { headers: { Accept: "application/dicom+json" } });
  if (response.status === 204) return [];
  if (!response.ok) throw new Error(await response.text());
  return response.json();
};
const said = (error) => (error instanceof TypeError ? "This node does not answer." : error.message);
const number = (row, tag) => Number(row[tag]?.Value?.[0] ?? 0);

// --- the study and its series ---

// Opens it, and one of its series, if that is asked for.
async function openStudy(row, series) {
  study = `dicom-web/studies/${encodeURIComponent(text(row, "0020000D"))}`;
  byId("study-title").textContent = [name(row) || "no name", date(row), text(row, "00081030")].filter(Boolean).join(" · ");
  byId("zip").href = `${study}?accept=application/zip`;
  byId("study-answer").textContent = "looking …";
  byId("series").replaceChildren();
  byId("viewer").hidden = true;
  if (!dialog.open) dialog.showModal();
  link({ study: text(row, "0020000D") });
  const mine = study;
  try {
    const rows = await json(`${study}/series?includefield=0008103E&includefield=00201209`);
    if (mine !== study) return;
    rows.sort((one, other) => number(one, "00200011") - number(other, "00200011"));
    byId("study-answer").textContent = rows.length ? "" : "This study holds nothing any more.";
    byId("series").replaceChildren(...rows.map(card));
    const wanted = rows.find((each) => text(each, "0020000E") === series);
    if (wanted) openSeries(wanted);
  } catch (error) {
    if (mine === study) byId("study-answer").textContent = said(error);
  }
}

const addressOfSeries = (row) => `${study}/series/${encodeURIComponent(text(row, "0020000E"))}`;
const what = (row) => [text(row, "00080060"), text(row, "0008103E")].filter(Boolean).join(" ") || "series";
const link = (keys) => history.replaceState(null, "", `#${new URLSearchParams(keys)}`);

function card(row) {
  const item = make("li");
  const button = make("button", undefined, "card");
  button.type = "button";
  const small = make("img");
  small.src = `${addressOfSeries(row)}/thumbnail`;
  small.alt = "";
  small.loading = "lazy";
  small.width = 128;
  small.height = 128;
  // A report, a waveform, or what no decoder here knows: a word instead of a picture.
  small.addEventListener("error", () => small.replaceWith(make("span", text(row, "00080060") || "no picture", "no-picture")));
  button.append(small, make("span", what(row)), make("span", plural(number(row, "00201209"), "image", "images"), "quiet"));
  button.addEventListener("click", () => openSeries(row));
  item.append(button);
  return item;
}

// --- a look through a series ---

async function openSeries(series) {
  const [mine, address] = [study, addressOfSeries(series)];
  stop();
  link({ study: text(series, "0020000D"), series: text(series, "0020000E") });
  byId("study-answer").textContent = "looking …";
  try {
    const rows = [];
    for (let more = LIST_ROWS; more === LIST_ROWS;) {
      const some = await json(`${address}/instances?includefield=00280008&limit=${LIST_ROWS}&offset=${rows.length}`);
      rows.push(...some);
      more = some.length;
    }
    if (mine !== study) return;
    rows.sort((one, other) => number(one, "00200013") - number(other, "00200013"));
    frames = rows.flatMap((row) => {
      const instance = `${address}/instances/${encodeURIComponent(text(row, "00080018"))}`;
      const several = Math.max(1, number(row, "00280008"));
      return Array.from({ length: several }, (_, frame) => `${instance}/frames/${frame + 1}/rendered`);
    });
    byId("study-answer").textContent = frames.length ? "" : "This series holds nothing any more.";
    byId("viewer").hidden = frames.length === 0;
    byId("viewer-title").textContent = what(series);
    byId("slice").max = String(Math.max(1, frames.length));
    byId("window").reset();
    straighten();
    go(0);
    byId("stage").focus();
  } catch (error) {
    if (mine === study) byId("study-answer").textContent = said(error);
  }
}

// The address of a picture, with the window that is asked for.
function addressOf(index) {
  const form = new FormData(byId("window"));
  const [centre, width] = [form.get("centre"), form.get("width")];
  return centre !== "" && Number(width) > 0 ? `${frames[index]}?window=${centre},${width},linear` : frames[index];
}

function go(index) {
  if (!frames.length) return;
  at = Math.min(frames.length - 1, Math.max(0, index));
  picture.src = addressOf(at);
  byId("slice").value = String(at + 1);
  byId("slice").setAttribute("aria-valuetext", `${at + 1} of ${frames.length}`);
  byId("number").textContent = `${count(at + 1)} of ${count(frames.length)}`;
  for (let ahead = 1; ahead <= AHEAD && at + ahead < frames.length; ahead += 1) new Image().src = addressOf(at + ahead);
}

picture.addEventListener("load", () => { byId("viewer-answer").textContent = ""; });
picture.addEventListener("error", async () => {
  if (!picture.getAttribute("src")) return;
  stop();
  const response = await fetch(picture.src).catch(() => undefined);
  byId("viewer-answer").textContent = response ? (response.ok ? "" : await response.text()) : "This node does not answer.";
});

function stop() {
  clearInterval(cine);
  cine = undefined;
  byId("play").textContent = "Play";
}

function play() {
  if (cine) return stop();
  byId("play").textContent = "Stop";
  // The next picture waits for the one before: a slow line shows each, only later.
  cine = setInterval(() => { if (picture.complete) go((at + 1) % frames.length); }, CINE_MS);
}

function straighten() {
  view = { zoom: 1, x: 0, y: 0, inverted: false };
  look();
}

function look() {
  picture.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
  picture.style.filter = view.inverted ? "invert(1)" : "";
}

function zoom(factor) {
  view.zoom = Math.min(16, Math.max(0.25, view.zoom * factor));
  look();
}

const stage = byId("stage");
const KEYS = {
  ArrowDown: () => go(at + 1), ArrowRight: () => go(at + 1), ArrowUp: () => go(at - 1), ArrowLeft: () => go(at - 1),
  PageDown: () => go(at + 10), PageUp: () => go(at - 10), Home: () => go(0), End: () => go(frames.length - 1),
  "+": () => zoom(1.25), "-": () => zoom(0.8), " ": play,
  i: () => { view.inverted = !view.inverted; look(); },
  r: straighten,
};
stage.addEventListener("keydown", (event) => {
  const act = KEYS[event.key];
  if (!act || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  act();
});
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (event.ctrlKey) zoom(event.deltaY < 0 ? 1.1 : 0.9);
  else go(at + Math.sign(event.deltaY));
}, { passive: false });
stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); });
stage.addEventListener("pointermove", (event) => {
  if (!stage.hasPointerCapture(event.pointerId)) return;
  view.x += event.movementX;
  view.y += event.movementY;
  look();
});

byId("slice").addEventListener("input", () => go(Number(byId("slice").value) - 1));
byId("play").addEventListener("click", play);
byId("invert").addEventListener("click", KEYS.i);
byId("straight").addEventListener("click", straighten);
byId("window").addEventListener("input", () => go(at));
byId("window").addEventListener("reset", () => setTimeout(() => go(at), 0));
byId("window").addEventListener("submit", (event) => event.preventDefault());
byId("shut").addEventListener("click", () => dialog.close());

// A link to a study, or to a series of it: #study=UID&series=UID.
async function followLink() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const uid = asked.get("study");
  if (!uid) return;
  try {
    const keys = new URLSearchParams({ StudyInstanceUID: uid, includefield: "00081030" });
    const [row] = await json(`dicom-web/studies?${keys}`);
    if (row) openStudy(row, asked.get("series"));
    else byId("answer").textContent = "The study of this link is not here.";
  } catch (error) {
    byId("answer").textContent = said(error);
  }
}

addEventListener("hashchange", followLink);
followLink();
dialog.addEventListener("close", () => {
  history.replaceState(null, "", location.pathname);
  stop();
  study = undefined;
  frames = [];
  picture.removeAttribute("src");
});
