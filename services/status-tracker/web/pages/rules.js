// What is watched, and what the rules would have done with the readings that are stored.

import { thresholds } from './alerting.js';
import { every, load, main, on, put, undoWith, write } from './frame.js';
import { call, state } from '../live.js';
import { $, $$, DAY, HOUR, duration, html, mark, number, plural, time, words } from '../parts.js';
import { plot } from '../plot.js';

const SPANS = [['1 h', HOUR], ['24 h', DAY], ['7 d', 7 * DAY]];
/** Episodes listed under a backtest. */
const SHOWN = 10;

export function rules(_, query) {
  let span = DAY, open = null, asked = query.get('backtest'), result = '', plotted = null, end = () => {}, data = null;
  undoWith(() => end());
  const draw = () => {
    const n = data.rules.length;
    if (!$('#rules')) main.innerHTML = html`<h1 tabindex="-1">Rules</h1><p class="lede" id="rules-n"></p><div class="bar lede"><span class="dim">Backtest over the last</span><div class="seg" role="group" aria-label="Span of a backtest">${SPANS.map(([label, ms]) => html`<button type="button" class="btn" data-span="${ms}" aria-pressed="${ms === span}">${label}</button>`)}</div></div><section aria-labelledby="rules-n" id="rules"></section>`;
    put($('#rules-n'), origin(data));
    put($('#rules'), n ? html`<table class="stack"><thead><tr><th scope="col">Rule</th><th scope="col">Fires when</th><th scope="col">Severity</th><th scope="col" class="num">Firing</th><th scope="col" class="num">Pending</th><th scope="col"><span class="vh">Backtest</span></th></tr></thead><tbody>${data.rules.map(row)}</tbody></table>`
      : html`<div class="empty"><h2>No rule</h2><p>Give alerting a file of rules: <code>alerting --rules FILE</code>.</p></div>`);
    if (plotted && $('#bt-plot') && !$('#bt-plot').firstChild) { end(); end = plot($('#bt-plot'), plotted); }
  };
  const row = it => html`<tr><th scope="row">${it.name}<div class="faint">${it.group}</div></th><td><code>${it.when ?? (it.absent ? `no reading for ${it.absent}` : '')}</code>${it.for ? html` <span class="dim">for ${it.for}</span>` : ''}<div class="faint mono">${it.topic ?? 'sensors/#'}${it.type ? `, ${it.type}` : ''}</div></td><td>${mark(it.severity)}</td><td class="num" data-l="Firing:">${it.firing ? html`<a href="#/alerts">${number(it.firing)}</a>` : 0}</td><td class="num" data-l="Pending:">${number(it.pending)}</td><td class="num">${write('Backtest', html`data-bt="${it.name}" aria-expanded="${open === it.name}"`)}</td></tr>${open === it.name ? html`<tr class="bt-row"><td colspan="6"><div class="bt">${result}</div></td></tr>` : ''}`;
  const run = async name => {
    open = name;
    [plotted, result] = [null, html`<p role="status">Reading ${label(span)} of stored readings…</p><progress aria-label="Backtest"></progress>`];
    end(); end = () => {};
    draw();
    try {
      const to = Date.now(), tried = await call('/rules/backtest', { method: 'POST', body: { rules: null, from: new Date(to - span).toISOString(), to: new Date(to).toISOString() } });
      if (open !== name) return;
      const of = tried.rules.find(it => it.rule === name) ?? { episodes: [], flaps: 0, firing_seconds: 0 };
      result = told(of, tried, span);
      plotted = await picture(of, data.rules.find(it => it.name === name), [to - span, to]);
    } catch (problem) {
      result = html`<div class="bar"><p><strong>${problem.title ?? 'The backtest failed'}</strong> <span class="dim">${problem.detail ?? String(problem)}</span></p>${CLOSE}</div>`;
    }
    if ($('#rules')) draw();
  };
  /** The backtest that the address asks for, once there is a token for it. */
  const runAsked = () => {
    if (!asked || !state.canWrite || !data.rules.some(it => it.name === asked)) return;
    run(asked);
    asked = null;
  };
  const refresh = () => call('/rules').then(it => { data = it; if ($('#rules')) draw(); }, () => { /* it is said when the page is opened anew */ });
  load(async () => { data = await call('/rules'); }, () => {
    draw();
    runAsked();
    on('link', runAsked);
    every(5000, refresh);
    for (const event of ['alert', 'link']) on(event, refresh);
    main.onclick = event => {
      const chosen = event.target.closest('[data-span]'), button = event.target.closest('[data-bt]');
      if (chosen) {
        span = Number(chosen.dataset.span);
        for (const it of $$('[data-span]')) it.setAttribute('aria-pressed', it === chosen);
        if (open && state.canWrite) run(open);
      } else if (button && state.canWrite) run(button.dataset.bt);
      else if (event.target.closest('[data-act="bt-close"]')) { const was = open; open = null; end(); end = () => {}; draw(); $(`[data-bt="${was}"]`)?.focus(); }
    };
  });
}

/** What alerting gives as source while it was given no file. */
const SHIPPED = 'shipped';
/** Where the rules are from, and how to change them. */
function origin({ rules: { length: n }, source, loaded_at: at }) {
  if (!source || source === SHIPPED) return html`${plural(n, 'rule')} that ${n === 1 ? 'ships' : 'ship'} with the program; no file is in use. For rules of your own start it with <code>--rules FILE</code> or <code>ALERTING_RULES=FILE</code>.`;
  return html`${plural(n, 'rule')}, read from <code>${source}</code>${at ? html` at ${time(at)}` : ''}. Change the file and they reload; a mistake keeps the old rules.`;
}

const label = span => SPANS.find(it => it[1] === span)[0];
const CLOSE = html`<button type="button" class="btn quiet end" data-act="bt-close">Close</button>`;

/** What a backtest found, in words. */
function told({ episodes, fired, flaps, firing_seconds: seconds, skipped }, tried, span) {
  const count = fired ?? episodes.length, sensors = new Set(episodes.map(it => it.sensor_id)).size;
  const looked = html`<span class="dim">${plural(tried.readings, 'reading')} looked at${tried.truncated ? ', not all there are: choose a shorter span' : ''}.</span>`;
  if (skipped) return html`<div class="bar"><p><strong>It cannot be tried.</strong> <span class="dim">${skipped}</span></p>${CLOSE}</div>`;
  if (!count) return html`<div class="bar"><p><strong>Would not have fired in ${label(span)}.</strong> ${looked}</p>${CLOSE}</div>`;
  const rows = episodes.slice(0, SHOWN).map(it => html`<tr><td>${time(it.fired_at, true)}</td><td class="mono">${it.sensor_id}</td><td class="num">${it.resolved_at ? duration(Date.parse(it.resolved_at) - Date.parse(it.fired_at)) : 'not over'}</td><td class="lo dim">${it.message}</td></tr>`);
  return html`<div class="bar"><p><strong>Would have fired ${count === 1 ? 'once' : count === 2 ? 'twice' : `${number(count)} times`} in ${label(span)}</strong> for ${count > episodes.length ? 'at least ' : ''}${plural(sensors, 'sensor')}, ${duration(seconds * 1e3)} in all${flaps ? `, ${plural(flaps, 'flap')}` : ''}. ${looked}</p>${CLOSE}</div>
    <div id="bt-plot"></div><table><thead><tr><th scope="col">At</th><th scope="col">Sensor</th><th scope="col" class="num">For</th><th scope="col" class="lo">Message</th></tr></thead><tbody>${rows}</tbody></table>${count > SHOWN ? html`<p class="faint">and ${number(count - SHOWN)} more</p>` : ''}`;
}

/** The readings of the sensor that would have fired most; none if it has none, as for a device's status. */
async function picture({ episodes }, rule, span) {
  if (!episodes.length) return null;
  const by = Map.groupBy(episodes, it => it.sensor_id), [sensor, own] = [...by].sort((a, b) => b[1].length - a[1].length)[0];
  try {
    const past = await call(`/sensors/${encodeURIComponent(sensor)}/readings?points=400&from=${new Date(span[0]).toISOString()}&to=${new Date(span[1]).toISOString()}${rule?.type ? `&type=${encodeURIComponent(rule.type)}` : ''}`);
    if (past.points.length < 2) return null;
    return { title: `${words(past.type)}, ${sensor}`, unit: past.unit, points: past.points, span, thresholds: rule ? thresholds([{ ...rule, topic: null }], { type: past.type, location: '' }) : [], marks: own, height: 150, table: false };
  } catch { return null; }
}
