// Commands to a device, and what became of them.

import { every, put, write } from './frame.js';
import { call, state } from '../live.js';
import { $, CANCEL, capital, dialog, html, icon, number, time } from '../parts.js';

const COMMANDS = ['ping', 'identify', 'reboot'];
/** How long the server waits for the device, in seconds. */
const LIMIT_S = 30;
/** Entries kept. */
const LOG_MAX = 20;

export function commands(host, id, path) {
  const log = [];
  host.innerHTML = html`<p class="dim lede" id="why-not"></p><div class="cmds" id="cmds"></div><ol class="log" id="log" role="log" aria-label="Answers to commands"></ol>`;
  const draw = () => put($('#log'), html`${log.map(it => html`<li><span class="st ${it.kind}">${icon({ ok: 'ok', refused: 'no', timeout: 'wait', pending: 'wait' }[it.kind])}</span><span class="what mono">${it.name} ${it.body}</span>${time(it.at, true)}<p>${it.text}</p>${it.kind === 'pending' && html`<progress max="${LIMIT_S}" value="${Math.round((Date.now() - it.at) / 1e3)}" aria-label="Waiting for an answer"></progress>`}</li>`)}`);
  const send = async name => {
    const body = name === 'set-interval' ? { interval_ms: Number($('#iv').value) } : {};
    const entry = { name, body: name === 'set-interval' ? JSON.stringify(body) : '', kind: 'pending', at: Date.now(), text: `Waiting, 0 of ${LIMIT_S} s.` };
    log.unshift(entry);
    log.length = Math.min(log.length, LOG_MAX);
    draw();
    try {
      const { elapsed_ms: took, answer } = await call(`${path}/commands/${name}`, { method: 'POST', body });
      Object.assign(entry, { kind: 'ok', text: html`Answered in ${number(took)} ms. <span class="mono faint">${JSON.stringify(answer)}</span>` });
    } catch (problem) {
      const error = problem.answer?.error, why = typeof error === 'string' ? error : error?.message ?? error?.detail ?? JSON.stringify(error);
      if (problem.type === '/problems/command-timeout') Object.assign(entry, { kind: 'timeout', text: `No answer within ${Math.round((Date.now() - entry.at) / 1e3)} s. The device may still act on it.` });
      else Object.assign(entry, { kind: 'refused', text: problem.type === '/problems/command-refused' ? `Refused: ${why}` : `Not sent: ${problem.detail}` });
    }
    if ($('#log')) draw();
  };
  every(1000, () => {
    const waiting = log.filter(it => it.kind === 'pending');
    for (const it of waiting) it.text = `Waiting, ${Math.round((Date.now() - it.at) / 1e3)} of ${LIMIT_S} s.`;
    if (waiting.length) draw();
  });
  let drawn = null;
  return {
    /** Draws the buttons as the device and the token allow. */
    show(d) {
      const off = d.online ? '' : ' aria-disabled="true"', how = `${d.online} ${state.canWrite}`;
      $('#why-not').textContent = d.online ? '' : 'The device is offline: a command would not be answered, so sending is off until it is back.';
      if (drawn === how) return;
      drawn = how;
      const interval = $('#iv')?.value ?? '5000';
      $('#cmds').innerHTML = html`${COMMANDS.map(it => write(it === 'reboot' ? 'Reboot…' : capital(it), `data-cmd="${it}"${off}`))}<span class="bar"><label for="iv">Interval, ms</label><input id="iv" inputmode="numeric" value="${interval}">${write('Set interval', `data-cmd="set-interval"${off}`)}</span>`;
    },
    click(event) {
      const button = event.target.closest('[data-cmd]');
      if (!button || button.getAttribute('aria-disabled') || !state.canWrite) return;
      const name = button.dataset.cmd;
      if (name !== 'reboot') send(name);
      else dialog(`Reboot ${id}?`, html`<p>It will be offline for a while. Readings taken meanwhile are lost unless the device keeps them.</p>`, html`${CANCEL}<button class="btn main" value="ok">Reboot ${id}</button>`, () => send(name));
    },
  };
}
