// The review page: what keys do, and what is heard of others.

import { choose, decide, drawnOn, keepDrawn, merge, startDrawing, undo } from "/deciding.js";
import { fillWhole, look, lookAt, move, restart } from "/queue.js";
import { $, client, details, review, reviewer } from "/review.js";
import { ask, listen, sending, showSaved } from "/server.js";
import { leaveMode, nearest, notice, setMode, show, showCounts, showStage, showStrip, stage } from "/view.js";

const POLL = 2500; // ms between looks at what others do

listen({ onAnswer: take, onRefusal: notice });

/** Takes in what was decided, here or elsewhere, and how far the review is. */
function take({ changed = {}, held = {}, version: now, verdicts, reviewers, audit }) {
  review.version = now ?? review.version;
  for (const [id, state] of Object.entries(changed)) {
    for (const card of review.cards) if (card.id === id) card.state = state;
    if (review.current?.id === id) review.current.state = state;
    for (const one of review.current?.instances ?? []) if (one.id === id) one.state = state;
    if (review.current?.id !== id) details.delete(id);
  }
  for (const card of review.cards) card.heldBy = held[card.id] ?? null;
  if (Object.keys(changed).length) show();
  showStrip();
  if (verdicts) showCounts(verdicts, reviewers, audit);
}

async function poll() {
  try {
    take(await ask("/api/heard", { client: `${reviewer()} · ${client}`, instance: review.current?.id ?? null, version: review.version }));
    if (!sending.number) showSaved();
  } catch (error) {
    showSaved(sending.number ? `not saved yet: ${error.message}` : error.message);
  }
}

// Keys.

const KEYS = {
  a: () => decide("accept"),
  r: () => decide("reject"),
  p: () => decide("part"),
  c: () => review.current && choose("Which category?", (category) => decide("category", { category })),
  m: () => {
    if (!review.current) return;
    setMode("merge", "click the object that this belongs to, or press its number · Esc leaves");
    showStage();
  },
  d: startDrawing,
  e: () => decide("reference", {}, { isStaying: true }),
  g: () => decide("negative", {}, { isStaying: true }),
  n: () => move(1),
  b: () => move(-1),
  u: undo,
  v: () => { review.isWhole = !review.isWhole; showStage(); toggle("v", review.isWhole); if (review.isWhole) fillWhole(); },
  z: () => { review.isMagnified = !review.isMagnified; if (review.isMagnified && review.current) stage.magnify(review.current.box ?? ownBox()); else stage.fit(); showStage(); },
  h: () => stage.svg.classList.toggle("hidden"),
  arrowright: () => move(1),
  arrowleft: () => move(-1),
  "?": () => $("help").showModal(),
  escape: () => { leaveMode(); showStage(); notice(""); },
};

const ownBox = () => review.current.instances.find((one) => one.id === review.current.id)?.box;

function toggle(key, isOn) {
  document.querySelector(`#actions button[data-key="${key}"]`).classList.toggle("on", isOn);
}

function pressed(key) {
  if (review.mode === "merge" && /^[1-9]$/.test(key)) return merge(nearest(review.current.instances.find((one) => one.id === review.current.id))[key - 1]);
  if (review.mode === "draw" && key === "enter") return keepDrawn();
  if (review.mode && key !== "escape" && key !== "h" && key !== "z") return undefined;
  return KEYS[key]?.();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey && event.key === "z") { event.preventDefault(); KEYS.u(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const key = event.key.toLowerCase();
  if (!(key in KEYS) && !/^[1-9]$/.test(key) && key !== "enter") return;
  event.preventDefault();
  pressed(key);
});

for (const button of document.querySelectorAll("#actions button")) {
  button.addEventListener("click", () => { button.blur(); pressed(button.dataset.key); });
}
$("help-button").addEventListener("click", () => KEYS["?"]());
$("filter").addEventListener("change", (event) => {
  if (event.target.tagName === "SELECT" || event.target.type === "checkbox") event.target.blur();
  restart().catch((error) => notice(error.message));
});
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("strip").addEventListener("chosen", (event) => look(review.cards.indexOf(event.detail)));
stage.addEventListener("drawn", (event) => drawnOn(event.detail));
stage.addEventListener("chosen", (event) => {
  if (review.mode === "draw") return;
  if (review.mode === "merge") merge(event.detail);
  else lookAt(event.detail);
});

// The beginning.

function askName() {
  return new Promise((resolve) => {
    $("naming-name").value = reviewer();
    $("naming").onclose = () => {
      localStorage.setItem("refseg-reviewer", $("naming-name").value.trim() || reviewer() || "someone");
      $("who").textContent = reviewer();
      resolve();
    };
    $("naming").showModal();
  });
}

$("who").addEventListener("click", askName);

function fillFilter() {
  const { category, reason } = $("filter").elements;
  category.replaceChildren(new Option("all", ""), ...review.store.categories.map((one) => new Option(one.name, one.id)));
  reason.replaceChildren(new Option("anything", ""), ...review.store.reasons.map((one) => new Option(one.help, one.name)));
}

async function begin() {
  review.store = await ask("/api/store");
  review.version = review.store.version;
  $("store").textContent = `${review.store.store} · ${review.store.num_instances} instances in ${review.store.num_images} images`;
  fillFilter();
  if (!reviewer()) await askName();
  $("who").textContent = reviewer();
  await restart();
  take(review.store);
  setInterval(poll, POLL);
  poll();
}

window.addEventListener("unhandledrejection", (event) => notice(event.reason?.message ?? String(event.reason)));
window.addEventListener("error", (event) => notice(event.message));
begin().catch((error) => notice(error.message));
