// One device: its state of the last day, its sensors, commands, configuration.

import { rulesSoon, thresholds } from './alerting.js';
import { commands } from './commands.js';
import { configuration } from './configuration.js';
import { every, load, main, on, put, undoWith } from './frame.js';
import { call } from '../live.js';
import { $, $$, DAY, HOUR, ago, axis, bars, duration, html, key, mark, number, sign, spaced, strip, time, toast, when, words } from '../parts.js';
import { plot } from '../plot.js';

/** Transitions, newest first, as spans of the last 24 hours. */
export function history(rows, now) {
  const from = now - DAY, spans = [];
  let until = now;
  for (const row of rows) {
    const at = Math.max(Date.parse(row.at), from);
    if (at < until) spans.unshift([at, until, row.online ? 'online' : 'offline']);
    until = at;
    if (at === from) break;
  }
  if (until > from) spans.unshift([from, until, 'unknown']);
  return flapping(spans);
}
const FLAP = 10 * 60e3;
/** Joins three and more short absences within ten minutes of each other into one span of flapping. */
function flapping(spans) {
  const joined = [];
  for (let i = 0; i < spans.length; i += 1) {
    let last = i, times = 0;
    if (spans[i][2] === 'offline') {
      for (let j = i; j < spans.length && spans[j][1] - spans[j][0] < FLAP; j += 1) if (spans[j][2] === 'offline') { times += 1; last = j; }
    }
    if (times >= 3) { joined.push([spans[i][0], spans[last][1], 'flapping']); i = last; } else joined.push(spans[i]);
  }
  return joined;
}

const SPANS = [['1 h', 1], ['24 h', 24], ['7 d', 168]];

export function device(id) {
  const path = `/devices/${encodeURIComponent(id)}`;
  const work = async () => {
    const [d, past, config, sensors] = await Promise.all([call(path), call(`${path}/transitions?limit=200`), call(`${path}/config`), call(`/sensors?device=${encodeURIComponent(id)}&limit=100`)]);
    return { d, past: past.items, config, sensors: sensors.items };
  };
  load(async () => {
    try { return await work(); } catch (problem) { if (problem.status === 404) return null; throw problem; }
  }, data => (data ? draw(id, path, data) : unknown(id)));
}

function unknown(id) {
  main.innerHTML = html`<div class="empty"><h1 tabindex="-1">No device called ${id}</h1><p>It has never said that it is there, or its name differs in upper and lower case. <a href="#/devices?q=${encodeURIComponent(id)}">Search the devices</a></p></div>`;
  on('device', ({ detail }) => { if (detail.device_id === id) dispatchEvent(new Event('hashchange')); });
}

const fact = (name, value, kind = '') => (value == null || value === false || value === '' ? '' : html`<div class="${kind}"><dt>${name}</dt><dd>${value}</dd></div>`);
const facts = d => html`${fact('Last seen', d.last_seen && html`<span data-ago="${Date.parse(d.last_seen)}">${ago(Date.parse(d.last_seen))}</span>`)}${fact('Signal', d.signal_strength != null && html`${bars(d.signal_strength)}${String(d.signal_strength).replace('-', '−')} dBm`)}${fact('Battery', d.battery_percent != null && `${d.battery_percent} %`)}${fact('Firmware', d.firmware_version && html`<span class="mono">${d.firmware_version}</span>`)}${fact('Uptime', d.uptime_seconds != null && duration(d.uptime_seconds * 1e3))}${fact('Clock', d.clock_skew_ms != null && (Math.abs(d.clock_skew_ms) < 1000 ? 'right' : html`<span class="st warning">${duration(Math.abs(d.clock_skew_ms))} ${d.clock_skew_ms < 0 ? 'behind' : 'ahead'}</span>`))}${fact('Session', d.session_id && html`<span class="mono">${d.session_id}</span>`, 'lo')}`;

const frame = (id, d) => html`<p class="crumb"><a href="#/devices">Devices</a> / ${d.location ?? 'no location'}</p>
  <div class="dev-h"><h1 class="mono" tabindex="-1">${id}</h1><span id="head"></span></div><dl class="facts" id="facts"></dl>
  <section aria-labelledby="h-s"><div class="sec-h"><h2 id="h-s">State, 24 h</h2><p id="offs"></p></div><div id="strip"></div></section>
  <div class="dev"><div><section aria-labelledby="h-p"><div class="sec-h"><h2 id="h-p">Sensors</h2><div class="seg" role="group" aria-label="Time span">${SPANS.map(([label, hours]) => html`<button type="button" class="btn" data-span="${hours}" aria-pressed="${hours === 1}">${label}</button>`)}</div></div><div id="plots"></div></section>
  <section aria-labelledby="h-t"><div class="sec-h"><h2 id="h-t">Recent transitions</h2></div><div id="past"></div></section></div>
  <div><section aria-labelledby="h-k"><div class="sec-h"><h2 id="h-k">Commands</h2></div><div id="commands"></div></section>
  <section aria-labelledby="h-g"><div class="sec-h"><h2 id="h-g">Configuration</h2><p id="cfg-n"></p></div><div id="cfg"></div></section></div></div>`;

function draw(id, path, data) {
  let { d, past } = data, hours = 1;
  main.innerHTML = frame(id, d);
  const control = commands($('#commands'), id, path), config = configuration($('#cfg'), $('#cfg-n'), id, path);
  const head = () => {
    const since = Date.parse(d.since);
    put($('#head'), html`${mark(d.state)} <span class="dim">${d.since && html`since ${time(d.since)} (<span data-since="${since}">${duration(Date.now() - since)}</span>)`}${d.online ? '' : `, ${d.reason ? spaced(d.reason) : 'nothing heard yet'}`}</span>`);
    put($('#facts'), facts(d));
    control.show(d);
  };
  const timeline = () => {
    const now = Date.now(), spans = history(past, now), off = spans.filter(it => it[2] === 'offline');
    put($('#strip'), html`${strip(spans)}${axis(when(now - DAY), when(now - 18 * HOUR), when(now - 12 * HOUR), when(now - 6 * HOUR), 'now')}${key(['online', 'flapping', 'offline', 'unknown'])}`);
    $('#offs').textContent = off.length ? `offline ${off.length === 1 ? 'once' : `${off.length} times`}, ${duration(off.reduce((sum, [a, b]) => sum + b - a, 0))} in all` : 'never offline';
    put($('#past'), transitions(past));
  };
  const plots = plotting(id, data.sensors);
  const reload = async () => {
    try {
      const [fresh, rows, set] = await Promise.all([call(path), call(`${path}/transitions?limit=200`), call(`${path}/config`)]);
      if (!$('#head')) return;
      [d, past] = [fresh, rows.items];
      head(); timeline(); config.show(set);
    } catch { /* the banner says that the connection is lost */ }
  };
  head(); timeline(); config.show(data.config); plots(hours);
  on('device', ({ detail }) => { if (detail.device_id === id) { d = detail; head(); setTimeout(reload, 500); } });
  on('removed', ({ detail }) => { if (detail.device_id === id) unknown(id); });
  on('reset', reload);
  on('link', () => { control.show(d); config.draw(); });
  on('alert', () => plots(hours));
  every(5000, reload);
  every(30000, () => plots(hours));
  every(1000, () => { for (const el of $$('[data-ago]')) el.textContent = ago(Number(el.dataset.ago)); });
  main.onclick = event => {
    const span = event.target.closest('[data-span]');
    if (!span) { control.click(event); config.click(event); return; }
    hours = Number(span.dataset.span);
    for (const it of $$('[data-span]')) it.setAttribute('aria-pressed', it === span);
    plots(hours);
  };
  main.oninput = config.input;
}

const transitions = past => (past.length
  ? html`<table><thead><tr><th scope="col">At</th><th scope="col">To</th><th scope="col" class="num">For</th><th scope="col" class="lo">Reason</th></tr></thead><tbody>${past.slice(0, 12).map((it, i) => html`<tr><td>${time(it.at, true)}</td><td>${mark(it.online ? 'online' : 'offline')}</td><td class="num">${duration((i ? Date.parse(past[i - 1].at) : Date.now()) - Date.parse(it.at))}</td><td class="lo dim">${spaced(it.reason ?? '')}</td></tr>`)}</tbody></table>`
  : html`<p class="empty dim">None is stored yet.</p>`);

/** Gives a function that draws the sensors' plots for a span of hours. */
function plotting(id, sensors) {
  const host = $('#plots'), ended = [];
  const end = () => ended.splice(0).forEach(fn => fn());
  undoWith(end);
  let drawing = 0;
  const draw = async hours => {
    if (!sensors.length) {
      host.innerHTML = html`<p class="empty dim">No reading of a sensor of this device was heard yet. A sensor belongs to it when its name is <code>${id}</code> or ends in <code>-${id}</code>.</p>`;
      return;
    }
    const turn = drawing += 1, to = Date.now(), from = new Date(to - hours * HOUR).toISOString();
    const past = sensor => call(`/sensors/${encodeURIComponent(sensor.sensor_id)}/readings?from=${from}&to=${new Date(to).toISOString()}&points=300`).then(it => it.points, problem => { if (problem.status !== 404) toast(problem); return []; });
    const [rules, alerts, ...points] = await Promise.all([rulesSoon(() => draw(hours)), alertsOf(sensors, from), ...sensors.map(past)]);
    if (turn !== drawing || !host.isConnected) return;
    end();
    host.innerHTML = html`${sensors.map(() => html`<div></div>`)}`;
    sensors.forEach((sensor, i) => {
      const place = host.children[i], title = words(sensor.type);
      if (!points[i].length) { place.innerHTML = html`<div class="plot"><div class="plot-h"><h3>${title}</h3><output>${number(sensor.value, sensor.value % 1 ? 1 : 0)} <span>${sign(sensor.unit)}</span></output></div><p class="empty dim">Nothing of the last ${hours === 1 ? 'hour' : hours === 24 ? '24 hours' : '7 days'} is stored.</p></div>`; return; }
      const marks = alerts.filter(it => it.sensor_id === sensor.sensor_id);
      ended.push(plot(place, { title, unit: sensor.unit, points: points[i], span: [to - hours * HOUR, to], thresholds: thresholds(rules, sensor), marks }));
    });
  };
  return draw;
}

/** Alerts of these sensors that began or ended in the span. */
async function alertsOf(sensors, from) {
  const pages = sensors.map(it => call(`/alerts?sensor=${encodeURIComponent(it.sensor_id)}&limit=100`).then(page => page.items, () => []));
  return (await Promise.all(pages)).flat().filter(it => !it.resolved_at || it.resolved_at > from);
}
