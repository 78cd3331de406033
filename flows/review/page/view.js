// What is shown of the instance that is looked at, of those that come, and of how far the review is.

import { BANK, VERDICTS, $, categoryOf, nowOf, review } from "/review.js";
import { ask } from "/server.js";
import { Stage, picture } from "/stage.js";

const MERGE_CHOICES = 9;
const LIKENESS_WAIT = 250; // ms that an instance is looked at before it is compared with references

export const stage = new Stage($("stage"));

export function show() {
  $("done").hidden = !review.isAtEnd;
  $("looks").hidden = $("what").hidden = review.isAtEnd;
  showStrip();
  if (!review.current) return;
  stage.open(`/pictures/images/${review.current.image}`, review.current.size);
  if (review.isMagnified && review.current.box) stage.magnify(review.current.box);
  showStage();
  const category = nowOf(review.current);
  document.documentElement.style.setProperty("--category", category.color);
  $("name").textContent = category.name;
  $("score").replaceChildren();
  if (review.current.score !== null) {
    const thresh = document.createElement("small");
    thresh.textContent = ` of ${review.current.thresh.toFixed(2)}`;
    $("score").append(review.current.score.toFixed(2), thresh);
  }
  $("reason").textContent = review.store.reasons.find((one) => one.name === review.current.reason)?.help ?? "";
  $("state").textContent = describe(review.current.state);
  $("file").textContent = review.current.file;
  $("size").textContent = `${review.current.size[0]} × ${review.current.size[1]} · ${review.current.num_all} found`;
  const own = review.current.instances.find((one) => one.id === review.current.id);
  const crop = review.current.bounds ? [picture(`/pictures/instances/${review.current.id}`, review.current.bounds, own?.path ?? "", category.color)] : [];
  $("crop").replaceChildren(...crop);
  showReferences(review.current.state?.category ?? review.current.category);
  clearTimeout(likenessTimer);
  if (!isLikenessLost && !review.current.likeness) likenessTimer = setTimeout(compare, LIKENESS_WAIT, review.current);
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
  if (review.current === looked) showReferences(looked.state?.category ?? looked.category);
}

function describe({ verdict, category, by, bank } = {}) {
  const words = [];
  if (verdict) words.push(verdict === "category" ? `${categoryOf(category).name}, by ${by}` : `${VERDICTS[verdict][0]} by ${by}`);
  if (bank) words.push(BANK[bank][0]);
  return words.join(" · ");
}

export function showStage() {
  if (!review.current) return;
  const own = review.current.instances.find((one) => one.id === review.current.id) ?? review.current;
  const isShown = (one) => (review.isWhole ? true : one.id !== review.current.id && (review.mode === "merge" || one.is_label || one.state?.verdict));
  const others = review.current.instances.filter(isShown).map((one) => drawn(one));
  const choices = review.mode === "merge" ? nearest(own) : [];
  for (const one of others) one.text = choices.includes(one.id) ? String(choices.indexOf(one.id) + 1) : "";
  stage.svg.classList.toggle("whole", review.isWhole);
  stage.svg.classList.toggle("merging", review.mode === "merge");
  stage.draw(review.isWhole ? null : { ...own, color: nowOf(own).color }, others);
}

function drawn(one) {
  const [, , kind] = VERDICTS[one.state?.verdict] ?? ["", "", ""];
  const faint = kind || one.is_label ? "" : "faint";
  return { ...one, color: nowOf(one).color, classes: { no: "gone", yes: "kept" }[kind] ?? faint };
}

/** The instances that are nearest to one, by the distance of their centers. */
export function nearest(own) {
  const center = ([left, top, right, bottom]) => [(left + right) / 2, (top + bottom) / 2];
  const [x, y] = center(own.box);
  const away = (one) => Math.hypot(center(one.box)[0] - x, center(one.box)[1] - y);
  const isKept = (one) => one.is_label || VERDICTS[one.state?.verdict]?.[2] === "yes";
  const others = review.current.instances.filter((one) => one.id !== review.current.id && isKept(one));
  return others.sort((one, other) => away(one) - away(other)).slice(0, MERGE_CHOICES).map((one) => one.id);
}

const references = new Map();

async function showReferences(category) {
  const looked = review.current;
  if (!references.has(category)) references.set(category, ask(`/api/references/${category}`));
  const found = [...await references.get(category)];
  if (review.current !== looked) return;
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

export function showStrip() {
  const first = Math.max(0, review.at - 5);
  const shown = review.cards.slice(first, first + 40);
  $("strip").replaceChildren(...shown.map((card, index) => {
    const button = shownCards.get(card) ?? newCard(card);
    const [, mark, kind] = VERDICTS[card.state?.verdict] ?? ["", "", ""];
    button.className = `card ${kind} ${card.heldBy ? "held" : ""} ${first + index === review.at ? "now" : ""}`;
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
  button.addEventListener("click", () => $("strip").dispatchEvent(new CustomEvent("chosen", { detail: card })));
  shownCards.set(card, button);
  return button;
}

export function showProgress(all, open) {
  [review.numAll, review.numOpen] = [all, open];
  $("progress-bar").style.width = all ? `${(100 * (all - open)) / all}%` : "0";
  $("progress-bar").title = `${all - open} of ${all}`;
}

export function showCounts(verdicts, reviewers, audit) {
  const number = Object.values(verdicts).reduce((one, other) => one + other, 0);
  const parts = Object.entries(verdicts).map(([verdict, count]) => `${count} ${(VERDICTS[verdict] ?? BANK[verdict])[0]}`);
  $("counts").textContent = number ? `${parts.join(", ")}; ${review.numOpen} left here` : `nothing decided yet; ${review.numOpen} left here`;
  $("audit").replaceChildren(...audit.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
  $("people").textContent = Object.entries(reviewers).map(([name, count]) => `${name}: ${count}`).join(" · ");
}

let noticeTimer;
export function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
  clearTimeout(noticeTimer);
  if (text) noticeTimer = setTimeout(() => { $("notice").hidden = true; }, 9000);
}

export function setMode(name, text) {
  review.mode = name;
  stage.isDrawing = name === "draw";
  stage.svg.classList.toggle("drawing", name === "draw");
  $("mode").hidden = !text;
  $("mode").textContent = text;
  for (const button of document.querySelectorAll("#actions button")) {
    button.classList.toggle("on", (name === "draw" && button.dataset.key === "d") || (name === "merge" && button.dataset.key === "m"));
  }
}

export function leaveMode() {
  review.draft = null;
  stage.draft();
  setMode("", "");
}
