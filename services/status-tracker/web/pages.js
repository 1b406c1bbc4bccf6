// One function a page: draws itself into `main` and keeps itself current until it is left.

import { all, bus, call, state } from './live.js';
import { $, $$, CANCEL, DAY, HOUR, Html, ago, axis, bars, copyBox, dialog, duration, html, icon, key, link, mark, number, plot, plural, skeleton, spark, strip, time, toast, when } from './parts.js';

const main = $('#main');
/** What is undone when a page is left. */
const undo = [];
export function leave() { undo.splice(0).forEach(fn => fn()); main.onclick = main.oninput = main.onsubmit = null; }
const on = (name, fn) => { bus.addEventListener(name, fn); undo.push(() => bus.removeEventListener(name, fn)); };
const every = (ms, fn) => { const id = setInterval(fn, ms); undo.push(() => clearInterval(id)); };

/** A button that writes. Without a token it stays, shows a lock, and opens the unlock dialog. */
const write = (label, attributes = '', kind = '') => html`<button type="button" class="btn ${kind}" data-write ${new Html(attributes)}>${!state.canWrite && icon('lock')}${label}</button>`;

/** Draws when the data is there; a skeleton only if that takes longer than a blink; what failed, if it does. */
async function load(work, draw) {
  let here = true;
  undo.push(() => { here = false; });
  const wait = setTimeout(() => { if (here) main.innerHTML = skeleton; }, 150);
  try {
    const data = await work();
    clearTimeout(wait);
    if (here) draw(data);
  } catch (problem) {
    clearTimeout(wait);
    if (here) main.innerHTML = html`<div class="empty"><h1 tabindex="-1">${problem.title ?? 'The page cannot be drawn'}</h1><p>${problem.detail ?? String(problem)}</p><p><button type="button" class="btn" data-act="reload">Try again</button></p></div>`;
  }
}

const FIRST = `mosquitto_pub -r -q 1 -t devices/my-first/status -m '{"online":true}'`;
const empty = summary => html`<div class="empty"><h1 tabindex="-1">No device yet</h1><p>The broker and the store are ready. Let a device say that it is there, and it shows up within a second:</p>${copyBox(FIRST)}<p>Or let the simulator bring 50 devices:</p>${copyBox('device-sim --devices 50 --profile tutorial')}<p class="st online">${icon('online')}<span>Listening on <code>sensors/#</code> and <code>devices/+/status</code> at ${summary.broker.url}</span></p></div>`;

/* ---------- Overview ---------- */

function sentence({ devices, alerts }) {
  const who = devices.online === devices.total ? `All ${number(devices.total)} devices online.` : `${number(devices.online)} of ${plural(devices.total, 'device')} online.`;
  if (!alerts) return who;
  const firing = ['critical', 'warning', 'info'].filter(it => alerts[it]);
  if (!firing.length) return `${who} No alert firing.`;
  const [worst, ...rest] = firing.map(it => plural(alerts[it], it === 'critical' ? 'critical alert' : it === 'info' ? 'notice' : 'warning'));
  return `${worst} firing${rest.length ? `, ${rest.join(', ')}` : ''}. ${who}`;
}

const worstOf = alerts => (alerts?.critical ? 'critical' : alerts?.warning ? 'warning' : alerts?.info ? 'info' : 'online');

export function overview() {
  let alerts = [], drawn = false;
  const draw = () => {
    const s = state.summary;
    if (!s.devices.total) { main.innerHTML = empty(s); drawn = false; return; }
    if (!drawn) {
      main.innerHTML = html`<h1 class="headline" tabindex="-1"></h1><div class="inst"></div>
        <section aria-labelledby="h-f"><div class="sec-h"><h2 id="h-f">Firing now</h2><p><a href="#/alerts">all alerts</a></p></div><div id="firing"></div></section>
        <div class="cols"><section aria-labelledby="h-i"><div class="sec-h"><h2 id="h-i">Services</h2><p id="services-n"></p></div><div class="scroll" id="services"></div></section>
        <section aria-labelledby="h-c"><div class="sec-h"><h2 id="h-c">Connections</h2></div><div id="links"></div></section></div>`;
      drawn = true;
    }
    pieces(s);
  };
  const put = (selector, text) => { const el = $(selector, main); if (el && el.innerHTML !== String(text)) el.innerHTML = text; };
  const pieces = s => {
    const { devices: d, delivery_ms: delay } = s, worst = worstOf(s.alerts), rates = state.samples.map(it => it[0]), span = `${duration(state.samples.length * 1e3)} ago`;
    put('.headline', html`<span class="st ${worst}">${icon(worst)}</span><span>${sentence(s)}</span>`);
    put('.inst', html`<div><h2>Readings published</h2><p class="big">${number(s.readings.per_second)} <small>/s</small></p>${spark(rates)}${axis(span, 'now')}</div>
      <div><h2>Delivery, device to here</h2><p class="big">${delay ? html`<span class="pair"><small>p50</small> ${number(delay.p50)} <small>ms</small></span><span class="pair"><small>p99</small> ${number(delay.p99)} <small>ms</small></span>` : html`<small>no reading yet</small>`}</p>${spark(state.samples.map(it => it[1]), state.samples.map(it => it[2]))}${axis(span, 'p50 solid, p99 dashed')}</div>
      <div><h2>Devices</h2><p class="big">${number(d.online)} <small>of ${number(d.total)} online</small></p><ul>${['offline', 'flapping', 'unknown'].map(it => html`<li><a href="#/devices?state=${it}">${mark(it)}</a>${number(d[it])}</li>`)}</ul></div>
      <div><h2>Dead letters</h2><p class="big">${s.dead_letters == null ? html`<small>the store does not answer</small>` : number(s.dead_letters)}</p><p class="dim">${s.dead_letters ? html`<a href="#/dead-letters">Inspect</a>` : s.dead_letters === 0 ? 'Nothing was refused.' : ''}</p></div>`);
    put('#firing', alerts.length ? html`<ol class="alerts">${alerts.slice(0, 10).map(alertRow)}</ol>` : html`<p class="empty dim">Nothing is firing.</p>`);
    put('#services-n', plural(s.services.filter(it => it.online).length, 'replica'));
    put('#services', html`<table><thead><tr><th scope="col">Service</th><th scope="col">Replica</th><th scope="col">State</th><th scope="col" class="num lo">Version</th><th scope="col" class="num">Since</th></tr></thead><tbody>${s.services.map(it => html`<tr><th scope="row">${it.service}</th><td class="mono">${it.instance}</td><td>${mark(it.online ? 'online' : 'offline')}</td><td class="num lo">${it.version}</td><td class="num">${it.since && time(it.since)}</td></tr>`)}</tbody></table>`);
    put('#links', html`<table><thead class="vh"><tr><th scope="col">Part</th><th scope="col">State</th><th scope="col">Since</th></tr></thead><tbody><tr><th scope="row">Broker<div class="faint">${s.broker.url}</div></th><td>${mark(s.broker.connected ? 'online' : 'offline', s.broker.connected ? 'Connected' : 'Away')}</td><td class="num dim">${s.broker.since && html`since ${time(s.broker.since)}`}</td></tr><tr><th scope="row">Store<div class="faint">${s.store.backend}</div></th><td>${mark(s.store.up ? 'online' : 'offline', s.store.up ? 'Answers' : 'Away')}</td><td></td></tr></tbody></table>`);
  };
  const fetchAlerts = async () => { try { alerts = (await call('/alerts?state=firing')).items; if (state.summary) draw(); } catch { /* the summary says that the store is away */ } };
  load(async () => { state.summary ??= await call('/summary'); }, () => {
    draw();
    fetchAlerts();
    on('summary', draw);
    on('alert', fetchAlerts);
    every(10000, fetchAlerts);
  });
}

const alertRow = a => html`<li><div>${mark(a.resolved_at ? 'resolved' : a.severity)}</div><div><span class="t">${a.message}</span><div class="who"><span class="mono">${a.sensor_id}</span> · rule ${a.rule}</div></div><div class="meta"><div>since ${time(a.fired_at)} ${a.resolved_at ? html`<span class="faint">for ${duration(Date.parse(a.resolved_at) - Date.parse(a.fired_at))}</span>` : html`<span class="faint">(<span data-since="${Date.parse(a.fired_at)}">${duration(Date.now() - Date.parse(a.fired_at))}</span>)</span>`}</div><div>${a.acknowledged_at ? html`acknowledged at ${time(a.acknowledged_at)}` : ''}</div></div></li>`;

export function alerts() {
  const fetchAll = () => call('/alerts?limit=200');
  const draw = ({ items }) => {
    const firing = items.filter(it => !it.resolved_at), over = items.filter(it => it.resolved_at);
    main.innerHTML = html`<h1 tabindex="-1">Alerts</h1><section aria-labelledby="h-f"><div class="sec-h"><h2 id="h-f">Firing</h2><p>${number(firing.length)}</p></div>${firing.length ? html`<ol class="alerts">${firing.map(alertRow)}</ol>` : html`<p class="empty dim">Nothing is firing.</p>`}</section>
      <section aria-labelledby="h-o"><div class="sec-h"><h2 id="h-o">Resolved</h2><p>newest first</p></div>${over.length ? html`<ol class="alerts">${over.map(alertRow)}</ol>` : html`<p class="empty dim">No alert has ended yet.</p>`}</section>`;
  };
  load(fetchAll, data => { draw(data); on('alert', () => fetchAll().then(draw, toast)); });
}

/* ---------- Devices ---------- */

const COLUMNS = [['state', 'State', 'c-state'], ['device_id', 'Device', 'c-id'], ['location', 'Location', 'lo'], ['types', 'Measures', 'lo'], ['last_seen', 'Last seen', 'c-seen'], ['signal_strength', 'Signal', 'c-sig lo'], ['battery_percent', 'Battery', 'c-bat'], ['firmware_version', 'Firmware', 'c-fw lo']];
const RANK = { offline: 0, flapping: 1, unknown: 2, online: 3 };
const order = { by: 'state', direction: 1 };

export function devices(_, query) {
  const filter = { q: query.get('q') ?? '', state: query.get('state') ?? '', location: '', type: '' };
  load(() => all('/devices'), items => table(new Map(items.map(it => [it.device_id, it])), filter));
}

function table(known, filter) {
  if (!known.size && state.summary) { main.innerHTML = empty(state.summary); return; }
  const options = values => [...new Set(values)].filter(Boolean).sort().map(it => html`<option>${it}</option>`);
  main.innerHTML = html`<h1 tabindex="-1">Devices</h1>
  <div class="bar tools lede"><label class="vh" for="dq">Search devices</label><input id="dq" type="search" placeholder="Device, location or firmware" value="${filter.q}" spellcheck="false" autocomplete="off">
    <div class="seg" role="group" aria-label="State">${['', 'online', 'offline', 'flapping', 'unknown'].map(it => html`<button type="button" class="btn" data-state="${it}">${it ? mark(it) : 'All'} <span class="${it ? '' : 'all'}" data-count="${it}"></span></button>`)}</div>
    <label class="vh" for="dl">Location</label><select id="dl"><option value="">All locations</option>${options([...known.values()].map(it => it.location))}</select>
    <label class="vh" for="dt">Measures</label><select id="dt"><option value="">All sensors</option>${options([...known.values()].flatMap(it => it.types))}</select>
    <span class="dim end" id="dn" role="status"></span></div>
  <div class="vt" tabindex="0" role="region" aria-label="Devices, scrollable"><table><thead><tr aria-rowindex="1">${COLUMNS.map(([id, label, kind]) => html`<th scope="col" class="${kind}" data-col="${id}"><button type="button" class="sort" data-sort="${id}">${label}</button></th>`)}</tr></thead><tbody></tbody></table></div>
  <p class="faint lo axis">Arrow keys move between rows, Enter opens a device.</p>`;
  const view = $('.vt'), body = $('tbody', view);
  let rows = [], first = -1;
  const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue('--row'));
  const battery = d => (d.battery_percent == null ? html`<span class="faint">–</span>` : d.battery_percent < 10 ? html`<span class="st warning">${icon('warning')}${d.battery_percent} %</span>` : `${d.battery_percent} %`);
  const row = (d, i) => html`<tr aria-rowindex="${i + 2}"><td class="c-state">${mark(d.state)}</td><th scope="row" class="c-id"><a class="mono" data-i="${i}" href="#/devices/${encodeURIComponent(d.device_id)}">${d.device_id}</a><span class="sub">${d.location}</span></th><td class="lo dim">${d.location}</td><td class="lo dim">${d.types.join(', ')}</td><td class="c-seen" data-seen="${d.last_seen && Date.parse(d.last_seen)}">${d.last_seen ? ago(Date.parse(d.last_seen)) : '–'}</td><td class="c-sig lo">${d.signal_strength == null ? '–' : html`${bars(d.signal_strength)}${String(d.signal_strength).replace('-', '−')} <span class="faint">dBm</span>`}</td><td class="c-bat">${battery(d)}</td><td class="c-fw lo mono">${d.firmware_version}</td></tr>`;
  const pad = kind => html`<tr class="pad ${kind}" aria-hidden="true"><td></td></tr>`;
  // Only the rows in sight are in the document; two empty ones stand for the rest.
  const draw = force => {
    const h = rowHeight(), from = Math.max(0, Math.floor(view.scrollTop / h) - 8), to = Math.min(rows.length, from + Math.ceil(view.clientHeight / h) + 16);
    if (!force && from === first) return;
    first = from;
    const focused = document.activeElement?.dataset?.i;
    body.innerHTML = html`${pad('p1')}${rows.slice(from, to).map((d, i) => row(d, from + i))}${pad('p2')}`;
    $('.p1 td', body).style.height = `${from * h}px`;
    $('.p2 td', body).style.height = `${(rows.length - to) * h}px`;
    if (focused) $(`[data-i="${focused}"]`, body)?.focus({ preventScroll: true });
  };
  const value = d => (order.by === 'state' ? RANK[d.state] : order.by === 'battery_percent' ? d.battery_percent ?? 101 : order.by === 'types' ? d.types.join() : d[order.by] ?? '');
  const passes = d => {
    const q = filter.q.toLowerCase();
    return (!filter.state || d.state === filter.state) && (!filter.location || d.location === filter.location) && (!filter.type || d.types.includes(filter.type))
      && (!q || d.device_id.toLowerCase().includes(q) || d.location?.toLowerCase().includes(q) || d.firmware_version?.startsWith(q));
  };
  const apply = top => {
    rows = [...known.values()].filter(passes).sort((a, b) => {
      const x = value(a), y = value(b), byId = a.device_id < b.device_id ? -1 : 1;
      return (x < y ? -1 : x > y ? 1 : byId) * order.direction;
    });
    for (const th of $$('th[data-col]', view)) {
      const sorted = th.dataset.col === order.by, label = COLUMNS.find(it => it[0] === th.dataset.col)[1];
      if (sorted) th.setAttribute('aria-sort', order.direction > 0 ? 'ascending' : 'descending'); else th.removeAttribute('aria-sort');
      $('button', th).innerHTML = html`${label}${sorted && icon(order.direction > 0 ? 'up' : 'down')}`;
    }
    for (const button of $$('[data-state]', main)) button.setAttribute('aria-pressed', button.dataset.state === filter.state);
    const counts = { '': known.size };
    for (const d of known.values()) counts[d.state] = (counts[d.state] ?? 0) + 1;
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

/* ---------- One device ---------- */

/** Transitions, newest first, as spans of the last 24 hours. */
function history(rows, now) {
  const from = now - DAY, spans = [];
  let until = now;
  for (const row of rows) {
    const at = Math.max(Date.parse(row.at), from);
    if (at < until) spans.unshift([at, until, row.online ? 'online' : 'offline']);
    until = at;
    if (at === from) break;
  }
  if (until > from) spans.unshift([from, until, 'unknown']);
  return spans;
}

const COMMANDS = ['ping', 'identify', 'reboot'];
const SPANS = [['1 h', 1], ['24 h', 24], ['7 d', 168]];
const LIMIT_S = 30;

export function device(id) {
  const path = `/devices/${encodeURIComponent(id)}`;
  load(async () => {
    const [d, past, sensors, config] = await Promise.all([call(path), call(`${path}/transitions?limit=200`), call(`/sensors?device=${encodeURIComponent(id)}&limit=50`), call(`${path}/config`)]);
    return { d, past: past.items, sensors: sensors.items, config };
  }, data => draw(id, path, data));
}

function facts(d) {
  const fact = (name, value, kind = '') => html`<div class="${kind}"><dt>${name}</dt><dd>${value}</dd></div>`;
  return html`${fact('Last seen', d.last_seen ? ago(Date.parse(d.last_seen)) : 'never')}${d.signal_strength != null && fact('Signal', html`${bars(d.signal_strength)}${String(d.signal_strength).replace('-', '−')} dBm`)}${d.battery_percent != null && fact('Battery', `${d.battery_percent} %`)}${d.firmware_version && fact('Firmware', html`<span class="mono">${d.firmware_version}</span>`)}${d.uptime_seconds != null && fact('Uptime', duration(d.uptime_seconds * 1e3))}${d.clock_skew_ms != null && fact('Clock', `${d.clock_skew_ms < 0 ? '−' : '+'}${duration(Math.abs(d.clock_skew_ms))}`)}${fact('Offline after', `${duration(d.silence_limit_ms)} of silence`)}${d.session_id && fact('Session', html`<span class="mono">${d.session_id}</span>`, 'lo')}`;
}

function draw(id, path, data) {
  let { d, past } = data;
  const log = [];
  main.innerHTML = html`<p class="crumb"><a href="#/devices">Devices</a> / ${d.location ?? 'no location'}</p>
  <div class="dev-h"><h1 class="mono" tabindex="-1">${id}</h1><span id="head"></span></div><dl class="facts" id="facts"></dl>
  <section aria-labelledby="h-s"><div class="sec-h"><h2 id="h-s">State, 24 h</h2><p id="offs"></p></div><div id="strip"></div>${axis(when(Date.now() - DAY), when(Date.now() - 12 * HOUR), 'now')}${key(['online', 'offline', 'unknown'])}</section>
  <div class="dev"><div><section aria-labelledby="h-p"><div class="sec-h"><h2 id="h-p">Sensors</h2><div class="seg" role="group" aria-label="Time span">${SPANS.map(([label, hours]) => html`<button type="button" class="btn" data-span="${hours}" aria-pressed="${hours === 1}">${label}</button>`)}</div></div><div id="plots"></div></section>
  <section aria-labelledby="h-t"><div class="sec-h"><h2 id="h-t">Recent transitions</h2></div><div id="past"></div></section></div>
  <div><section aria-labelledby="h-k"><div class="sec-h"><h2 id="h-k">Commands</h2></div><p class="dim lede" id="why-not"></p><div class="cmds">${COMMANDS.map(it => write(it === 'reboot' ? 'Reboot…' : it[0].toUpperCase() + it.slice(1), `data-cmd="${it}"`))}<span class="bar"><label for="iv">Interval, ms</label><input id="iv" inputmode="numeric" value="5000">${write('Set interval', 'data-cmd="set-interval"')}</span></div><ol class="log" id="log" role="log" aria-label="Answers to commands"></ol></section>
  <section aria-labelledby="h-g"><div class="sec-h"><h2 id="h-g">Configuration</h2><p id="cfg-n"></p></div><div id="cfg"></div></section></div></div>`;
  const head = () => {
    $('#head').innerHTML = html`${mark(d.state)} <span class="dim">${d.since && html`since ${time(d.since)} (<span data-since="${Date.parse(d.since)}">${duration(Date.now() - Date.parse(d.since))}</span>)`}${d.online ? '' : `, ${d.reason ?? 'nothing heard yet'}`}</span>`;
    $('#facts').innerHTML = facts(d);
    $('#why-not').textContent = d.online ? '' : 'The device is offline: a command would not be answered, so sending is off until it is back.';
    for (const button of $$('[data-cmd]')) if (d.online) button.removeAttribute('aria-disabled'); else button.setAttribute('aria-disabled', 'true');
  };
  const timeline = () => {
    const spans = history(past, Date.now()), off = spans.filter(it => it[2] === 'offline');
    $('#strip').innerHTML = strip(spans);
    $('#offs').textContent = off.length ? `offline ${off.length === 1 ? 'once' : `${off.length} times`}, ${duration(off.reduce((sum, [a, b]) => sum + b - a, 0))} in all` : 'not offline';
    $('#past').innerHTML = past.length ? html`<table><thead><tr><th scope="col">At</th><th scope="col">To</th><th scope="col" class="num">For</th><th scope="col" class="lo">Reason</th></tr></thead><tbody>${past.slice(0, 12).map((it, i) => html`<tr><td>${time(it.at, true)}</td><td>${mark(it.online ? 'online' : 'offline')}</td><td class="num">${duration((i ? Date.parse(past[i - 1].at) : Date.now()) - Date.parse(it.at))}</td><td class="lo dim">${it.reason}</td></tr>`)}</tbody></table>` : html`<p class="empty dim">None is stored yet.</p>`;
  };
  const ended = [];
  undo.push(() => ended.splice(0).forEach(fn => fn()));
  const plots = async hours => {
    ended.splice(0).forEach(fn => fn());
    const host = $('#plots'), to = Date.now(), from = new Date(to - hours * HOUR).toISOString();
    if (!data.sensors.length) { host.innerHTML = html`<p class="empty dim">No reading of a sensor of this device was heard yet. A sensor belongs to it when its name ends in <code>-${id}</code>.</p>`; return; }
    host.innerHTML = html`${data.sensors.map(() => html`<div></div>`)}`;
    await Promise.all(data.sensors.map(async (sensor, i) => {
      try {
        const { points } = await call(`/sensors/${encodeURIComponent(sensor.sensor_id)}/readings?from=${from}&points=300`);
        const place = host.children[i];
        if (!place?.isConnected) return;
        if (!points.length) place.innerHTML = html`<div class="plot"><div class="plot-h"><h3>${sensor.type}</h3></div><p class="empty dim">No reading in this span.</p></div>`;
        else ended.push(plot(place, { title: sensor.type, unit: sensor.unit, points }));
      } catch (problem) { if (problem.status === 404) host.children[i].innerHTML = html`<p class="empty dim">Nothing of ${sensor.sensor_id} is stored yet.</p>`; else toast(problem); }
    }));
  };
  const drawLog = () => { $('#log').innerHTML = html`${log.map(it => html`<li><span class="st ${it.kind}">${icon({ ok: 'ok', critical: 'no' }[it.kind] ?? 'wait')}</span><span class="what mono">${it.name} ${it.body}</span>${time(it.at, true)}<p>${it.text}</p>${it.waiting && html`<progress max="${LIMIT_S}" value="${(Date.now() - it.at) / 1e3}" aria-label="Waiting for an answer"></progress>`}</li>`)}`; };
  const send = async name => {
    const body = name === 'set-interval' ? { interval_ms: Number($('#iv').value) } : {};
    const entry = { name, body: name === 'set-interval' ? JSON.stringify(body) : '', kind: 'warning', at: Date.now(), waiting: true, text: `Waiting, 0 of ${LIMIT_S} s.` };
    log.unshift(entry);
    log.length = Math.min(log.length, 20);
    drawLog();
    try {
      const answer = await call(`${path}/commands/${name}`, { method: 'POST', body });
      Object.assign(entry, { kind: 'ok', text: `Answered in ${number(answer.elapsed_ms)} ms.` });
    } catch (problem) {
      const refused = problem.type === '/problems/command-refused', late = problem.type === '/problems/command-timeout', error = problem.answer?.error;
      const why = typeof error === 'string' ? error : error?.message ?? JSON.stringify(error);
      Object.assign(entry, { kind: late ? 'warning' : 'critical', text: refused ? `Refused: ${why}` : problem.detail });
      if (!refused && !late) toast(problem);
    }
    entry.waiting = false;
    if ($('#log')) drawLog();
  };
  const drawConfig = config => {
    const keys = [...new Set([...Object.keys(config.desired ?? {}), ...Object.keys(config.reported ?? {})])].sort(), text = value => (value === undefined ? html`<span class="faint">–</span>` : html`<code>${JSON.stringify(value)}</code>`);
    $('#cfg-n').textContent = config.desired && !config.in_sync ? 'waits for the device' : '';
    $('#cfg').innerHTML = html`${keys.length ? html`<table class="cfg"><thead><tr><th scope="col">Key</th><th scope="col">Desired</th><th scope="col">Reported</th></tr></thead><tbody>${keys.map(it => html`<tr><th scope="row" class="mono">${it}</th><td>${text(config.desired?.[it])}</td><td>${text(config.reported?.[it])}</td></tr>`)}</tbody></table>` : html`<p class="empty dim">Nothing is asked of it, and it reports nothing.</p>`}<p class="cmds">${write('Edit…', 'data-act="cfg"')}${config.desired ? write('Clear…', 'data-act="cfg-clear"') : ''}</p>`;
    data.config = config;
  };
  const reload = async () => {
    try {
      const [fresh, rows, config] = await Promise.all([call(path), call(`${path}/transitions?limit=200`), call(`${path}/config`)]);
      if (!$('#head')) return;
      d = fresh;
      past = rows.items;
      head(); timeline(); drawConfig(config);
    } catch { /* the banner says that the connection is lost */ }
  };
  const setConfig = (method, body) => call(`${path}/config`, { method, body }).then(reload, toast);
  head(); timeline(); plots(1); drawConfig(data.config);
  on('device', ({ detail }) => { if (detail.device_id === id) { d = detail; head(); setTimeout(reload, 500); } });
  on('reset', reload);
  on('link', () => drawConfig(data.config));
  every(5000, reload);
  every(1000, () => { const waiting = log.filter(it => it.waiting); for (const it of waiting) it.text = `Waiting, ${Math.round((Date.now() - it.at) / 1e3)} of ${LIMIT_S} s.`; if (waiting.length) drawLog(); });
  main.onclick = event => {
    const span = event.target.closest('[data-span]');
    if (span) { for (const it of $$('[data-span]')) it.setAttribute('aria-pressed', it === span); plots(Number(span.dataset.span)); return; }
    const button = event.target.closest('[data-cmd],[data-act^="cfg"]');
    if (!button || button.getAttribute('aria-disabled') || !state.canWrite) return;
    if (button.dataset.cmd === 'reboot') dialog(`Reboot ${id}?`, html`<p>It will be offline for a while. Readings taken meanwhile are lost unless the device keeps them.</p>`, html`${CANCEL}<button class="btn main" value="ok">Reboot ${id}</button>`, () => send('reboot'));
    else if (button.dataset.cmd) send(button.dataset.cmd);
    else if (button.dataset.act === 'cfg-clear') dialog(`Clear the configuration of ${id}?`, html`<p>Nothing is asked of the device any more; it keeps what is in force.</p>`, html`${CANCEL}<button class="btn main" value="ok">Clear</button>`, () => setConfig('DELETE'));
    else dialog(`Configuration of ${id}`, html`<label>Desired, a JSON object<input id="cfg-json" value="${JSON.stringify(data.config.desired ?? {})}" spellcheck="false" autocomplete="off"></label>`, html`${CANCEL}<button class="btn main" value="ok">Publish</button>`, box => {
      try { setConfig('PUT', JSON.parse($('#cfg-json', box).value)); } catch { toast({ title: 'That is not JSON', detail: 'Nothing was published. Write an object such as {"interval_ms":5000}.' }); }
    });
  };
}

/* ---------- Dead letters ---------- */

export function deadLetters() {
  load(() => call('/dead-letters?limit=100'), first => {
    if (!first.items.length) {
      main.innerHTML = html`<div class="empty"><h1 tabindex="-1">No dead letters</h1><p>Messages that cannot be stored land here with their reason and their payload. Nothing was refused.</p></div>`;
      return;
    }
    let letters = first.items, next = first.next_cursor, why = '';
    main.innerHTML = html`<h1 tabindex="-1">Dead letters</h1><p class="lede">Nothing is lost: each message is kept with its reason. Replay them with <code>fleet dead-letters replay</code>.</p>
      <section aria-labelledby="h-r"><div class="sec-h"><h2 id="h-r">Reasons</h2><p>of those shown</p></div><table class="reasons"><thead class="vh"><tr><th scope="col">Reason</th><th scope="col">Share</th><th scope="col">Count</th></tr></thead><tbody id="why"></tbody></table></section>
      <section aria-labelledby="h-l"><div class="sec-h"><h2 id="h-l">Messages</h2><p id="dl-n" role="status"></p></div><table class="stack"><thead><tr><th scope="col">Received</th><th scope="col">Topic</th><th scope="col">Reason</th><th scope="col">Payload</th></tr></thead><tbody id="dl"></tbody></table><p class="cmds" id="more"></p></section>`;
    const draw = () => {
      const counts = Object.entries(Object.groupBy(letters, it => it.reason)).map(([reason, list]) => [reason, list.length]).sort((a, b) => b[1] - a[1]), most = counts[0][1], shown = letters.filter(it => !why || it.reason === why);
      $('#why').innerHTML = html`${counts.map(([reason, count]) => html`<tr><th scope="row"><button type="button" class="btn quiet" data-why="${reason}" aria-pressed="${why === reason}">${reason}</button></th><td><svg aria-hidden="true"><rect width="${count / most * 100}%" height="10"/></svg></td><td class="num">${number(count)}</td></tr>`)}`;
      $('#dl').innerHTML = html`${shown.map(it => html`<tr><td>${time(it.received_at, true)}</td><td class="mono">${it.topic}</td><td title="${it.detail}">${it.reason}</td><td class="pay mono" title="${it.payload}">${it.payload}</td></tr>`)}`;
      $('#dl-n').textContent = `${number(shown.length)}${next ? ' of more' : ''}`;
      $('#more').innerHTML = next ? html`<button type="button" class="btn" data-act="more">Show older ones</button>` : '';
    };
    draw();
    main.onclick = async event => {
      const button = event.target.closest('[data-why],[data-act="more"]');
      if (!button) return;
      if (button.dataset.why) { why = why === button.dataset.why ? '' : button.dataset.why; draw(); return; }
      try {
        const page = await call(`/dead-letters?limit=100&cursor=${next}`);
        letters = letters.concat(page.items);
        next = page.next_cursor;
        draw();
      } catch (problem) { toast(problem); }
    };
  });
}
