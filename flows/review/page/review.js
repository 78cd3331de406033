// What the parts of the page share: the instances, which of them is looked at, and how it is looked at.

export const $ = (id) => document.getElementById(id);
export const VERDICTS = {
  accept: ["accepted", "✓", "yes"], category: ["other category", "✎", "yes"], mask: ["mask corrected", "◩", "yes"],
  add: ["added", "+", "yes"], reject: ["rejected", "✕", "no"], part: ["only a part", "◔", "no"],
  merge: ["merged", "⊕", "no"],
};
export const BANK = { reference: ["used as reference", "★"], negative: ["used as negative", "⊘"] };

export const client = Math.random().toString(36).slice(2, 10);
export const details = new Map(); // instance id -> promise of what the server says of it
export const review = {
  store: null, // categories and other things that stay
  cards: [], // what was and what comes, in order
  at: -1, // which card is looked at
  current: null, // details of the instance on the stage
  mode: "", // "", "draw" or "merge"
  isWhole: false,
  isMagnified: false,
  draft: null, // {points, mask} while drawing
  version: 0,
  isAtEnd: false,
  numAll: 0, // that fit the filter
  numOpen: 0,
};

export const reviewer = () => localStorage.getItem("refseg-reviewer") ?? "";
export const categoryOf = (id) => review.store.categories.find((one) => one.id === id) ?? { name: "?", color: "#999999" };
export const nowOf = (one) => categoryOf(one.state?.category ?? one.category);
