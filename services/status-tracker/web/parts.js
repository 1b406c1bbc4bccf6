// Small tools and the parts that pages are made of. Nothing here knows where data comes from.

export const $ = (selector, from = document) => from.querySelector(selector);
export const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];

/** Text that is markup already. */
export class Html extends String {}
const ESCAPED = /[&<>"']/g;
function escaped(value) {
  if (value instanceof Html) return value;
  if (Array.isArray(value)) return value.map(escaped).join('');
  if (value == null || value === false) return '';
  return String(value).replace(ESCAPED, c => `&#${c.charCodeAt(0)};`);
}
/** Escapes every value: names and payloads are hostile input. */
export const html = (parts, ...values) => new Html(parts.reduce((text, part, i) => text + escaped(values[i - 1]) + part));

export const SECOND = 1e3, MINUTE = 60e3, HOUR = 3600e3, DAY = 24 * HOUR;
export const capital = text => text.charAt(0).toUpperCase() + text.slice(1);
/** A name of a program, as people write it: `firing_again` is "firing again". */
export const spaced = name => String(name).replaceAll('_', ' ');
export const words = name => capital(spaced(name));
/** Units that have a sign; a truth has none, for 1 and 0 say it. */
const SIGN = new Map(Object.entries({ celsius: '°C', fahrenheit: '°F', kelvin: 'K', percent: '%', hectopascal: 'hPa', volt: 'V', ampere: 'A', watt: 'W', lux: 'lx', decibel: 'dB', 'millimetre-per-second': 'mm/s', boolean: '' }));
export const sign = unit => SIGN.get(unit) ?? unit;
export const number = (value, digits = 0) => value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

const two = value => String(value).padStart(2, '0');
export function clock(t, seconds) {
  const d = new Date(t);
  return `${two(d.getHours())}:${two(d.getMinutes())}${seconds ? `:${two(d.getSeconds())}` : ''}`;
}
/** A duration given in milliseconds as people read it: three digits at most. */
export const milliseconds = ms => (ms < 1000 ? html`${number(ms, ms < 9.95 ? 1 : 0)} <small>ms</small>` : ms < 60e3 ? html`${number(ms / 1e3, ms < 9950 ? 1 : 0)} <small>s</small>` : duration(ms));

const WEEKDAY = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
export function when(t, seconds) {
  const then = new Date(t), now = new Date();
  if (then.toDateString() === now.toDateString()) return clock(t, seconds);
  if (now - then < 6 * DAY) return `${WEEKDAY[then.getDay()]} ${clock(t)}`;
  return `${then.getFullYear()}-${two(then.getMonth() + 1)}-${two(then.getDate())}`;
}
/** A moment in the viewer's zone, with UTC in the tooltip. */
export function time(t, seconds) {
  const iso = new Date(t).toISOString();
  return html`<time datetime="${iso}" title="${iso.replace('T', ' ').slice(0, 19)} UTC">${when(t, seconds)}</time>`;
}
export function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1e3)), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (s < 60) return `${s} s`;
  if (m < 60) return `${m} min`;
  if (h < 24) return `${h} h${m % 60 ? ` ${m % 60} min` : ''}`;
  return `${d} d${h % 24 ? ` ${h % 24} h` : ''}`;
}
export const ago = t => (Date.now() - t < 1500 ? 'just now' : `${duration(Date.now() - t)} ago`);

const WORD = { online: 'Online', offline: 'Offline', flapping: 'Flapping', unknown: 'Unknown', critical: 'Critical', warning: 'Warning', info: 'Info', resolved: 'Resolved' };
export const icon = id => html`<svg class="i" aria-hidden="true"><use href="#${id}"/></svg>`;
/** Shape and word before colour. */
export const mark = (state, word = WORD[state]) => html`<span class="st ${state}">${icon(state === 'resolved' ? 'ok' : state)}<span class="word">${word}</span></span>`;
export const axis = (...labels) => html`<p class="axis" aria-hidden="true">${labels.map(label => html`<span>${label}</span>`)}</p>`;
/** A name that leads to its device, if that is known. */
export const link = (id, device = id) => (device ? html`<a class="mono" href="#/devices/${encodeURIComponent(device)}">${id}</a>` : html`<span class="mono">${id}</span>`);
export const skeleton = html`<div role="status"><span class="vh">Loading</span><div class="sk l"></div><div class="sk w6"></div><div class="sk b"></div><div class="sk"></div><div class="sk w8"></div></div>`;
export const copyBox = text => html`<div class="copy"><pre>${text}</pre><button type="button" class="btn" data-act="copy" data-text="${text}">Copy</button></div>`;

export function bars(dbm) {
  const level = dbm > -55 ? 4 : dbm > -67 ? 3 : dbm > -78 ? 2 : 1;
  return html`<svg class="bars" viewBox="0 0 16 12" aria-hidden="true">${[0, 1, 2, 3].map(i => html`<rect class="${i < level ? 'on' : ''}" x="${i * 4}" y="${9 - i * 3}" width="3" height="${3 + i * 3}"/>`)}</svg>`;
}

export function spark(values, second) {
  if (values.length < 2) return html`<svg class="spark" aria-hidden="true"></svg>`;
  const all = second ? values.concat(second) : values, low = Math.min(...all), range = Math.max(...all) - low || 1;
  const points = list => list.map((v, i) => `${(i / (list.length - 1) * 100).toFixed(2)},${(31 - (v - low) / range * 28).toFixed(1)}`).join(' ');
  return html`<svg class="spark" viewBox="0 0 100 34" preserveAspectRatio="none" aria-hidden="true">${second && html`<polyline class="two" points="${points(second)}"/>`}<polyline points="${points(values)}"/></svg>`;
}

const SHAPE = { online: [72, 28], offline: [0, 100], flapping: [30, 70], unknown: [92, 8] };
/** The states of one device: a quiet low band while online, a tall block while not. */
export function strip(spans) {
  const from = spans[0][0], width = spans.at(-1)[1] - from;
  const label = spans.map(([a, b, state]) => `${WORD[state]} ${when(a)} to ${when(b)}`).join('; ');
  return html`<svg class="strip h24" role="img" aria-label="${label}">${spans.map(([a, b, state]) => html`<rect class="${state}" x="${((a - from) / width * 100).toFixed(3)}%" width="${Math.max(0.3, (b - a) / width * 100).toFixed(3)}%" y="${SHAPE[state][0]}%" height="${SHAPE[state][1]}%"><title>${WORD[state]} ${when(a)} to ${when(b)}, ${duration(b - a)}</title></rect>`)}</svg>`;
}
export const key = states => html`<p class="key">${states.map(state => html`<span><svg viewBox="0 0 14 12" aria-hidden="true"><rect class="${state}" width="14" y="${SHAPE[state][0] / 100 * 12}" height="${Math.max(2, SHAPE[state][1] / 100 * 12)}"/></svg>${WORD[state]}</span>`)}</p>`;

/** Says what failed, what did not change and what to do. */
export function toast(problem) {
  const host = $('#toasts');
  host.innerHTML = html`<div class="toast"><h3 class="st critical">${icon('critical')}${problem.title}</h3><p>${problem.detail}</p><p class="faint mono">${problem.status || ''} ${problem.type ?? ''}</p><div class="bar"><button type="button" class="btn" data-act="copy" data-text="${JSON.stringify(problem)}">Copy details</button><button type="button" class="btn quiet" data-act="toast-close">Dismiss</button></div></div>`;
  if (!host.matches(':popover-open')) host.showPopover();
}

export const CANCEL = html`<button class="btn" value="cancel" formnovalidate>Cancel</button>`;
export function dialog(title, body, buttons, done) {
  const box = $('#dialog');
  box.innerHTML = html`<form method="dialog"><h2 id="dialog-title">${title}</h2>${body}<div class="bar">${buttons}</div></form>`;
  box.onclose = () => {
    const answer = box.returnValue;
    box.returnValue = '';
    if (answer && answer !== 'cancel') done(box);
  };
  box.showModal();
}
