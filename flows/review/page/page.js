// The review page: which instance is looked at, what keys do, and what the server is told.

import { Stage, picture } from "/stage.js";

const $ = (id) => document.getElementById(id);
const POLL = 2500; // ms between looks at what others do
const AHEAD = 16; // cards that are fetched at once
const MERGE_CHOICES = 9;
const LIKENESS_WAIT = 250; // ms that an instance is looked at before it is compared with references
const VERDICTS = {
  accept: ["accepted", "✓", "yes"], category: ["other category", "✎", "yes"], mask: ["mask corrected", "◩", "yes"],
  add: ["added", "+", "yes"], reject: ["rejected", "✕", "no"], part: ["only a part", "◔", "no"],
  merge: ["merged", "⊕", "no"],
};
const BANK = { reference: ["used as reference", "★"], negative: ["used as negative", "⊘"] };

const stage = new Stage($("stage"));
const client = Math.random().toString(36).slice(2, 10);
const details = new Map(); // instance id -> promise of what the server says of it
let store; // categories and other things that stay
let cards = []; // what was and what comes, in order
let at = -1; // which card is looked at
let current = null; // details of the instance on the stage
let mode = ""; // "", "draw" or "merge"
let isWhole = false;
let isMagnified = false;
let draft = null; // {points, mask} while drawing
let version = 0;
let isAtEnd = false;
let pending = Promise.resolve(); // what is sent, in order
let numPending = 0;

// The server.

async function ask(address, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  const answer = await fetch(address, options);
  if (answer.status === 401) throw new Error("The server was started again: open the link that it printed.");
  const content = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(content.error ?? `The server answers ${answer.status}.`), { isFinal: true });
  return content;
}

/** Sends something that must not be lost: again and again until the server has it, one after the other. */
function send(address, body) {
  numPending += 1;
  showSaved();
  const sent = pending.then(() => untilKept(address, body)).then((answer) => {
    numPending -= 1;
    showSaved();
    return answer;
  });
  pending = sent;
  return sent.then((answer) => {
    if (answer) take(answer);
    return answer;
  });
}

async function untilKept(address, body) {
  for (let wait = 300; ; wait = Math.min(wait * 2, 5000)) {
    try {
      return await ask(address, body);
    } catch (error) {
      if (error.isFinal) {
        notice(error.message);
        return null;
      }
      showSaved(`not saved yet: ${error.message}`);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

function showSaved(problem = "") {
  $("saved").className = problem ? "lost" : numPending ? "busy" : "";
  $("saved").textContent = problem || (numPending ? "saving" : "saved");
}

window.addEventListener("beforeunload", (event) => { if (numPending) event.preventDefault(); });

/** Takes in what was decided, here or elsewhere, and how far the review is. */
function take({ changed = {}, held = {}, version: now, verdicts, reviewers, audit }) {
  version = now ?? version;
  for (const [id, state] of Object.entries(changed)) {
    for (const card of cards) if (card.id === id) card.state = state;
    if (current?.id === id) current.state = state;
    for (const one of current?.instances ?? []) if (one.id === id) one.state = state;
    if (current?.id !== id) details.delete(id);
  }
  for (const card of cards) card.heldBy = held[card.id] ?? null;
  if (Object.keys(changed).length) show();
  showStrip();
  if (verdicts) showCounts(verdicts, reviewers, audit);
}

async function poll() {
  try {
    take(await ask("/api/heard", { client: `${reviewer()} · ${client}`, instance: current?.id ?? null, version }));
    if (!numPending) showSaved();
  } catch (error) {
    showSaved(numPending ? `not saved yet: ${error.message}` : error.message);
  }
}

// The queue.

function wanted() {
  const given = new FormData($("filter"));
  const query = new URLSearchParams();
  for (const name of ["reason", "state", "sorting", "min_score", "max_score", "image"]) {
    if (given.get(name) !== "") query.set(name, given.get(name));
  }
  if (given.get("category")) query.set("category", given.get("category"));
  query.set("near", given.get("far") ? "false" : "true");
  query.set("client", `${reviewer()} · ${client}`);
  return query;
}

async function more() {
  if (numPending && $("saved").className !== "lost") await pending; // so that the server knows what is decided
  const known = new Set(cards.map((card) => card.id));
  const start = cards.length ? Math.max(...cards.map((card) => card.place ?? -1)) + 1 : 0;
  for (const from of start ? [start, 0] : [0]) { // from the beginning again, for what was skipped
    const query = wanted();
    query.set("start", from);
    query.set("limit", AHEAD);
    const { cards: found, num_all: all, num_open: open } = await ask(`/api/queue?${query}`);
    showProgress(all, open);
    const isAgain = from === 0 && start > 0;
    const fresh = isAgain ? found : found.filter((card) => !known.has(card.id));
    if (fresh.length) {
      cards.push(...fresh.map((card) => ({ ...card, place: isAgain ? -1 : card.place })));
      return true;
    }
  }
  return false;
}

async function restart() {
  [cards, at, current, isAtEnd] = [[], -1, null, false];
  leaveMode();
  await move(1);
}

async function move(by) {
  const to = at + by;
  if (to < 0) return;
  if (to >= cards.length && !(await more())) {
    isAtEnd = true;
    current = null;
    at = cards.length;
    show();
    return;
  }
  await look(Math.min(to, cards.length - 1));
}

async function look(number) {
  [at, isAtEnd] = [number, false];
  const card = cards[at];
  const found = await detailsOf(card.id);
  if (cards[at] !== card) return; // moved on meanwhile
  current = found;
  current.state = card.state ?? current.state;
  leaveMode();
  show();
  if (isWhole) fillWhole().catch((error) => notice(error.message));
  for (const next of cards.slice(at + 1, at + 4)) preload(next);
  if (at + 4 >= cards.length && !isAtEnd) more().then(showStrip).catch(() => {});
}

/** Looks at an instance that may not be in the queue. */
async function lookAt(id) {
  const number = cards.findIndex((card) => card.id === id);
  if (number >= 0) return look(number);
  const found = await detailsOf(id);
  cards.splice(at + 1, 0, { ...found, instances: undefined, place: cards[at]?.place ?? -1 });
  return look(at + 1);
}

function detailsOf(id) {
  if (!details.has(id)) {
    const found = ask(`/api/instances/${id}`);
    found.catch((error) => { details.delete(id); notice(error.message); });
    details.set(id, found);
    if (details.size > 60) details.delete(details.keys().next().value);
  }
  return details.get(id);
}

function preload(card) {
  detailsOf(card.id).catch(() => {});
  for (const url of [`/pictures/images/${card.image}`, `/pictures/instances/${card.id}`]) new Image().src = url;
}

// What is shown.

const categoryOf = (id) => store.categories.find((one) => one.id === id) ?? { name: "?", color: "#999999" };
const nowOf = (one) => categoryOf(one.state?.category ?? one.category);

function show() {
  $("done").hidden = !isAtEnd;
  $("looks").hidden = $("what").hidden = isAtEnd;
  showStrip();
  if (!current) return;
  stage.open(`/pictures/images/${current.image}`, current.size);
  if (isMagnified && current.box) stage.magnify(current.box);
  showStage();
  const category = nowOf(current);
  document.documentElement.style.setProperty("--category", category.color);
  $("name").textContent = category.name;
  $("score").replaceChildren();
  if (current.score !== null) {
    const thresh = document.createElement("small");
    thresh.textContent = ` of ${current.thresh.toFixed(2)}`;
    $("score").append(current.score.toFixed(2), thresh);
  }
  $("reason").textContent = store.reasons.find((one) => one.name === current.reason)?.help ?? "";
  $("state").textContent = describe(current.state);
  $("file").textContent = current.file;
  $("size").textContent = `${current.size[0]} × ${current.size[1]} · ${current.num_all} found`;
  const own = current.instances.find((one) => one.id === current.id);
  const crop = current.bounds ? [picture(`/pictures/instances/${current.id}`, current.bounds, own?.path ?? "", category.color)] : [];
  $("crop").replaceChildren(...crop);
  showReferences(current.state?.category ?? current.category);
  clearTimeout(likenessTimer);
  if (!isLikenessLost && !current.likeness) likenessTimer = setTimeout(compare, LIKENESS_WAIT, current);
}

let isLikenessLost = false; // where there is no encoder
let likenessTimer;

/** Asks how much the instance looks like each reference, once somebody looks at it for a moment. */
async function compare(looked) {
  try {
    const found = await ask(`/api/likeness/${looked.id}`);
    looked.likeness = new Map(found.map((one) => [one.row, one.similarity]));
  } catch (error) {
    isLikenessLost ||= Boolean(error.isFinal);
    return;
  }
  if (current === looked) showReferences(looked.state?.category ?? looked.category);
}

function describe({ verdict, category, by, bank } = {}) {
  const words = [];
  if (verdict) words.push(verdict === "category" ? `${categoryOf(category).name}, by ${by}` : `${VERDICTS[verdict][0]} by ${by}`);
  if (bank) words.push(BANK[bank][0]);
  return words.join(" · ");
}

function showStage() {
  if (!current) return;
  const own = current.instances.find((one) => one.id === current.id) ?? current;
  const isShown = (one) => (isWhole ? true : one.id !== current.id && (mode === "merge" || one.is_label || one.state?.verdict));
  const others = current.instances.filter(isShown).map((one) => drawn(one));
  const choices = mode === "merge" ? nearest(own) : [];
  for (const one of others) one.text = choices.includes(one.id) ? String(choices.indexOf(one.id) + 1) : "";
  stage.svg.classList.toggle("whole", isWhole);
  stage.svg.classList.toggle("merging", mode === "merge");
  stage.draw(isWhole ? null : { ...own, color: nowOf(own).color }, others);
}

function drawn(one) {
  const [, , kind] = VERDICTS[one.state?.verdict] ?? ["", "", ""];
  const faint = kind || one.is_label ? "" : "faint";
  return { ...one, color: nowOf(one).color, classes: { no: "gone", yes: "kept" }[kind] ?? faint };
}

/** The instances that are nearest to one, by the distance of their centers. */
function nearest(own) {
  const center = ([left, top, right, bottom]) => [(left + right) / 2, (top + bottom) / 2];
  const [x, y] = center(own.box);
  const away = (one) => Math.hypot(center(one.box)[0] - x, center(one.box)[1] - y);
  const isKept = (one) => one.is_label || VERDICTS[one.state?.verdict]?.[2] === "yes";
  const others = current.instances.filter((one) => one.id !== current.id && isKept(one));
  return others.sort((one, other) => away(one) - away(other)).slice(0, MERGE_CHOICES).map((one) => one.id);
}

const references = new Map();

async function showReferences(category) {
  const looked = current;
  if (!references.has(category)) references.set(category, ask(`/api/references/${category}`));
  const found = [...await references.get(category)];
  if (current !== looked) return;
  const likeness = looked.likeness ?? new Map();
  found.sort((one, other) => (likeness.get(other.row) ?? 0) - (likeness.get(one.row) ?? 0));
  const key = `${category} ${found.slice(0, 9).map((one) => `${one.row}:${likeness.get(one.row) ?? ""}`)}`;
  if ($("references").dataset.shown === key) return;
  $("references").dataset.shown = key;
  const { name, color } = categoryOf(category);
  $("references-title").textContent = `references of ${name}: ${found.length}${likeness.size ? ", most alike first" : ""}`;
  $("references").replaceChildren(...found.slice(0, 9).map((one) => reference(one, color, likeness.get(one.row))));
}

function reference(one, color, similarity) {
  const shown = document.createElement("div");
  if (one.error) shown.append(`${one.file}: ${one.error}`);
  else shown.append(picture(`/pictures/references/${one.row}`, one.bounds, one.path, color));
  if (similarity !== undefined) shown.append(Object.assign(document.createElement("small"), { textContent: similarity.toFixed(2) }));
  return shown;
}

const shownCards = new Map(); // card -> its button

function showStrip() {
  const first = Math.max(0, at - 5);
  const shown = cards.slice(first, first + 40);
  $("strip").replaceChildren(...shown.map((card, index) => {
    const button = shownCards.get(card) ?? newCard(card);
    const [, mark, kind] = VERDICTS[card.state?.verdict] ?? ["", "", ""];
    button.className = `card ${kind} ${card.heldBy ? "held" : ""} ${first + index === at ? "now" : ""}`;
    button.title = card.heldBy ? `${card.heldBy.split(" · ")[0]} looks at it` : `${nowOf(card).name} in ${card.file}`;
    button.style.setProperty("--category", nowOf(card).color);
    button.lastChild.textContent = card.heldBy ? "●" : mark || (BANK[card.state?.bank]?.[1] ?? "");
    return button;
  }));
}

function newCard(card) {
  const button = document.createElement("button");
  const image = document.createElement("img");
  image.loading = "lazy";
  image.alt = "";
  if (card.score !== null) image.src = `/pictures/instances/${card.id}`;
  const mark = document.createElement("span");
  mark.className = "mark";
  button.append(image, mark);
  button.addEventListener("click", () => look(cards.indexOf(card)));
  shownCards.set(card, button);
  return button;
}

let [numAll, numOpen] = [0, 0]; // that fit the filter
function showProgress(all, open) {
  [numAll, numOpen] = [all, open];
  $("progress-bar").style.width = all ? `${(100 * (all - open)) / all}%` : "0";
  $("progress-bar").title = `${all - open} of ${all}`;
}

function showCounts(verdicts, reviewers, audit) {
  const number = Object.values(verdicts).reduce((one, other) => one + other, 0);
  const parts = Object.entries(verdicts).map(([verdict, count]) => `${count} ${(VERDICTS[verdict] ?? BANK[verdict])[0]}`);
  $("counts").textContent = number ? `${parts.join(", ")}; ${numOpen} left here` : `nothing decided yet; ${numOpen} left here`;
  $("audit").replaceChildren(...audit.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
  $("people").textContent = Object.entries(reviewers).map(([name, count]) => `${name}: ${count}`).join(" · ");
}

let noticeTimer;
function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
  clearTimeout(noticeTimer);
  if (text) noticeTimer = setTimeout(() => { $("notice").hidden = true; }, 9000);
}

function setMode(name, text) {
  mode = name;
  stage.isDrawing = name === "draw";
  stage.svg.classList.toggle("drawing", name === "draw");
  $("mode").hidden = !text;
  $("mode").textContent = text;
  for (const button of document.querySelectorAll("#actions button")) {
    button.classList.toggle("on", (name === "draw" && button.dataset.key === "d") || (name === "merge" && button.dataset.key === "m"));
  }
}

function leaveMode() {
  draft = null;
  stage.draft();
  setMode("", "");
}

// Deciding.

const reviewer = () => localStorage.getItem("refseg-reviewer") ?? "";

function sendDecision(given) {
  return send("/api/decisions", { decision_id: crypto.randomUUID(), reviewer: reviewer(), ...given });
}

/** Decides on the current instance and goes on; the server hears of it meanwhile. */
function decide(verdict, given = {}, { isStaying = false } = {}) {
  if (!current) return;
  const card = cards[at];
  const state = { ...card.state, by: reviewer() };
  if (!state.verdict && !(verdict in BANK)) showProgress(numAll, Math.max(0, numOpen - 1));
  if (verdict in BANK) state.bank = verdict;
  else Object.assign(state, { verdict, category: given.category ?? (verdict === "accept" ? card.state?.category ?? card.category : card.category) });
  card.state = current.state = state;
  for (const one of current.instances) if (one.id === card.id) one.state = state;
  sendDecision({ instance: card.id, verdict, ...given });
  if (isStaying) show();
  else move(1);
}

function choose(title, done) {
  const [dialog, filter, list] = [$("palette"), $("palette-filter"), $("palette-list")];
  dialog.querySelector("h2").textContent = title;
  let marked = 0;
  const fitting = () => store.categories.filter((one) => one.name.toLowerCase().includes(filter.value.trim().toLowerCase()));
  const pick = (category) => { dialog.close(); if (category) done(category.id); };
  const fill = () => list.replaceChildren(...fitting().map((category, index) => {
    const item = document.createElement("li");
    const [key, dot] = [document.createElement("kbd"), document.createElement("i")];
    key.textContent = index < 9 && !filter.value ? index + 1 : " ";
    dot.style.setProperty("--category", category.color);
    item.append(key, dot, category.name);
    item.className = index === marked ? "on" : "";
    item.addEventListener("click", () => pick(category));
    return item;
  }));
  filter.value = "";
  filter.oninput = () => { marked = 0; fill(); };
  filter.onkeydown = (event) => {
    const found = fitting();
    if (/^[1-9]$/.test(event.key) && !filter.value && event.key <= found.length) pick(found[event.key - 1]);
    else if (event.key === "Enter") pick(found[marked]);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      marked = (marked + (event.key === "ArrowDown" ? 1 : found.length - 1)) % Math.max(1, found.length);
      fill();
    } else return;
    event.preventDefault();
  };
  fill();
  dialog.showModal();
  filter.focus();
}

function merge(into) {
  leaveMode();
  if (!into || into === current.id) return;
  details.delete(current.id);
  for (const card of cards) if (card.image === current.image) details.delete(card.id);
  decide("merge", { into });
}

async function undo() {
  const answer = await send("/api/undo", { decision_id: crypto.randomUUID(), reviewer: reviewer() });
  const [id] = Object.keys(answer?.changed ?? {});
  if (!id) return notice(answer ? "There is nothing of yours to undo." : "");
  details.clear();
  const query = wanted();
  query.set("limit", 1);
  const { num_all: all, num_open: open } = await ask(`/api/queue?${query}`);
  showProgress(all, open);
  const undone = await detailsOf(id);
  if (undone.score === null && !undone.state.verdict) return refreshImage(undone.image);
  return lookAt(id);
}

/** Shows what instances the current image has by now. */
async function refreshImage(image) {
  if (current?.image !== image) return;
  const { instances } = await ask(`/api/images/${image}`);
  if (current?.image !== image) return;
  Object.assign(current, { instances, isFull: false });
  show();
}

// Drawing a missed object.

function startDrawing() {
  if (!current) return;
  draft = { points: [], mask: null };
  stage.draft();
  setMode("draw", "draw a box around the missed object, or click on it · Esc leaves");
  const image = current.image;
  ask("/api/masks", { image }).catch((error) => { if (mode === "draw" && current?.image === image) { leaveMode(); notice(error.message); } });
}

async function drawnOn({ box, point }) {
  if (!draft) return;
  const asked = draft;
  if (box) asked.points = [];
  else asked.points = [...asked.points, point];
  stage.draft({ path: asked.mask?.path, points: asked.points, box });
  setMode("draw", "looking for it…");
  try {
    const mask = await ask("/api/masks", box ? { image: current.image, box } : { image: current.image, points: asked.points });
    if (draft !== asked) return;
    asked.mask = mask;
    stage.draft({ path: mask.path, points: asked.points });
    setMode("draw", `quality ${mask.predicted_iou.toFixed(2)} · Enter keeps it · click to add to it · Esc leaves`);
  } catch (error) {
    if (draft !== asked) return;
    asked.points = asked.points.slice(0, -1);
    setMode("draw", "draw a box around the missed object, or click on it · Esc leaves");
    notice(error.message);
  }
}

function keepDrawn() {
  if (!draft?.mask) return;
  const [mask, image] = [draft.mask, current.image];
  choose("What is it?", async (category) => {
    leaveMode();
    const answer = await sendDecision({ verdict: "add", mask: mask.mask, category });
    if (!answer) return;
    for (const card of cards) if (card.image === image) details.delete(card.id);
    await refreshImage(image);
  });
}

// Keys.

const KEYS = {
  a: () => decide("accept"),
  r: () => decide("reject"),
  p: () => decide("part"),
  c: () => current && choose("Which category?", (category) => decide("category", { category })),
  m: () => {
    if (!current) return;
    setMode("merge", "click the object that this belongs to, or press its number · Esc leaves");
    showStage();
  },
  d: startDrawing,
  e: () => decide("reference", {}, { isStaying: true }),
  g: () => decide("negative", {}, { isStaying: true }),
  n: () => move(1),
  b: () => move(-1),
  u: undo,
  v: () => { isWhole = !isWhole; showStage(); toggle("v", isWhole); if (isWhole) fillWhole(); },
  z: () => { isMagnified = !isMagnified; if (isMagnified && current) stage.magnify(current.box ?? ownBox()); else stage.fit(); showStage(); },
  h: () => stage.svg.classList.toggle("hidden"),
  arrowright: () => move(1),
  arrowleft: () => move(-1),
  "?": () => $("help").showModal(),
  escape: () => { leaveMode(); showStage(); notice(""); },
};

/** Has all instances of the image drawn, not only those that are labels. */
async function fillWhole() {
  const looked = current;
  if (!looked || looked.isFull) return;
  const { instances } = await ask(`/api/images/${looked.image}?whole=true`);
  Object.assign(looked, { instances, isFull: true });
  if (current === looked) showStage();
}

const ownBox = () => current.instances.find((one) => one.id === current.id)?.box;

function toggle(key, isOn) {
  document.querySelector(`#actions button[data-key="${key}"]`).classList.toggle("on", isOn);
}

function pressed(key) {
  if (mode === "merge" && /^[1-9]$/.test(key)) return merge(nearest(current.instances.find((one) => one.id === current.id))[key - 1]);
  if (mode === "draw" && key === "enter") return keepDrawn();
  if (mode && key !== "escape" && key !== "h" && key !== "z") return undefined;
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
stage.addEventListener("drawn", (event) => drawnOn(event.detail));
stage.addEventListener("chosen", (event) => {
  if (mode === "draw") return;
  if (mode === "merge") merge(event.detail);
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
  category.replaceChildren(new Option("all", ""), ...store.categories.map((one) => new Option(one.name, one.id)));
  reason.replaceChildren(new Option("anything", ""), ...store.reasons.map((one) => new Option(one.help, one.name)));
}

async function begin() {
  store = await ask("/api/store");
  version = store.version;
  $("store").textContent = `${store.store} · ${store.num_instances} instances in ${store.num_images} images`;
  fillFilter();
  if (!reviewer()) await askName();
  $("who").textContent = reviewer();
  await restart();
  take(store);
  setInterval(poll, POLL);
  poll();
}

window.addEventListener("unhandledrejection", (event) => notice(event.reason?.message ?? String(event.reason)));
window.addEventListener("error", (event) => notice(event.message));
begin().catch((error) => notice(error.message));
