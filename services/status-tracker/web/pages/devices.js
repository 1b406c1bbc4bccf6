// All devices in one table of which only the rows in sight are in the document.

import { emptyFleet, every, load, main, on } from './frame.js';
import { all, call, state } from '../live.js';
import { $, $$, ago, bars, html, icon, mark, number, plural } from '../parts.js';

const COLUMNS = [['state', 'State', 'c-state'], ['device_id', 'Device', 'c-id'], ['location', 'Location', 'lo'], ['types', 'Measures', 'lo'], ['last_seen', 'Last seen', 'c-seen'], ['signal_strength', 'Signal', 'c-sig lo'], ['battery_percent', 'Battery', 'c-bat'], ['firmware_version', 'Firmware', 'c-fw lo']];
const RANK = { offline: 0, flapping: 1, unknown: 2, online: 3 };
/** Rows drawn above and below those in sight. */
const SPARE = 8;
const order = { by: 'state', direction: 1 };

export function devices(_, query) {
  const filter = { q: query.get('q') ?? '', state: query.get('state') ?? '', location: '', type: '' };
  const work = async () => {
    state.summary ??= await call('/summary');
    return all('/devices');
  };
  load(work, items => table(new Map(items.map(it => [it.device_id, it])), filter));
}

const dash = html`<span class="faint">–</span>`;
const signal = dbm => (dbm == null ? dash : html`${bars(dbm)}${String(dbm).replace('-', '−')} <span class="faint">dBm</span>`);
const battery = percent => (percent == null ? dash : percent < 10 ? html`<span class="st warning">${icon('warning')}${percent} %</span>` : `${percent} %`);
const row = (d, i) => html`<tr aria-rowindex="${i + 2}"><td class="c-state">${mark(d.state)}</td>
  <th scope="row" class="c-id"><a class="mono" data-i="${i}" href="#/devices/${encodeURIComponent(d.device_id)}">${d.device_id}</a><span class="sub">${d.location}</span></th>
  <td class="lo dim">${d.location}</td><td class="lo dim">${d.types.join(', ')}</td>
  <td class="c-seen" data-seen="${d.last_seen && Date.parse(d.last_seen)}">${d.last_seen ? ago(Date.parse(d.last_seen)) : dash}</td>
  <td class="c-sig lo">${signal(d.signal_strength)}</td><td class="c-bat">${battery(d.battery_percent)}</td><td class="c-fw lo mono">${d.firmware_version}</td></tr>`;
const pad = kind => html`<tr class="pad ${kind}" aria-hidden="true"><td></td></tr>`;
const options = values => [...new Set(values)].filter(Boolean).sort().map(it => html`<option>${it}</option>`);

const frame = (known, filter) => html`<h1 tabindex="-1">Devices</h1>
  <div class="bar tools lede"><label class="vh" for="dq">Search devices</label><input id="dq" type="search" placeholder="Device, location or firmware" value="${filter.q}" spellcheck="false" autocomplete="off">
    <div class="seg" role="group" aria-label="State">${['', 'online', 'offline', 'flapping', 'unknown'].map(it => html`<button type="button" class="btn" data-state="${it}">${it ? mark(it) : 'All'} <span class="${it ? '' : 'all'}" data-count="${it}"></span></button>`)}</div>
    <label class="vh" for="dl">Location</label><select id="dl"><option value="">All locations</option>${options([...known.values()].map(it => it.location))}</select>
    <label class="vh" for="dt">Measures</label><select id="dt"><option value="">All sensors</option>${options([...known.values()].flatMap(it => it.types))}</select>
    <span class="dim end" id="dn" role="status"></span></div>
  <div class="vt" tabindex="0" role="region" aria-label="Devices, scrollable"><table><thead><tr aria-rowindex="1">${COLUMNS.map(([id, label, kind]) => html`<th scope="col" class="${kind}" data-col="${id}"><button type="button" class="sort" data-sort="${id}">${label}</button></th>`)}</tr></thead><tbody></tbody></table></div>
  <p class="faint lo axis">Arrow keys move between rows, Enter opens a device.</p>`;

/** What a device is sorted by. */
function sortValue(d) {
  switch (order.by) {
    case 'state': return RANK[d.state];
    case 'battery_percent': return d.battery_percent ?? 101;
    case 'signal_strength': return d.signal_strength ?? -999;
    case 'types': return d.types.join();
    default: return d[order.by] ?? '';
  }
}

function table(known, filter) {
  if (!known.size) { main.innerHTML = emptyFleet(state.summary); on('device', () => dispatchEvent(new Event('hashchange'))); return; }
  main.innerHTML = frame(known, filter);
  const view = $('.vt'), body = $('tbody', view);
  let rows = [], first = -1;
  const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue('--row'));
  const draw = force => {
    const h = rowHeight(), from = Math.max(0, Math.floor(view.scrollTop / h) - SPARE), to = Math.min(rows.length, from + Math.ceil(view.clientHeight / h) + 2 * SPARE);
    if (!force && from === first) return;
    first = from;
    const focused = document.activeElement?.dataset?.i;
    body.innerHTML = html`${pad('p1')}${rows.slice(from, to).map((d, i) => row(d, from + i))}${pad('p2')}`;
    $('.p1 td', body).style.height = `${from * h}px`;
    $('.p2 td', body).style.height = `${(rows.length - to) * h}px`;
    if (focused) $(`[data-i="${focused}"]`, body)?.focus({ preventScroll: true });
  };
  const passes = d => {
    const q = filter.q.toLowerCase();
    return (!filter.state || d.state === filter.state) && (!filter.location || d.location === filter.location) && (!filter.type || d.types.includes(filter.type))
      && (!q || d.device_id.toLowerCase().includes(q) || d.location?.toLowerCase().includes(q) || d.firmware_version?.startsWith(q));
  };
  const apply = top => {
    const keyed = [...known.values()].filter(passes).map(d => [sortValue(d), d]);
    keyed.sort(([x, a], [y, b]) => (x < y ? -1 : x > y ? 1 : a.device_id < b.device_id ? -1 : 1) * order.direction);
    rows = keyed.map(([, d]) => d);
    for (const th of $$('th[data-col]', view)) {
      const sorted = th.dataset.col === order.by, label = COLUMNS.find(it => it[0] === th.dataset.col)[1];
      if (sorted) th.setAttribute('aria-sort', order.direction > 0 ? 'ascending' : 'descending'); else th.removeAttribute('aria-sort');
      $('button', th).innerHTML = html`${label}${sorted && icon(order.direction > 0 ? 'up' : 'down')}`;
    }
    const counts = { '': known.size };
    for (const d of known.values()) counts[d.state] = (counts[d.state] ?? 0) + 1;
    for (const button of $$('[data-state]', main)) {
      button.setAttribute('aria-pressed', button.dataset.state === filter.state);
      button.hidden = button.dataset.state === 'unknown' && !counts.unknown && filter.state !== 'unknown';
    }
    for (const el of $$('[data-count]', main)) el.textContent = number(counts[el.dataset.count] ?? 0);
    $('table', view).setAttribute('aria-rowcount', rows.length + 1);
    $('#dn').textContent = rows.length === known.size ? plural(rows.length, 'device') : `${number(rows.length)} of ${plural(known.size, 'device')}`;
    if (top) view.scrollTop = 0;
    draw(true);
    if (!rows.length) body.innerHTML = html`<tr><td colspan="4"><p class="empty">No device matches. <button type="button" class="btn" data-act="clear">Clear the filters</button></p></td></tr>`;
  };
  view.addEventListener('scroll', () => requestAnimationFrame(() => draw()), { passive: true });
  view.addEventListener('keydown', event => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15 }[event.key], at = Number(event.target.dataset.i ?? NaN);
    if (!step || (Number.isNaN(at) && event.target !== view)) return;
    event.preventDefault();
    const h = rowHeight(), to = Number.isNaN(at) ? Math.round(view.scrollTop / h) : Math.max(0, Math.min(rows.length - 1, at + step)), y = to * h;
    if (y < view.scrollTop) view.scrollTop = y;
    else if (y + h + 34 > view.scrollTop + view.clientHeight) view.scrollTop = y + h + 34 - view.clientHeight;
    draw();
    $(`[data-i="${to}"]`, body)?.focus({ preventScroll: true });
  });
  main.oninput = ({ target }) => {
    const part = { dq: 'q', dl: 'location', dt: 'type' }[target.id];
    if (part) { filter[part] = target.value.trim(); apply(true); }
  };
  main.onclick = event => {
    const button = event.target.closest('[data-state],[data-sort],[data-act="clear"]');
    if (!button) return;
    if (button.dataset.sort) Object.assign(order, { direction: order.by === button.dataset.sort ? -order.direction : 1, by: button.dataset.sort });
    else if (button.dataset.act) { Object.assign(filter, { q: '', state: '', location: '', type: '' }); for (const id of ['dq', 'dl', 'dt']) $(`#${id}`).value = ''; }
    else filter.state = button.dataset.state;
    apply(true);
  };
  apply(true);
  // Changes are drawn together, at most once a second.
  let dirty = false, stale = false;
  on('device', ({ detail }) => { known.set(detail.device_id, detail); dirty = true; });
  on('removed', ({ detail }) => { known.delete(detail.device_id); dirty = true; });
  on('reset', () => { stale = true; });
  every(1000, async () => {
    if (stale) {
      stale = false;
      try { known = new Map((await all('/devices')).map(it => [it.device_id, it])); dirty = true; } catch { stale = true; }
    }
    if (dirty) { dirty = false; apply(); }
    for (const td of $$('[data-seen]', body)) if (td.dataset.seen) td.textContent = ago(Number(td.dataset.seen));
  });
}
