// The page of a node. Whatever comes from the archive is written as text, never as markup.
"use strict";

const PAGE_ROWS = 25;
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
// Between two looks at the studies that nobody asked for.
const REFRESH_MS = 2000;
let offset = 0;
let asked = 0;

function make(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

const count = (value) => new Intl.NumberFormat("en").format(value);
const plural = (value, one, many) => `${count(value)} ${value === 1 ? one : many}`;

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${unit && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

// --- the cluster ---

function bar(part, whole, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 6");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  for (const [kind, width] of [["bar-ground", 100], ["bar-fill", whole ? (100 * part) / whole : 0]]) {
    const rect = document.createElementNS(SVG, "rect");
    rect.setAttribute("class", kind);
    rect.setAttribute("width", String(width));
    rect.setAttribute("height", "6");
    svg.append(rect);
  }
  return svg;
}

function panel(node, groups, answeredBy) {
  const item = make("li", undefined, "panel");
  item.dataset.health = node.health;
  const title = make("h3", node.name);
  title.append(make("span", node.health));
  const votes = groups.filter((group) => group.voters.includes(node.name)).length;
  const leads = groups.filter((group) => group.leader === node.name).length;
  const leading = `leads ${count(leads)} of ${plural(groups.length, "group", "groups")}`;
  item.append(title, bar(leads, groups.length, leading), make("p", leading));
  item.append(make("p", `keeps copies of ${plural(votes, "group", "groups")}`));
  if (node.lag_entries > 0) item.append(make("p", `${plural(node.lag_entries, "entry", "entries")} behind`));
  if (node.name === answeredBy) item.append(make("p", "answers this page"));
  else if (node.last_contact_ms !== null && node.health !== "up") {
    item.append(make("p", `last heard from ${plural(Math.round(node.last_contact_ms / 1000), "second", "seconds")} ago`));
  }
  if (node.peer_address) item.append(make("p", node.peer_address));
  return item;
}

function showCluster(cluster) {
  byId("phase").textContent = `${cluster.answered_by}: ${cluster.phase}`;
  const leaderless = cluster.groups.filter((group) => !group.leader).length;
  const down = cluster.nodes.filter((node) => node.health === "down").length;
  const survives = byId("survives");
  const more = cluster.survives_failures;
  if (leaderless > 0) {
    survives.dataset.state = "bad";
    survives.textContent = "Part of the archive takes no new images now.";
  } else if (more > 0) {
    survives.dataset.state = down ? "odd" : "good";
    survives.textContent = `Survives ${plural(more, "more failure", "more failures")}.`;
  } else {
    survives.dataset.state = cluster.replication_factor > 1 ? "odd" : "";
    survives.textContent = cluster.replication_factor > 1
      ? "The next failure of a node stops new images. What is held stays safe."
      : "One node, one copy: keep a backup.";
  }
  const warning = byId("leaderless");
  warning.hidden = leaderless === 0;
  warning.textContent = `${plural(leaderless, "group has", "groups have")} no leader: they wait for a majority of their nodes.`;
  byId("panels").replaceChildren(...cluster.nodes.map((node) => panel(node, cluster.groups, cluster.answered_by)));
}

function showTotals(totals) {
  const names = [["Patients", totals.patients], ["Studies", totals.studies], ["Series", totals.series],
    ["Images", totals.instances]].map(([name, value]) => [name, count(value)]);
  names.push(["Size", size(totals.bytes)]);
  if (totals.versions > 0) names.push(["Other versions", count(totals.versions)]);
  byId("totals").replaceChildren(...names.map(([name, text]) => {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", text));
    return pair;
  }));
}

function listen() {
  const live = byId("live");
  const source = new EventSource("api/events");
  source.addEventListener("state", (event) => {
    const state = JSON.parse(event.data);
    live.dataset.state = "on";
    live.textContent = "live";
    showCluster(state.cluster);
    showTotals(state.totals);
    heard(state.totals);
  });
  source.addEventListener("error", () => {
    live.dataset.state = "off";
    live.textContent = "no answer from this node";
    // The browser gives up after an answer that is no stream: then we begin anew.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

// --- the studies ---

function text(row, tag) {
  const values = (row[tag] && row[tag].Value) || [];
  return values.filter((value) => value !== null)
    .map((value) => (typeof value === "object" ? value.Alphabetic || value.Ideographic || value.Phonetic || "" : String(value)))
    .join(", ");
}

const name = (row) => text(row, "00100010").split("^").filter(Boolean).join(", ");
const date = (row) => text(row, "00080020").replace(/^(\d{4})(\d{2})(\d{2})$/, "$1-$2-$3");

// What was asked for last: what somebody is still typing is not.
let wanted = new URLSearchParams();

function read() {
  const form = new FormData(byId("search"));
  wanted = new URLSearchParams();
  for (const key of ["PatientName", "PatientID"]) {
    const value = form.get(key).trim();
    if (value) wanted.set(key, value.includes("*") || key === "PatientID" ? value : `${value}*`);
  }
  const [from, to] = ["from", "to"].map((key) => form.get(key).replaceAll("-", ""));
  if (from || to) wanted.set("StudyDate", from === to ? from : `${from}-${to}`);
}

async function studies() {
  const keys = new URLSearchParams(wanted);
  keys.set("limit", String(PAGE_ROWS + 1));
  keys.set("offset", String(offset));
  keys.append("includefield", "00081030");
  const response = await fetch(`dicom-web/studies?${keys}`, { headers: { Accept: "application/dicom+json" } });
  if (response.ok) return response.json();
  throw new Error(await response.text());
}

function line(row) {
  const made = make("tr");
  const who = make("td");
  const open = make("button", name(row) || "no name", "link");
  open.type = "button";
  open.addEventListener("click", () => openStudy(row));
  who.append(open);
  made.append(who, make("td", text(row, "00100020")), make("td", date(row), "plain"));
  made.append(make("td", text(row, "00080061")), make("td", text(row, "00081030")));
  made.append(make("td", text(row, "00201206"), "number"), make("td", text(row, "00201208"), "number"));
  made.dataset.study = text(row, "0020000D");
  return made;
}

// Lines that are the same stay the same nodes, so that a selection, or where one reads, is not lost.
function show(rows, fresh) {
  const body = byId("rows");
  const known = new Map([...body.children].map((node) => [node.dataset.study, node]));
  const lines = rows.slice(0, PAGE_ROWS).map((row) => {
    const made = line(row);
    const old = known.get(made.dataset.study);
    if (old && old.textContent === made.textContent && old.children.length === made.children.length) return old;
    if (fresh) made.className = "changed";
    return made;
  });
  const same = lines.length === body.children.length && lines.every((node, at) => node === body.children[at]);
  if (!same) body.replaceChildren(...lines);
  byId("answer").textContent = lines.length ? "" : offset ? "No older studies." : "No study matches.";
  byId("place").textContent = lines.length ? `${count(offset + 1)} to ${count(offset + lines.length)}` : "";
  byId("back").disabled = offset === 0;
  byId("on").disabled = rows.length <= PAGE_ROWS;
}

async function search() {
  asked += 1;
  const mine = asked;
  byId("answer").textContent = "searching …";
  try {
    const rows = await studies();
    if (mine === asked) show(rows, false);
  } catch (error) {
    if (mine !== asked) return;
    show([], false);
    byId("answer").textContent = error instanceof TypeError
      ? "This node does not answer. Try again, or open the page of another." : error.message;
  }
}

// Looks again, unasked: what is shown stays until there is something else to show.
async function refresh() {
  const mine = asked;
  const first = byId("rows").firstElementChild?.dataset.study;
  try {
    let rows = await studies();
    // Newer studies came before those on this page: it moves with them.
    const moved = offset > 0 ? rows.findIndex((row) => text(row, "0020000D") === first) : 0;
    if (moved > 0 && mine === asked) {
      offset += moved;
      rows = await studies();
    }
    if (mine === asked) show(rows, true);
  } catch {
    // The next news will bring another look.
  }
}

let seen;
let waiting;

function heard(totals) {
  const now = JSON.stringify(totals);
  const changed = seen !== undefined && seen !== now;
  seen = now;
  if (!changed || waiting) return;
  waiting = setTimeout(() => {
    waiting = undefined;
    if (!document.hidden) refresh();
  }, REFRESH_MS);
}

// --- the peers ---

const PEERS_MS = 10000;
let peersShown;

// What is not as usual.
function rules(peer) {
  const said = [];
  if (peer.associations_max) said.push(`at most ${peer.associations_max} at once`);
  if (peer.other_content !== "keep") said.push(`other content: ${peer.other_content}`);
  if (peer.hierarchy !== "strict") said.push(`queries: ${peer.hierarchy}`);
  if (peer.unknown_classes !== "accept") said.push(`unknown classes: ${peer.unknown_classes}`);
  if (peer.transfer_syntaxes.length) said.push(`sent in ${peer.transfer_syntaxes.join(" ")}`);
  if (peer.notify) said.push("is told what is available");
  if (peer.coerce?.length) said.push(`is shown: ${peer.coerce.join("; ")}`);
  if (peer.notes) said.push(peer.notes);
  return said.join(" · ");
}

// The answer of a peer, in its own cell.
function echoCell(ae, address) {
  const cell = make("td", undefined, "plain");
  if (!address) return cell;
  const button = make("button", "Echo");
  button.type = "button";
  button.setAttribute("aria-label", `Echo ${ae}`);
  const said = make("span", "", "said");
  said.setAttribute("role", "status");
  button.addEventListener("click", async () => {
    button.disabled = true;
    delete said.dataset.state;
    said.textContent = "asking …";
    try {
      const response = await fetch(`api/peers/${encodeURIComponent(ae)}/echo`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: "{}",
      });
      if (!response.ok) throw new Error(await response.text());
      const answer = await response.json();
      said.dataset.state = answer.ok ? "good" : "bad";
      said.textContent = answer.ok ? `${answer.milliseconds.toFixed(1)} ms` : answer.why;
    } catch (error) {
      said.dataset.state = "bad";
      said.textContent = error instanceof TypeError ? "This node does not answer." : error.message;
    }
    button.disabled = false;
  });
  cell.append(button, " ", said);
  return cell;
}

function peerLine(ae, address, may, from, rest) {
  const made = make("tr");
  made.append(make("td", ae === "*" ? "all that are not listed" : ae), make("td", address || "–"), make("td", may));
  made.append(make("td", from), make("td", rest), echoCell(ae, address));
  return made;
}

async function peers() {
  try {
    const response = await fetch("api/peers", { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(await response.text());
    const text = await response.text();
    byId("peers-answer").textContent = "";
    // What is the same stays, with the answers to echoes in it.
    if (text === peersShown) return;
    peersShown = text;
    const list = JSON.parse(text);
    const listed = [list.anybody, ...list.peers.filter((peer) => peer.ae !== "*")];
    const lines = listed.map((peer) => peer.ae === "*dicomweb"
      ? peerLine("DICOMweb clients", null, "as it is given", "anywhere", rules(peer))
      : peerLine(peer.ae, peer.address, peer.rights.join(", ") || "nothing",
      peer.networks.join(", ") || "anywhere", rules(peer)));
    const remotes = list.command_line.filter((remote) => remote.in_force);
    lines.push(...remotes.map((remote) => peerLine(remote.ae, remote.address, "as not listed", "anywhere",
      "from the command line of this node")));
    byId("peers").replaceChildren(...lines);
  } catch (error) {
    byId("peers-answer").textContent = error instanceof TypeError ? "This node does not answer." : error.message;
  }
}

setInterval(() => { if (!document.hidden) peers(); }, PEERS_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) { refresh(); peers(); } });
byId("search").addEventListener("submit", (event) => { event.preventDefault(); offset = 0; read(); search(); });
byId("search").addEventListener("reset", () => { offset = 0; setTimeout(() => { read(); search(); }, 0); });
byId("back").addEventListener("click", () => { offset = Math.max(0, offset - PAGE_ROWS); search(); });
byId("on").addEventListener("click", () => { offset += PAGE_ROWS; search(); });
listen();
read();
search();
peers();
