// Which instance is looked at, and which come next.

import { $, client, details, review, reviewer } from "/review.js";
import { ask, sending } from "/server.js";
import { leaveMode, notice, show, showProgress, showStage, showStrip } from "/view.js";

const AHEAD = 16; // cards that are fetched at once

export function wanted() {
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
  if (sending.number && $("saved").className !== "lost") await sending.last; // so that the server knows what is decided
  const known = new Set(review.cards.map((card) => card.id));
  const start = review.cards.length ? Math.max(...review.cards.map((card) => card.place ?? -1)) + 1 : 0;
  for (const from of start ? [start, 0] : [0]) { // from the beginning again, for what was skipped
    const query = wanted();
    query.set("start", from);
    query.set("limit", AHEAD);
    const { cards: found, num_all: all, num_open: open } = await ask(`/api/queue?${query}`);
    showProgress(all, open);
    const isAgain = from === 0 && start > 0;
    const fresh = isAgain ? found : found.filter((card) => !known.has(card.id));
    if (fresh.length) {
      review.cards.push(...fresh.map((card) => ({ ...card, place: isAgain ? -1 : card.place })));
      return true;
    }
  }
  return false;
}

export async function restart() {
  [review.cards, review.at, review.current, review.isAtEnd] = [[], -1, null, false];
  leaveMode();
  await move(1);
}

export async function move(by) {
  const to = review.at + by;
  if (to < 0) return;
  if (to >= review.cards.length && !(await more())) {
    review.isAtEnd = true;
    review.current = null;
    review.at = review.cards.length;
    show();
    return;
  }
  await look(Math.min(to, review.cards.length - 1));
}

export async function look(number) {
  [review.at, review.isAtEnd] = [number, false];
  const card = review.cards[review.at];
  const found = await detailsOf(card.id);
  if (review.cards[review.at] !== card) return; // moved on meanwhile
  review.current = found;
  review.current.state = card.state ?? review.current.state;
  leaveMode();
  show();
  if (review.isWhole) fillWhole().catch((error) => notice(error.message));
  for (const next of review.cards.slice(review.at + 1, review.at + 4)) preload(next);
  if (review.at + 4 >= review.cards.length && !review.isAtEnd) more().then(showStrip).catch(() => {});
}

/** Looks at an instance that may not be in the queue. */
export async function lookAt(id) {
  const number = review.cards.findIndex((card) => card.id === id);
  if (number >= 0) return look(number);
  const found = await detailsOf(id);
  review.cards.splice(review.at + 1, 0, { ...found, instances: undefined, place: review.cards[review.at]?.place ?? -1 });
  return look(review.at + 1);
}

export function detailsOf(id) {
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

/** Shows what instances the current image has by now. */
export async function refreshImage(image) {
  if (review.current?.image !== image) return;
  const { instances } = await ask(`/api/images/${image}`);
  if (review.current?.image !== image) return;
  Object.assign(review.current, { instances, isFull: false });
  show();
}

/** Has all instances of the image drawn, not only those that are labels. */
export async function fillWhole() {
  const looked = review.current;
  if (!looked || looked.isFull) return;
  const { instances } = await ask(`/api/images/${looked.image}?whole=true`);
  Object.assign(looked, { instances, isFull: true });
  if (review.current === looked) showStage();
}
