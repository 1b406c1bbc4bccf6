// The frame around the pages: navigation, connection, access, theme.

import { bus, checkAccess, listen, retryNow, state, useToken } from './live.js';
import { alerts, deadLetters, device, devices, leave, overview } from './pages.js';
import { $, $$, CANCEL, Html, clock, dialog, duration, html, icon, number } from './parts.js';

const main = $('#main');
const NAV = [['overview', 'Overview'], ['devices', 'Devices'], ['alerts', 'Alerts'], ['dead-letters', 'Dead letters']];
const PAGES = { overview, devices, device, alerts, 'dead-letters': deadLetters };
let page = '', firstPage = true;

function shell() {
  const s = state.summary, firing = s?.alerts ? s.alerts.critical + s.alerts.warning + s.alerts.info : 0, worst = s?.alerts?.critical ? 'critical' : s?.alerts?.warning ? 'warning' : 'info';
  const count = id => (id === 'alerts' && firing ? html` <span class="count st ${worst}">${icon(worst)}${number(firing)}<span class="vh"> firing</span></span>` : id === 'dead-letters' && s?.dead_letters ? html` <span class="count">${number(s.dead_letters)}</span>` : '');
  const nav = html`<ul>${NAV.map(([id, label]) => html`<li><a href="#/${id}" ${new Html(page === id || (page === 'device' && id === 'devices') ? 'aria-current="page"' : '')}>${icon(`n-${id}`)}${label}${count(id)}</a></li>`)}</ul>`;
  put($('#nav'), nav);
  const theme = document.documentElement.dataset.theme ?? 'auto', word = { auto: 'Auto', light: 'Light', dark: 'Dark' }[theme];
  put($('#theme'), html`${icon({ auto: 'auto', light: 'sun', dark: 'moon' }[theme])}<span class="long">${word}</span>`);
  $('#theme').setAttribute('aria-label', `Theme: ${word}. Change.`);
  put($('#access'), html`${icon(state.canWrite ? 'unlock' : 'lock')}<span class="long">${state.canWrite ? 'Can write' : 'Read-only'}</span>`);
  $('#access').setAttribute('aria-label', state.canWrite ? 'Unlocked with a token. Lock again.' : 'Read-only. Unlock.');
  put($('#stream'), state.live ? html`<span class="st online">${icon('online')}<span>Live</span></span>` : html`<span class="st offline">${icon('offline')}<span>Not live</span></span>`);
  const lost = !state.live && state.attempt > 0;
  document.body.classList.toggle('stale', lost);
  put($('#banner'), lost ? html`<div class="note-box"><div><strong>Connection lost.</strong> ${state.lostAt ? `What you see is from ${clock(state.lostAt, true)}.` : 'Nothing was received yet.'} <span id="retry" aria-hidden="true"></span><span class="vh" role="status">Trying again by itself.</span></div><button type="button" class="btn" data-act="retry">Try now</button></div>` : '');
}
/** Redraws a piece only if it differs, so that focus and screen readers stay where they are. */
function put(el, text) { if (el.drawn !== String(text)) { el.innerHTML = text; el.drawn = String(text); } }

function render() {
  leave();
  const [path, query] = location.hash.slice(2).split('?'), [name, id] = path.split('/').map(it => { try { return decodeURIComponent(it); } catch { return it; } });
  page = name === 'devices' && id ? 'device' : PAGES[name] ? name : 'overview';
  document.title = `${page === 'device' ? id : NAV.find(it => it[0] === page)[1]} · mqtt-fleet`;
  shell();
  PAGES[page](id, new URLSearchParams(query));
  if (!firstPage) { scrollTo(0, 0); ($('h1', main) ?? main).focus({ preventScroll: true }); }
  firstPage = false;
}

function unlock() {
  const hint = state.writes ? '' : html`<p class="dim">No token is set on this server. Start it with <code>API_TOKEN_FILE=token.txt</code>.</p>`;
  dialog('This page is read-only', html`<p>Reading needs no token unless the server asks for one. Commands and configuration do.</p><label>API token<input type="password" id="tok" autocomplete="off" required></label><p class="faint">Kept in this tab only, gone when you close it.</p>${hint}`,
    html`${CANCEL}<button class="btn main" value="ok">Unlock</button>`, async box => { await useToken($('#tok', box).value); render(); });
}

addEventListener('hashchange', render);
$('.skip').onclick = event => { event.preventDefault(); main.focus(); };
$('#find').onsubmit = event => { event.preventDefault(); const q = $('#find-q').value.trim(); if (q) location.hash = `#/devices?q=${encodeURIComponent(q)}`; };
$('#theme').onclick = () => {
  const root = document.documentElement.dataset, next = { undefined: 'light', light: 'dark', dark: '' }[root.theme];
  if (next) root.theme = next; else delete root.theme;
  try { if (next) localStorage.setItem('theme', next); else localStorage.removeItem('theme'); } catch { /* storage may be blocked */ }
  render();
  $('#theme').focus();
};
$('#access').onclick = () => { if (state.canWrite) useToken(null).then(render); else unlock(); };
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', render);
document.addEventListener('click', event => {
  const write = event.target.closest('[data-write]');
  if (write && !state.canWrite) { event.preventDefault(); unlock(); return; }
  const button = event.target.closest('[data-act]'), act = button?.dataset.act;
  if (act === 'toast-close') $('#toasts').hidePopover();
  if (act === 'retry') retryNow();
  if (act === 'reload') render();
  if (act === 'copy') { navigator.clipboard?.writeText(button.dataset.text); button.textContent = 'Copied'; }
});
bus.addEventListener('link', shell);
bus.addEventListener('summary', shell);
setInterval(() => {
  for (const el of $$('[data-since]')) el.textContent = duration(Date.now() - el.dataset.since);
  const retry = $('#retry');
  if (retry) { const left = Math.max(0, Math.round((state.retryAt - Date.now()) / 1e3)); retry.textContent = left ? `Trying again in ${left} s (attempt ${state.attempt}).` : 'Connecting…'; }
}, 1000);
render();
checkAccess();
listen();
