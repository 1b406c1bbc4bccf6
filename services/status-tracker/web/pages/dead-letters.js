// Messages that could not be used, why, and a second try.

import { every, load, main, on, put, write } from './frame.js';
import { call, state } from '../live.js';
import { $, CANCEL, Html, dialog, html, number, plural, spaced, time, toast, words } from '../parts.js';

export function deadLetters() {
  let letters = [], next = null, why = '', note = '';
  const chosen = new Set();
  const page = cursor => call(`/dead-letters?limit=100${why && `&reason=${encodeURIComponent(why)}`}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`);
  const fetchAll = async () => {
    const [first, summary] = await Promise.all([page(), call('/summary')]);
    state.summary = summary;
    [letters, next] = [first.items, first.next_cursor];
    for (const id of chosen) if (!letters.some(it => it.id === id)) chosen.delete(id);
  };
  const draw = () => {
    const reasons = state.summary.dead_letter_reasons, total = state.summary.dead_letters ?? letters.length, most = Math.max(1, ...reasons.map(it => it.count));
    if (!total && !letters.length) {
      main.innerHTML = html`<div class="empty"><h1 tabindex="-1">No dead letters</h1><p>Messages that cannot be stored land here with their reason and their payload, and can be replayed. ${note || 'Nothing was refused.'}</p></div>`;
      return;
    }
    if (!$('#dl')) main.innerHTML = html`<h1 tabindex="-1">Dead letters</h1><p class="lede" id="dl-lede"></p>
      <section aria-labelledby="h-r"><div class="sec-h"><h2 id="h-r">Reasons</h2></div><table class="reasons"><thead class="vh"><tr><th scope="col">Reason</th><th scope="col">Share</th><th scope="col">Count</th></tr></thead><tbody id="why"></tbody></table></section>
      <section aria-labelledby="h-l"><div class="sec-h"><h2 id="h-l">Messages</h2><p id="dl-n" role="status"></p></div><table class="stack"><thead><tr><th scope="col"><input type="checkbox" id="all" aria-label="Select all shown"></th><th scope="col">Received</th><th scope="col">Topic</th><th scope="col">Reason</th><th scope="col">Payload</th></tr></thead><tbody id="dl"></tbody></table><p class="cmds" id="more"></p><div class="bar selbar"><span id="sel-n" class="dim" role="status"></span><span class="end bar" id="acts"></span></div></section>`;
    put($('#dl-lede'), html`${plural(total, 'message')} refused. Nothing is lost: each is kept with its reason until it is replayed or too old.`);
    put($('#why'), html`${reasons.map(({ reason, count }) => html`<tr><th scope="row"><button type="button" class="btn quiet" data-why="${reason}" aria-pressed="${why === reason}">${words(reason)}</button></th><td><svg aria-hidden="true"><rect width="${count / most * 100}%" height="10"/></svg></td><td class="num">${number(count)}</td></tr>`)}`);
    put($('#dl'), html`${letters.map(row)}`);
    put($('#dl-n'), html`${number(letters.length)}${next ? ' of more' : ''}${why ? `, refused as ${spaced(why)}` : ''}`);
    put($('#more'), next ? html`<button type="button" class="btn" data-act="more">Show older ones</button>` : '');
    selection();
  };
  const row = it => html`<tr><td><input type="checkbox" data-id="${it.id}" aria-label="Select the message of ${it.topic}" ${new Html(chosen.has(it.id) ? 'checked' : '')}></td><td>${time(it.received_at, true)}</td><td class="mono">${it.topic}</td><td>${words(it.reason)}${it.detail ? html`<div class="faint">${it.detail}</div>` : ''}</td><td class="pay mono" title="${it.payload}">${it.payload}${it.payload_bytes > it.payload.length ? html`<span class="faint"> … ${number(it.payload_bytes)} bytes</span>` : ''}</td></tr>`;
  const selection = () => {
    $('#sel-n').textContent = note || (chosen.size ? `${number(chosen.size)} selected. Replay publishes each again to its own topic.` : 'None selected.');
    put($('#acts'), html`${why ? write(`Replay all of “${spaced(why)}”…`, 'data-act="replay-all"') : ''}${write(chosen.size ? `Replay ${number(chosen.size)} selected` : 'Replay selected', `data-act="replay"${chosen.size ? '' : ' aria-disabled="true"'}`, 'main')}`);
    const all = $('#all');
    all.checked = chosen.size > 0 && chosen.size === letters.length;
    all.indeterminate = chosen.size > 0 && chosen.size < letters.length;
  };
  const refresh = async () => { try { await fetchAll(); draw(); } catch { /* the banner says that the connection is lost */ } };
  const replay = async body => {
    note = 'Publishing…';
    selection();
    try {
      const { replayed, failed } = await call('/dead-letters/replay', { method: 'POST', body });
      note = `${number(replayed)} published again${failed ? `, ${number(failed)} refused by the broker` : ''}. What is still refused comes back here.`;
      chosen.clear();
    } catch (problem) { note = ''; toast(problem); }
    await refresh();
    setTimeout(() => { note = ''; }, 8000);
  };
  load(fetchAll, () => {
    draw();
    on('link', () => { if ($('#sel-n')) selection(); });
    every(10000, () => { if (!chosen.size && letters.length <= 100) refresh(); });
    main.onchange = ({ target }) => {
      note = '';
      if (target.id === 'all') { for (const { id } of letters) if (target.checked) chosen.add(id); else chosen.delete(id); draw(); }
      else if (target.dataset.id) { if (target.checked) chosen.add(target.dataset.id); else chosen.delete(target.dataset.id); selection(); }
    };
    main.onclick = async event => {
      const button = event.target.closest('[data-why],[data-act]'), act = button?.dataset.act;
      if (!button || button.getAttribute('aria-disabled')) return;
      if (button.dataset.why) { why = why === button.dataset.why ? '' : button.dataset.why; chosen.clear(); await refresh(); }
      else if (act === 'more') {
        try { const older = await page(next); letters = letters.concat(older.items); next = older.next_cursor; draw(); } catch (problem) { toast(problem); }
      } else if (act === 'replay' && state.canWrite) replay({ ids: [...chosen] });
      else if (act === 'replay-all' && state.canWrite) dialog(`Replay all of “${spaced(why)}”?`, html`<p>At most 10,000, the oldest first. Each is published again to its own topic; what is still refused comes back.</p>`, html`${CANCEL}<button class="btn main" value="ok">Replay all</button>`, () => replay({ reason: why }));
    };
  });
}
