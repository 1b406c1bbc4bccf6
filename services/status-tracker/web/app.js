// The frame around the pages: navigation, connection, access, theme.

import { bus, callMe, checkAccess, listen, me, retryNow, state, useToken } from './live.js';
import { alerts } from './pages/alerts.js';
import { deadLetters } from './pages/dead-letters.js';
import { device } from './pages/device.js';
import { devices } from './pages/devices.js';
import { leave, main, put } from './pages/frame.js';
import { overview } from './pages/overview.js';
import { rules } from './pages/rules.js';
import { $, $$, CANCEL, Html, clock, dialog, duration, html, icon, number, toast } from './parts.js';

const NAV = [['overview', 'Overview'], ['devices', 'Devices'], ['alerts', 'Alerts'], ['rules', 'Rules'], ['dead-letters', 'Dead letters']];
const PAGES = { overview, devices, device, alerts, rules, 'dead-letters': deadLetters };
let page = '', firstPage = true;

function shell() {
  const s = state.summary, worst = s?.alerts?.critical ? 'critical' : s?.alerts?.warning ? 'warning' : 'info';
  const count = id => (id === 'alerts' && firing() ? html` <span class="count st ${worst}">${icon(worst)}${number(firing())}<span class="vh"> firing, worst ${worst}</span></span>` : id === 'dead-letters' && s?.dead_letters ? html` <span class="count">${number(s.dead_letters)}</span>` : '');
  const nav = html`<ul>${NAV.map(([id, label]) => html`<li><a href="#/${id}" ${new Html(page === id || (page === 'device' && id === 'devices') ? 'aria-current="page"' : '')}>${icon(`n-${id}`)}${label}${count(id)}</a></li>`)}</ul>`;
  put($('#nav'), nav);
  const theme = document.documentElement.dataset.theme ?? 'auto', word = { auto: 'Auto', light: 'Light', dark: 'Dark' }[theme];
  put($('#theme'), html`${icon({ auto: 'auto', light: 'sun', dark: 'moon' }[theme])}<span class="long">${word}</span>`);
  $('#theme').setAttribute('aria-label', `Theme: ${word}. Change.`);
  put($('#access'), html`${icon(state.canWrite ? 'unlock' : 'lock')}<span class="long">${state.canWrite ? 'Can write' : 'Read-only'}</span>`);
  $('#access').setAttribute('aria-label', state.canWrite ? 'Unlocked with a token. Lock again.' : 'Read-only. Unlock.');
  put($('#stream'), state.live ? html`<span class="st online">${icon('online')}<span>Live</span></span><span class="long faint">UTC ${new Date().toISOString().slice(11, 16)}</span>` : html`<span class="st offline">${icon('offline')}<span>Not live</span></span>`);
  const lost = !state.live && !state.locked && state.attempt > 0;
  document.body.classList.toggle('stale', lost);
  put($('#banner'), banner(lost));
  title();
}
function banner(lost) {
  const box = (text, button) => html`<div class="note-box"><div>${text}</div>${button}</div>`;
  if (lost) return box(html`<strong>Connection lost.</strong> ${state.lostAt ? `What you see is from ${clock(state.lostAt, true)}.` : 'Nothing was received yet.'} <span id="retry" aria-hidden="true"></span><span class="vh" role="status">Trying again by itself.</span>`, html`<button type="button" class="btn" data-act="retry">Try now</button>`);
  const unlock = html`<button type="button" class="btn" data-act="unlock">Unlock</button>`;
  if (state.locked) return box(html`${icon('lock')} <strong>Locked.</strong> This server asks for the API token for reading too.`, unlock);
  if (state.known && !state.canWrite && state.writes) return box(html`${icon('lock')} <strong>Read-only.</strong> You can look at everything. To send commands or acknowledge alerts, unlock with the API token.`, unlock);
  return '';
}
const firing = () => { const a = state.summary?.alerts; return a ? a.critical + a.warning + a.info : 0; };
let subject = '';
function title() { document.title = `${subject}${firing() ? ` (${number(firing())} firing)` : ''} · mqtt-fleet`; }

function render() {
  leave();
  main.drawn = undefined;
  const [path, query] = location.hash.slice(2).split('?'), [name, id] = path.split('/').map(it => { try { return decodeURIComponent(it); } catch { return it; } });
  page = name === 'devices' && id ? 'device' : PAGES[name] ? name : 'overview';
  subject = page === 'device' ? id : NAV.find(it => it[0] === page)[1];
  shell();
  PAGES[page](id, new URLSearchParams(query));
  if (!firstPage) { scrollTo(0, 0); ($('h1', main) ?? main).focus({ preventScroll: true }); }
  firstPage = false;
}

function unlock() {
  const hint = state.writes ? '' : html`<p class="dim">No token is set on this server, so it takes no writes. Start it with <code>API_TOKEN_FILE=token.txt</code>.</p>`;
  dialog(state.locked ? 'This server is locked' : 'This page is read-only', html`<p>Commands, configuration, acknowledging, silences, backtests and replay need the token.</p>
    <label>API token<input type="password" id="tok" autocomplete="off" required></label><p class="faint">Kept in this tab only, gone when you close it.</p>
    <label>Your name<input id="who" maxlength="100" autocomplete="name" placeholder="Shown with what you acknowledge and silence" value="${me() === 'dashboard' ? '' : me()}"></label>${hint}`,
  html`${CANCEL}<button class="btn main" value="ok">Unlock</button>`, async box => {
    callMe($('#who', box).value.trim());
    const { locked } = state;
    await useToken($('#tok', box).value);
    // Pages draw their buttons anew by themselves; only one that could not be read is opened again.
    if (state.canWrite && locked) render();
    else if (!state.canWrite) toast({ title: state.writes ? 'That is not the token' : 'This server takes no writes', detail: state.writes ? 'The page stays read-only. Look for API_TOKEN, or the file that API_TOKEN_FILE names.' : 'No token is set on it.' });
  });
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
  if (act === 'unlock') unlock();
  if (act === 'reload') render();
  if (act === 'copy') { navigator.clipboard?.writeText(button.dataset.text); button.textContent = 'Copied'; }
});
document.addEventListener('keydown', event => {
  if (event.key !== '/' || event.target.closest('input, textarea, select, dialog')) return;
  event.preventDefault();
  $('#find-q').focus();
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
