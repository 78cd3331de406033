// Asking the server, and telling it what must not be lost.

import { $ } from "/review.js";

export const sending = { number: 0, last: Promise.resolve() }; // what is not kept yet: how many, and the last of them
let [heard, refused] = [() => {}, () => {}];

/** Says who takes in what the server answers to what is sent, and what it refuses. */
export function listen({ onAnswer, onRefusal }) { [heard, refused] = [onAnswer, onRefusal]; }

export async function ask(address, body) {
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
export function send(address, body) {
  sending.number += 1;
  showSaved();
  const sent = sending.last.then(() => untilKept(address, body)).then((answer) => {
    sending.number -= 1;
    showSaved();
    return answer;
  });
  sending.last = sent;
  return sent.then((answer) => {
    if (answer) heard(answer);
    return answer;
  });
}

async function untilKept(address, body) {
  for (let wait = 300; ; wait = Math.min(wait * 2, 5000)) {
    try {
      return await ask(address, body);
    } catch (error) {
      if (error.isFinal) {
        refused(error.message);
        return null;
      }
      showSaved(`not saved yet: ${error.message}`);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

export function showSaved(problem = "") {
  $("saved").className = problem ? "lost" : sending.number ? "busy" : "";
  $("saved").textContent = problem || (sending.number ? "saving" : "saved");
}

window.addEventListener("beforeunload", (event) => { if (sending.number) event.preventDefault(); });
