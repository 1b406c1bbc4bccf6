// What nobody wants to hear of for a while.

import { every, load, main, on, put, write } from './frame.js';
import { call, state } from '../live.js';
import { $, duration, html, mark, plural, time, toast } from '../parts.js';

export function silences(tabs) {
  const draw = ({ items }) => {
    if (!$('#silences')) main.innerHTML = html`<h1 tabindex="-1">Alerts</h1><div id="tabs"></div><div id="silences"></div>`;
    put($('#tabs'), tabs('silences'));
    put($('#silences'), items.length ? html`<section aria-label="Silences"><div class="sec-h"><h2>Silences</h2><p>${plural(items.length, 'silence')}</p></div><table class="stack"><thead><tr><th scope="col">Alerts with</th><th scope="col">State</th><th scope="col">Until</th><th scope="col">By</th><th scope="col">Reason</th><th scope="col"><span class="vh">End it</span></th></tr></thead><tbody>${items.map(row)}</tbody></table></section>`
      : html`<div class="empty"><h2>No silence</h2><p>Open an alert and choose Silence: it stays in the list, and nobody is notified until the end time.</p></div>`);
  };
  const row = it => html`<tr><th scope="row" class="mono">${it.matchers.map((m, i) => html`${i ? html`<br>` : ''}${m.name}${m.op}${m.value}`)}</th><td>${it.active ? mark('resolved', 'In force') : mark('unknown', 'Not yet')}</td><td data-l="Until:">${time(it.ends_at)} <span class="faint">(${duration(Date.parse(it.ends_at) - Date.now())})</span></td><td data-l="By:">${it.created_by}</td><td class="dim">${it.comment}</td><td class="num">${write('End', html`data-end="${it.id}"`)}</td></tr>`;
  const fetchAll = () => call('/silences');
  const refresh = () => fetchAll().then(data => { if ($('#silences')) draw(data); }, () => { /* the banner says that the connection is lost */ });
  load(fetchAll, data => {
    draw(data);
    on('link', refresh);
    every(5000, refresh);
    main.onclick = async event => {
      const id = event.target.closest('[data-end]')?.dataset.end;
      if (!id || !state.canWrite) return;
      try { await call(`/silences/${id}`, { method: 'DELETE' }); } catch (problem) { if (problem.status !== 404) toast(problem); }
      refresh();
    };
  });
}
