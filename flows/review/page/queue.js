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

// From which place in the queue the next cards come, how often it was begun, and how many cards went to the end since.
const fetched = { next: 0, round: 0, moved: 0, filter: 0, last: Promise.resolve() };

/** Fetches what comes next, one call after the other. `isAgain`: at the end from the beginning, for what was skipped. */
function more({ isAgain = false } = {}) {
  fetched.last = fetched.last.catch(() => {}).then(() => addMore(isAgain));
  return fetched.last;
}

async function addMore(isAgain) {
  if (sending.number && $("saved").className !== "lost") await sending.last; // so that the server knows what is decided
  for (;;) {
    let found = await cardsFrom(fetched.next);
    if (!found.length && isAgain) {
      found = await cardsFrom(0);
      fetched.round += 1;
    }
    if (!found.length) return false;
    fetched.next = Math.max(...found.map((card) => card.place)) + 1;
    if (found.map(add).some(Boolean)) return true;
  }
}

/** Returns the cards from a place on; none where another filter is wanted meanwhile. */
async function cardsFrom(place) {
  const { filter } = fetched;
  const query = wanted();
  query.set("start", place);
  query.set("limit", AHEAD);
  const { cards, num_all: all, num_open: open } = await ask(`/api/queue?${query}`);
  if (filter !== fetched.filter) return [];
  showProgress(all, open);
  return cards;
}

/** Adds a card unless it is there in this round; one of an earlier round goes to the end, so that each is there once. */
function add(card) {
  const number = review.cards.findIndex((one) => one.id === card.id);
  if (review.cards[number]?.round === fetched.round) return false;
  if (number >= 0) {
    review.cards.splice(number, 1);
    if (number <= review.at) [review.at, fetched.moved] = [review.at - 1, fetched.moved + 1];
  }
  review.cards.push({ ...card, round: fetched.round });
  return true;
}

export async function restart() {
  [review.cards, review.at, review.current, review.isAtEnd] = [[], -1, null, false];
  [fetched.next, fetched.filter] = [0, fetched.filter + 1];
  leaveMode();
  await move(1);
}

export async function move(by) {
  const [to, moved] = [review.at + by, fetched.moved];
  if (to < 0) return;
  if (to >= review.cards.length && !(await more({ isAgain: true }))) {
    review.isAtEnd = true;
    review.current = null;
    review.at = review.cards.length;
    show();
    return;
  }
  await look(Math.max(0, Math.min(to - (fetched.moved - moved), review.cards.length - 1)));
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
  review.cards.splice(review.at + 1, 0, { ...found, instances: undefined, round: fetched.round });
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
