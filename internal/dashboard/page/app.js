// The page keeps the newest state, and draws all of it anew when it changes. What was chosen is kept by key, not by
// element, so that nothing is lost when Services come and go.
"use strict";

const $ = id => document.getElementById(id);
let state = null, listed = [], chosen = { from: null, to: null }, answer = null, stream = null, asked = 0;

// el makes an element; text never becomes markup.
function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) if (v !== undefined && v !== false) e.setAttribute(k, v === true ? "" : v);
  e.append(...children.filter(c => c !== undefined && c !== null));
  return e;
}

// thing is a button for something that a connection can start from or go to.
function thing({ key, from, to, addresses, label }, ...children) {
  const b = el("button", { type: "button", class: "thing", "data-key": key, "aria-label": label }, ...children);
  b.addEventListener("click", () => choose(key, from, to, addresses));
  return b;
}

function connect() {
  if (stream) stream.close();
  stream = new EventSource("events?text=" + encodeURIComponent($("text").value));
  stream.onmessage = m => { state = JSON.parse(m.data); draw(); if (chosen.from && chosen.to) explain(); };
  stream.onerror = () => say("not connected to the instance: trying again", "bad");
}

function say(text, kind) {
  if ($("summary").textContent !== text) $("summary").textContent = text;
  $("summary").className = kind;
}

function draw() {
  const focused = document.activeElement?.dataset?.key;
  const open = new Set([...document.querySelectorAll("details[open]")].map(d => d.dataset.node));
  listed = backends();
  $("instance").textContent = state.instance;
  $("services").replaceChildren(...state.services.map(s => el("li", {}, serviceThing(s))));
  const hidden = state.matching - state.services.length;
  $("more").hidden = hidden <= 0;
  $("more").textContent = `and ${hidden} more: find them by name, address or label`;
  $("nodes").replaceChildren(...state.nodes.map(n => nodeItem(n, open.has(n.name))), ...outside());
  $("cluster").tBodies[0].replaceChildren(...state.cluster.map(componentRow));
  summarize();
  mark();
  if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function summarize() {
  const all = [...state.cluster, ...state.nodes.flatMap(n => n.components)];
  const failing = all.filter(c => c.error), behind = all.filter(c => !c.error && c.applied < state.revision);
  const away = state.nodes.filter(n => !n.ready).length;
  const parts = [`${state.total} Services on ${state.nodes.length} nodes, revision ${state.revision}`];
  if (away) parts.push(`${away} node${away > 1 ? "s" : ""} not ready`);
  if (failing.length) parts.push(`${failing.length} component${failing.length > 1 ? "s" : ""} failing`);
  if (behind.length) parts.push(`${behind.length} behind`);
  if (parts.length === 1) parts.push("all applied");
  say(parts.join(" · "), failing.length || away ? "bad" : behind.length ? "warn" : "good");
}

// fromOutside is where the LAN reaches a Service, as far as it does.
function fromOutside(s) {
  const of = kind => s.frontends.find(f => f.kind === kind);
  const f = of("LoadBalancer") ?? of("ExternalIP") ?? of("NodePort") ?? s.frontends[0];
  return f?.addr.replace(/^(0\.0\.0\.0|\[::\])(?=:)/, state.nodes[0]?.addrs[0] ?? "$1");
}

function serviceThing(s) {
  const name = `${s.namespace}/${s.name}`, port = s.ports.length ? ":" + s.ports[0].split("/")[0] : "";
  const ready = s.backends.filter(b => b.state === "ready").length, known = s.backends.length + (s.more || 0);
  const where = s.externalName ? "→ " + s.externalName : s.frontends.map(f => `${f.kind} ${f.addr.replace(/^(0\.0\.0\.0|\[::\]):/, "")}/${f.protocol}`).join(", ") || s.ports.join(", ");
  const endpoints = s.externalName ? "" : s.own ? "every node answers by itself" : s.more ? `${known} endpoints` : known === 0 ? "" : `${ready} of ${known} endpoints ready`;
  return thing({ key: "service/" + name, to: `${s.name}.${s.namespace}${port}`, addresses: { lan: fromOutside(s), node: s.frontends[0]?.addr }, label: `Service ${name}, ${s.type}, ${[endpoints, ...(s.problems || [])].filter(Boolean).join(" ")}` },
    el("strong", {}, s.name + " ", el("span", {}, `${s.namespace} · ${s.type}`)), el("span", {}, where),
    endpoints && el("span", { class: ready || s.more || s.own ? "good" : "warn" }, endpoints),
    ...(s.problems || []).map(p => el("span", { class: "warn" }, p)));
}

// backends are all endpoints that are listed, once each, with the Services they belong to.
function backends() {
  const all = new Map();
  for (const s of state.services) for (const b of s.backends) {
    const key = "backend/" + (b.pod || b.addr);
    if (!all.has(key)) all.set(key, { key, ...b, services: [] });
    all.get(key).services.push(`${s.namespace}/${s.name}`);
  }
  return [...all.values()];
}

function backendItem(b) {
  const name = b.pod ? b.pod.split("/")[1] : b.addr;
  const port = b.ports.length ? ":" + b.ports[0] : "";
  return el("li", {}, thing({ key: b.key, from: b.pod ? "pod/" + b.pod : undefined, to: (b.addr.includes(":") ? `[${b.addr}]` : b.addr) + port, label: `${b.pod ? "pod " + b.pod : "endpoint " + b.addr}, ${b.state}, of ${b.services.join(", ")}` },
    el("strong", {}, name), el("span", {}, `${b.addr} ${b.ports.join(", ")}`), el("span", { class: b.state === "ready" ? "good" : "warn" }, b.state)));
}

function nodeItem(n, open) {
  const wrong = n.components.filter(c => c.error);
  const behind = n.components.filter(c => !c.error && c.applied < state.revision);
  const how = !n.ready ? "not ready" : wrong.length ? wrong[0].name + ": " + wrong[0].error : behind.length ? behind.map(c => c.name).join(", ") + " behind" : "applied revision " + state.revision;
  return el("li", { class: "node" + (n.ready ? "" : " away") },
    thing({ key: "node/" + n.name, from: "node/" + n.name, label: `node ${n.name}, ${how}` },
      el("strong", {}, n.name + " ", el("span", {}, n.addrs.join(", "))), el("span", { class: !n.ready || wrong.length ? "bad" : behind.length ? "warn" : "good" }, how)),
    el("ul", { "aria-label": "endpoints on " + n.name }, ...listed.filter(b => b.node === n.name).map(backendItem)),
    el("details", { "data-node": n.name, open }, el("summary", {}, "desired and applied"),
      el("table", {}, el("tbody", {}, ...n.components.map(componentRow)))));
}

// outside are the endpoints on no node of the cluster.
function outside() {
  const nodes = new Set(state.nodes.map(n => n.name));
  const rest = listed.filter(b => !nodes.has(b.node));
  if (!rest.length) return [];
  return [el("li", { class: "node" }, el("strong", {}, "elsewhere"), el("ul", { "aria-label": "endpoints outside the cluster" }, ...rest.map(backendItem)))];
}

function componentRow(c) {
  const text = c.error || (c.applied < state.revision ? `at ${c.applied}, behind` : "ok");
  return el("tr", {}, el("th", { scope: "row" }, c.name), el("td", {}, `${c.applied} of ${state.revision}`),
    el("td", { class: c.error ? "bad" : c.applied < state.revision ? "warn" : "good" }, text));
}

// choose takes a thing as start or end of the connection. A pod can be both: it is the start while there is none.
function choose(key, from, to, addresses) {
  const toToo = from && to;
  if (toToo && chosen.from && !chosen.to && chosen.from.key !== key) chosen.to = { key, text: to };
  else if (toToo && chosen.from && chosen.to) chosen = { from: { key, text: from }, to: null };
  else if (from) chosen.from = { key, text: from };
  else chosen.to = { key, text: to, addresses };
  $("from").value = chosen.from?.text ?? "";
  $("to").value = target() ?? "";
  answer = null;
  mark();
  if (chosen.from && chosen.to) explain();
  else show(chosen.from ? "now choose where it goes" : "now choose where it starts", "", "quiet");
}

// target is where the connection goes, as its start would call it: names of Services are for pods.
function target() {
  return chosen.to?.addresses?.[chosen.from?.key?.split("/")[0]] ?? chosen.to?.text;
}

function forget() {
  chosen = { from: null, to: null };
  answer = null;
  $("from").value = $("to").value = "";
  show("", "", "");
  mark();
}

async function explain() {
  const turn = ++asked;
  const q = new URLSearchParams({ from: chosen.from.text, to: target(), protocol: $("protocol").value });
  try {
    const r = await fetch("explain?" + q), text = await r.text();
    if (turn !== asked || !chosen.from || !chosen.to) return;
    answer = r.ok ? JSON.parse(text) : null;
    if (answer) show(answer.verdict, answer.text, answer.verdict.startsWith("delivered") ? "good" : "bad");
    else show("that cannot be answered", text, "bad");
  } catch {
    show("the instance does not answer", "", "bad");
  }
  mark();
}

function show(verdict, text, kind) {
  if ($("verdict").textContent !== verdict) $("verdict").textContent = verdict;
  $("verdict").className = kind;
  if ($("answer").textContent === text) return;
  // A line a block, so that what does not fit goes on below its value and not below its label.
  $("answer").style.setProperty("--label", `${/^\S+ +/.exec(text)?.[0].length ?? 0}ch`);
  $("answer").replaceChildren(...text.split(/(?<=\n)/).map(line => Object.assign(document.createElement("span"), { textContent: line })));
}

// mark shows what is chosen and which backends an answer can reach, and draws the lines.
function mark() {
  const reached = new Set(answer?.addrs ?? []);
  const pods = new Map(listed.map(b => [b.key, b.addr]));
  for (const b of document.querySelectorAll(".thing")) {
    const key = b.dataset.key;
    b.setAttribute("aria-pressed", key === chosen.from?.key || key === chosen.to?.key);
    b.classList.toggle("reached", reached.has(pods.get(key)));
  }
  lines();
}

function lines() {
  const paths = [];
  const service = state?.services.find(s => `service/${s.namespace}/${s.name}` === chosen.to?.key || answer?.service === `${s.namespace}/${s.name}`);
  if (service) for (const b of service.backends) {
    const from = document.querySelector(`[data-key="${CSS.escape(`service/${service.namespace}/${service.name}`)}"]`);
    const to = document.querySelector(`[data-key="${CSS.escape("backend/" + (b.pod || b.addr))}"]`);
    if (!from || !to) continue;
    const a = from.getBoundingClientRect(), z = to.getBoundingClientRect();
    const x1 = a.right + scrollX, y1 = a.top + a.height / 2 + scrollY, x2 = z.left + scrollX, y2 = z.top + z.height / 2 + scrollY, bend = Math.max(30, (x2 - x1) / 2);
    const p = document.createElementNS("http://www.w3.org/2000/svg", "path");
    p.setAttribute("d", `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`);
    p.setAttribute("class", b.state.split(" ")[0]);
    paths.push(p);
  }
  $("lines").style.height = document.documentElement.scrollHeight + "px";
  $("lines").replaceChildren(...paths);
}

$("lan").addEventListener("click", () => choose("lan", "lan"));
$("question").addEventListener("submit", e => {
  e.preventDefault();
  chosen = { from: { key: null, text: $("from").value || "lan" }, to: { key: null, text: $("to").value } };
  if ($("to").value) explain();
});
addEventListener("keydown", e => { if (e.key === "Escape") forget(); });
addEventListener("resize", lines);
document.addEventListener("toggle", lines, true);
let typing = 0;
$("text").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(connect, 200); });
connect();
