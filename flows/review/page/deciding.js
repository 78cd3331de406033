// Deciding on instances, and drawing those that were missed.

import { $, BANK, VERDICTS, details, review, reviewer } from "/review.js";
import { ask, send } from "/server.js";
import { detailsOf, lookAt, move, refreshImage, wanted } from "/queue.js";
import { leaveMode, notice, setMode, show, showProgress, stage } from "/view.js";

function sendDecision(given) {
  return send("/api/decisions", { decision_id: crypto.randomUUID(), reviewer: reviewer(), ...given });
}

/** Decides on the current instance and goes on; the server hears of it meanwhile. */
export function decide(verdict, given = {}, { isStaying = false } = {}) {
  if (!review.current) return;
  const card = review.cards[review.at];
  const state = { ...card.state, by: reviewer() };
  if (!state.verdict && verdict !== "reference") showProgress(review.numAll, Math.max(0, review.numOpen - 1));
  if (verdict === "negative" && VERDICTS[state.verdict]?.[2] !== "no") Object.assign(state, { verdict: "reject", category: card.category });
  if (verdict in BANK) state.bank = verdict;
  else Object.assign(state, { verdict, category: given.category ?? (verdict === "accept" ? card.state?.category ?? card.category : card.category) });
  card.state = review.current.state = state;
  for (const one of review.current.instances) if (one.id === card.id) one.state = state;
  sendDecision({ instance: card.id, verdict, ...given });
  if (isStaying) show();
  else move(1);
}

export function choose(title, done) {
  const [dialog, filter, list] = [$("palette"), $("palette-filter"), $("palette-list")];
  dialog.querySelector("h2").textContent = title;
  let marked = 0;
  const fitting = () => review.store.categories.filter((one) => one.name.toLowerCase().includes(filter.value.trim().toLowerCase()));
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

export function merge(into) {
  leaveMode();
  if (!into || into === review.current.id) return;
  details.delete(review.current.id);
  for (const card of review.cards) if (card.image === review.current.image) details.delete(card.id);
  decide("merge", { into });
}

export async function undo() {
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

// Drawing a missed object.

export function startDrawing() {
  if (!review.current) return;
  review.draft = { points: [], mask: null };
  stage.draft();
  setMode("draw", "draw a box around the missed object, or click on it · Esc leaves");
  const image = review.current.image;
  ask("/api/masks", { image }).catch((error) => { if (review.mode === "draw" && review.current?.image === image) { leaveMode(); notice(error.message); } });
}

export async function drawnOn({ box, point }) {
  if (!review.draft) return;
  const asked = review.draft;
  if (box) asked.points = [];
  else asked.points = [...asked.points, point];
  stage.draft({ path: asked.mask?.path, points: asked.points, box });
  setMode("draw", "looking for it…");
  try {
    const mask = await ask("/api/masks", box ? { image: review.current.image, box } : { image: review.current.image, points: asked.points });
    if (review.draft !== asked) return;
    asked.mask = mask;
    stage.draft({ path: mask.path, points: asked.points });
    setMode("draw", `quality ${mask.predicted_iou.toFixed(2)} · Enter keeps it · click to add to it · Esc leaves`);
  } catch (error) {
    if (review.draft !== asked) return;
    asked.points = asked.points.slice(0, -1);
    setMode("draw", "draw a box around the missed object, or click on it · Esc leaves");
    notice(error.message);
  }
}

export function keepDrawn() {
  if (!review.draft?.mask) return;
  const [mask, image] = [review.draft.mask, review.current.image];
  choose("What is it?", async (category) => {
    leaveMode();
    const answer = await sendDecision({ verdict: "add", mask: mask.mask, category });
    if (!answer) return;
    for (const card of review.cards) if (card.image === image) details.delete(card.id);
    await refreshImage(image);
  });
}
