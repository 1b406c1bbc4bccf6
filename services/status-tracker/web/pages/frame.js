// What every page stands on: drawing, leaving, waiting, and buttons that write.

import { bus, state } from '../live.js';
import { $, Html, copyBox, html, icon, skeleton } from '../parts.js';

export const main = $('#main');

/** What is undone when a page is left. */
const undo = [];
export const undoWith = fn => undo.push(fn);
export function leave() {
  undo.splice(0).forEach(fn => fn());
  main.onclick = main.oninput = main.onchange = main.onsubmit = null;
}
/** Listens on the bus until the page is left. */
export function on(name, fn) {
  bus.addEventListener(name, fn);
  undoWith(() => bus.removeEventListener(name, fn));
}
/** Repeats until the page is left. */
export function every(ms, fn) {
  const id = setInterval(fn, ms);
  undoWith(() => clearInterval(id));
}

/** Never does the work twice at once: asked for while it runs, it runs once more after that. */
export function inTurn(work) {
  let runs = false, again = false;
  return async function run() {
    again = runs;
    if (runs) return;
    runs = true;
    try { await work(); } finally { runs = false; }
    if (again) await run();
  };
}

/** Redraws a piece only if it differs, so that focus, selection and screen readers stay where they are. */
export function put(el, text) {
  if (el && el.drawn !== String(text)) {
    el.innerHTML = text;
    el.drawn = String(text);
  }
}

/** A button that writes. Without a token it stays, shows a lock, and opens the unlock dialog. */
export const write = (label, attributes = '', kind = '') =>
  html`<button type="button" class="btn ${kind}" data-write ${new Html(attributes)}>${!state.canWrite && icon('lock')}${label}</button>`;

/** What failed, what it means, and what to do. */
const failure = problem => html`<div class="empty"><h1 tabindex="-1">${problem.title ?? 'The page cannot be drawn'}</h1>
  <p>${problem.detail ?? String(problem)}</p>
  <p>${problem.status === 401
    ? html`<button type="button" class="btn main" data-act="unlock">Unlock</button>`
    : html`<button type="button" class="btn" data-act="reload">Try again</button>`}</p></div>`;

/** Draws when the data is there; a skeleton only if that takes longer than a blink; what failed, if it does. */
export async function load(work, draw) {
  let here = true;
  undoWith(() => { here = false; });
  const wait = setTimeout(() => { if (here) main.innerHTML = skeleton; }, 150);
  try {
    const data = await work();
    if (here) draw(data);
  } catch (problem) {
    if (here) main.innerHTML = failure(problem);
    if (!problem.title) console.error(problem);
  } finally {
    clearTimeout(wait);
  }
}

const READING = `mosquitto_pub -V 5 -q 1 -t sensors/desk/temperature -m "{\\"sensor_id\\":\\"temp-my-first\\",\\"type\\":\\"temperature\\",\\"value\\":21.5,\\"unit\\":\\"celsius\\",\\"location\\":\\"desk\\",\\"timestamp\\":\\"$(date -u +%FT%TZ)\\"}"`;
const STATUS = `mosquitto_pub -V 5 -r -q 1 -t devices/my-first/status -m '{"online":true}'`;
/** The first run: the next step is a command to copy. */
export const emptyFleet = summary => html`<div class="empty"><h1 tabindex="-1">No device yet</h1>
  <p>The broker and the store are ready. Let a device say that it is there, and it shows up within a second:</p>${copyBox(STATUS)}
  <p>Then give it a reading:</p>${copyBox(READING)}
  <p>Or let the simulator bring 50 devices:</p>${copyBox('device-sim --devices 50 --profile tutorial')}
  <p class="st online">${icon('online')}<span>Listening on <code>sensors/#</code> and <code>devices/+/status</code> at ${summary.broker.url}</span></p></div>`;
