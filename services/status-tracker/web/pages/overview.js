// The fleet at a glance: one sentence, four numbers, what fires, who is missing, what runs.

import { ASK, SEVERITIES, acknowledge, firstAlerts, groupTitle, groups, worstOf } from './alerting.js';
import { emptyFleet, every, inTurn, load, main, on, put, undoWith, write } from './frame.js';
import { call, state } from '../live.js';
import { $, HOUR, axis, clock, duration, html, icon, key, link, mark, milliseconds, number, plural, spaced, spark, time } from '../parts.js';

/** Sensors named in a group of alerts. */
const SHOWN = 6;
/** Groups of alerts listed, and alerts asked for to make groups of. */
const GROUPS = 8, LIMIT = 200;

const FRAME = html`<h1 class="headline" tabindex="-1"></h1><div class="inst"></div>
  <section aria-labelledby="h-f"><div class="sec-h"><h2 id="h-f">Firing now</h2><p id="firing-n"></p></div><div id="firing"></div></section>
  <section aria-labelledby="h-d"><div class="sec-h"><h2 id="h-d">Devices not online, last hour</h2><p id="missing-n"></p></div><div id="missing"></div></section>
  <div class="cols"><section aria-labelledby="h-i"><div class="sec-h"><h2 id="h-i">Ingest replicas</h2><p id="ingest-n"></p></div><div class="scroll" id="ingest"></div></section>
  <section aria-labelledby="h-c"><div class="sec-h"><h2 id="h-c">Connections</h2></div><div id="links"></div></section></div>`;

/** The words of the headline: the worst alert, since when, and the devices. */
export function sentence({ devices, alerts }) {
  const who = devices.online === devices.total ? `All ${plural(devices.total, 'device')} online.` : `${number(devices.online)} of ${plural(devices.total, 'device')} online.`;
  if (!alerts) return `${who} The store does not tell which alerts fire.`;
  const names = { critical: 'critical alert', warning: 'warning', info: 'notice' };
  const [worst, ...rest] = Object.keys(names).filter(it => alerts[it]).map(it => plural(alerts[it], names[it]));
  if (!worst) return `${who} No alert firing.`;
  return `${worst} firing${alerts.since ? ` since ${clock(alerts.since)}` : ''}${rest.length ? `, ${rest.join(', ')}` : ''}. ${who}`;
}

export function overview() {
  let firing = null, trend = { minutes: [], samples: [] }, here = true;
  undoWith(() => { here = false; });
  const draw = () => {
    const s = counted(state.summary, firing);
    if (!s.devices.total && !s.readings.total) { put(main, emptyFleet(s)); return; }
    if (!$('.inst', main)) put(main, FRAME);
    const worst = worstOf(s.alerts);
    put($('.headline', main), html`<span class="st ${worst}">${icon(worst)}</span><span>${sentence(s)}</span>`);
    put($('.inst', main), instruments(s, trend));
    put($('#firing-n'), firing?.items.length ? html`gravest first · <a href="#/alerts">all alerts</a>` : html`<a href="#/alerts?tab=resolved">resolved alerts</a>`);
    if (firing) put($('#firing'), firing.items.length ? alerts(firing, s) : html`<p class="empty dim">Nothing is firing.</p>`);
    missing(s, trend.minutes);
    ingest(s);
    put($('#links'), links(s));
  };
  const refresh = inTurn(async () => {
    try {
      [firing, trend] = await Promise.all([firstAlerts(ASK.firing, LIMIT), call('/summary/trend')]);
    } catch { /* the banner, or the summary, says what is away */ }
    if (state.summary && here) draw();
  });
  load(async () => { state.summary ??= await call('/summary'); }, () => {
    draw();
    refresh();
    on('summary', draw);
    on('link', draw);
    for (const event of ['alert', 'acknowledged', 'reset']) on(event, refresh);
    every(5000, refresh);
    main.onclick = event => {
      const button = event.target.closest('[data-ack]');
      if (button && state.canWrite) acknowledge(button.dataset.ack.split(' '), refresh);
    };
  });
}

function instruments(s, { samples }) {
  const { devices: d, delivery_ms: delay, readings: r } = s, last = samples.at(-1), first = samples[0];
  const span = first ? `${duration(Date.parse(last.at) - Date.parse(first.at))} ago` : '';
  const stored = r.stored_per_second != null, of = name => samples.map(it => it[name] ?? 0);
  const letters = s.dead_letter_reasons[0];
  return html`<div><h2>${stored ? 'Readings stored' : 'Readings published'}</h2><p class="big">${number(stored ? r.stored_per_second : r.per_second)} <small>/s</small></p>${spark(of(stored ? 'stored' : 'published'))}${axis(span, 'now')}</div>
    <div><h2>Delivery, device to store</h2><p class="big">${delay
      ? html`<span class="pair"><small>p50</small> ${milliseconds(delay.p50)}</span><span class="pair"><small>p99</small> ${milliseconds(delay.p99)}</span>`
      : html`<small>${stored ? 'nothing stored just now' : 'no ingest reports'}</small>`}</p>${spark(of('p50'), of('p99'))}${axis(span, html`<span class="long">p50 solid, </span>p99 dashed`)}</div>
    <div><h2>Devices</h2><p class="big">${number(d.online)} <small>of ${number(d.total)} online</small></p><ul>${['offline', 'flapping', 'unknown'].filter(it => it !== 'unknown' || d.unknown).map(it => html`<li><a href="#/devices?state=${it}">${mark(it)}</a>${number(d[it])}</li>`)}</ul></div>
    <div><h2>Dead letters</h2><p class="big">${s.dead_letters == null ? html`<small>the store does not answer</small>` : number(s.dead_letters)}</p><p class="dim">${letters
      ? html`Most: ${spaced(letters.reason)} (${number(letters.count)}). <a href="#/dead-letters">Inspect</a>`
      : s.dead_letters === 0 ? 'Nothing was refused.' : ''}</p></div>`;
}

/** The summary with the alerts that are listed, if those are all: it is seconds older, and the two have to agree. */
function counted(summary, firing) {
  if (!summary.alerts || !firing || firing.more) return summary;
  const by = Map.groupBy(firing.items, it => it.severity), of = severity => by.get(severity) ?? [];
  const [critical, warning, info] = SEVERITIES.map(it => of(it).length), worst = SEVERITIES.map(of).find(it => it.length);
  return { ...summary, alerts: { critical, warning, info, since: worst?.map(it => it.fired_at).sort()[0] ?? null } };
}

/** The gravest groups, and how many alerts are not among them. */
function alerts({ items }, s) {
  const shown = groups(items).slice(0, GROUPS), listed = shown.flat();
  const left = SEVERITIES.map(severity => Math.max(0, (s.alerts?.[severity] ?? 0) - listed.filter(it => it.severity === severity).length));
  const [critical] = left, more = left.reduce((sum, it) => sum + it);
  return html`<ol class="alerts">${shown.map(group)}</ol>${more ? html`<p class="more"><a href="#/alerts">and ${number(more)} more</a>${critical ? `, ${number(critical)} of them critical` : ''}</p>` : ''}`;
}

function group(list) {
  const [a] = list, since = Date.parse(a.fired_at), open = list.filter(it => !it.acknowledged_at);
  return html`<li><div>${mark(a.severity)}</div>
    <div><a class="t" href="#/alerts/${a.alert_id}">${groupTitle(list)}</a><div class="who">${list.slice(0, SHOWN).map((it, i) => html`${i ? ', ' : ''}${link(it.sensor_id, it.device_id)}`)}${list.length > SHOWN ? ` and ${number(list.length - SHOWN)} more` : ''}${list.length === 1 && a.metadata.location ? ` in ${a.metadata.location}` : ''} · rule ${a.rule}</div></div>
    <div class="meta"><div>since ${time(a.fired_at)} <span class="faint">(<span data-since="${since}">${duration(Date.now() - since)}</span>)</span></div>
    <div>${open.length ? write('Acknowledge', html`data-ack="${open.map(it => it.alert_id).join(' ')}"`, 'quiet') : html`acknowledged by ${a.acknowledged_by}`}</div></div></li>`;
}

function missing(s, minutes) {
  const most = Math.max(0, ...minutes.map(it => it.offline + it.flapping)), peak = minutes.find(it => it.offline + it.flapping === most);
  put($('#missing-n'), most ? html`most: ${plural(most, 'device')} at ${time(peak.at)}` : 'none');
  const end = Date.parse(s.at), start = end - HOUR, root = Math.sqrt(most) || 1;
  const bars = minutes.map(it => {
    const x = ((Date.parse(it.at) - start) / HOUR * 100).toFixed(2), low = Math.sqrt(it.offline) / root * 96, high = Math.sqrt(it.offline + it.flapping) / root * 96;
    return html`<rect class="offline" x="${x}%" width="1.35%" y="${(100 - low).toFixed(1)}%" height="${low.toFixed(1)}%"/><rect class="flapping" x="${x}%" width="1.35%" y="${(100 - high).toFixed(1)}%" height="${(high - low).toFixed(1)}%"><title>${clock(it.at)}: ${number(it.offline)} offline, ${number(it.flapping)} flapping</title></rect>`;
  });
  const quarter = n => clock(end - HOUR * n / 4);
  put($('#missing'), html`<svg class="strip" role="img" aria-label="Devices not online a minute: most ${most}, now ${s.devices.offline} offline and ${s.devices.flapping} flapping">${bars}</svg>${axis(quarter(4), quarter(3), quarter(2), quarter(1), 'now')}<div class="bar">${key(['offline', 'flapping'])}<span class="faint end">height: square root of the count</span></div>`);
}

/** A share of the group's readings as a bar; as long as the cell for twice an even share. */
const share = (part, even) => html`<svg class="share" aria-hidden="true"><rect width="${Math.min(100, part / (2 * even) * 100).toFixed(0)}%" height="8"/></svg>${number(part * 100, 1)} %`;

function ingest(s) {
  const replicas = s.services.find(it => it.service === 'ingest')?.replicas ?? [], there = replicas.filter(it => it.online);
  put($('#ingest-n'), there.length === 1 ? 'one takes all' : there.length ? `${plural(there.length, 'replica')} share one subscription` : '');
  const dash = html`<span class="faint">–</span>`, slow = ms => ms > 1000;
  const row = it => html`<tr><th scope="row" class="mono">${it.instance}</th>
    <td>${!it.online ? mark('offline') : it.share == null ? dash : share(it.share, 1 / there.length)}</td>
    <td class="num">${it.readings_per_second == null ? dash : number(it.readings_per_second)}</td>
    <td class="num">${it.lag_ms == null ? dash : slow(it.lag_ms) ? html`<span class="st warning">${icon('warning')}<span class="vh">high: </span>${milliseconds(it.lag_ms)}</span>` : milliseconds(it.lag_ms)}</td>
    <td class="num lo">${it.queue == null ? dash : html`${number(it.queue)} <span class="faint">/ ${number(it.window)}</span>`}</td><td class="num lo">${time(it.since)}</td></tr>`;
  put($('#ingest'), replicas.length
    ? html`<table><thead><tr><th scope="col">Replica</th><th scope="col">Share</th><th scope="col" class="num">Readings/s</th><th scope="col" class="num">Lag p99</th><th scope="col" class="num lo">In flight</th><th scope="col" class="num lo">Since</th></tr></thead><tbody>${replicas.map(row)}</tbody></table>`
    : html`<p class="empty dim">No ingest has said that it runs: readings are not stored. Start one with <code>ingest</code>.</p>`);
}

function links(s) {
  const row = (name, detail, shown, since) => html`<tr><th scope="row">${name}<div class="faint">${detail}</div></th><td>${shown}</td><td class="num dim">${since && html`since ${time(since)}`}</td></tr>`;
  const service = it => {
    const there = it.replicas.filter(r => r.online), active = it.replicas.find(r => r.active), since = there.length ? there.map(r => r.since).sort()[0] : it.replicas.map(r => r.since).sort().at(-1);
    const detail = `${there.length} of ${plural(it.replicas.length, 'replica')}${active ? `, ${active.instance} active` : ''}, version ${it.replicas[0].version}`;
    const shown = !there.length ? mark('offline') : there.length < it.replicas.length ? mark('flapping', 'Degraded') : mark('online');
    return row(it.service, detail, shown, since);
  };
  return html`<table><thead class="vh"><tr><th scope="col">Part</th><th scope="col">State</th><th scope="col">Since</th></tr></thead><tbody>
    ${row('Broker', `${s.broker.url}, MQTT 5`, mark(s.broker.connected ? 'online' : 'offline', s.broker.connected ? 'Connected' : 'Away'), s.broker.since)}
    ${row('Store', s.store.backend, mark(s.store.up ? 'online' : 'offline', s.store.up ? 'Answers' : 'Away'))}
    ${s.services.filter(it => it.service !== 'ingest').map(service)}</tbody></table>`;
}
