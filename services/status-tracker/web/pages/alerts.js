// What fires and fired: the list on the left, one alert with its explanation on the right.

import { ASK, acknowledge, area, firstAlerts, groups, rulesInForce, rulesSoon, silence, thresholds } from './alerting.js';
import { every, inTurn, load, main, on, put, undoWith, write } from './frame.js';
import { call, state } from '../live.js';
import { $, HOUR, MINUTE, clock, duration, html, icon, link, mark, milliseconds, number, sign, spaced, time, when, words } from '../parts.js';
import { plot } from '../plot.js';
import { silences } from './silences.js';

/** Alerts listed at first, and added by the button. */
const STEP = 100;
/** Alerts listed of each kind: kept while one after the other is looked at. */
const limits = { firing: STEP, resolved: STEP };

export function alerts(id, query) {
  const tab = query.get('tab') ?? 'firing';
  if (!id && tab === 'silences') { silences(tabs); return; }
  const filter = tab === 'resolved' ? 'resolved' : 'firing';
  let list = [], more = false, story = null, end = () => {}, here = true;
  undoWith(() => { here = false; end(); });
  const explain = async of => {
    if (!of) { story = null; return; }
    try { story = await call(`/alerts/${encodeURIComponent(of)}`); } catch (problem) { if (problem.status !== 404) throw problem; story = { missing: of }; }
  };
  /** Which alert is shown: the one asked for, or on a wide page the gravest. */
  const chosen = () => id ?? (innerWidth > 1080 ? (list.find(it => it.severity === 'critical') ?? list[0])?.alert_id : undefined);
  const fetchAll = async () => {
    ({ items: list, more } = await firstAlerts(ASK[filter], limits[filter]));
    await explain(chosen());
  };
  const draw = () => {
    if (!$('.md', main)) {
      main.innerHTML = html`<h1 tabindex="-1">Alerts</h1><div class="md"><div class="list"><div id="tabs"></div><div id="list"></div></div><article class="explain" id="story" aria-label="The alert"></article></div>`;
    }
    // The frame stays from one alert to the next; on a narrow page one that is opened takes the place of the list.
    $('.md', main).classList.toggle('open', Boolean(id));
    put($('#tabs'), tabs(filter));
    put($('#list'), html`${list.length ? groups(list).map(it => group(it, story?.alert_id)) : nothing(filter)}${more ? html`<p class="cmds"><button type="button" class="btn" data-act="more">Show more</button></p>` : ''}`);
    const text = !story ? '' : story.missing ? html`<h2>No alert ${story.missing}</h2><p class="lede">It is not in the store. <a href="#/alerts">All alerts</a></p>` : explanation(story);
    if ($('#story').drawn === String(text)) return;
    end(); end = () => {};
    put($('#story'), text);
    if (story && !story.missing) { picture(story); ruleText(story); }
  };
  const picture = of => readings(of, () => { if (story === of) picture(of); }).then(fn => { end(); end = fn; });
  const refresh = inTurn(async () => { try { await fetchAll(); if (here) draw(); } catch { /* the banner says that the connection is lost */ } });
  load(fetchAll, () => {
    draw();
    for (const event of ['alert', 'acknowledged', 'reset', 'link']) on(event, refresh);
    on('summary', () => put($('#tabs'), tabs(filter)));
    every(10000, refresh);
    main.onclick = async event => {
      const act = event.target.closest('[data-act]')?.dataset.act;
      if (act === 'more') { limits[filter] += STEP; refresh(); }
      else if (act === 'ack' && state.canWrite) acknowledge([story.alert_id], refresh);
      else if (act === 'silence' && state.canWrite) silence(story, refresh);
    };
  });
}

function tabs(which) {
  const a = state.summary?.alerts, firing = a ? a.critical + a.warning + a.info : null;
  const tab = (name, label, href) => html`<a class="btn" ${which === name ? CURRENT : ''} href="#/alerts${href}">${label}</a>`;
  return html`<div class="bar lede"><div class="seg" role="navigation" aria-label="Which alerts">${tab('firing', `Firing${firing == null ? '' : ` ${number(firing)}`}`, '')}${tab('resolved', 'Resolved', '?tab=resolved')}${tab('silences', 'Silences', '?tab=silences')}</div></div>`;
}
const CURRENT = html`aria-current="page"`;

const nothing = filter => (filter === 'firing'
  ? html`<div class="empty"><h2>Nothing is firing</h2><p>What ended is under <a href="#/alerts?tab=resolved">resolved</a>; what is watched, under <a href="#/rules">rules</a>.</p></div>`
  : html`<div class="empty"><h2>No alert has ended yet</h2><p>What fires now is under <a href="#/alerts">firing</a>.</p></div>`);

const lasted = a => duration(Date.parse(a.resolved_at) - Date.parse(a.fired_at));
const group = (list, shown) => html`<h2 class="grp-h"><span>${list[0].rule}</span><span class="faint">${area(list[0])}</span></h2><ul>${list.map(a => html`<li><a class="pick" href="#/alerts/${encodeURIComponent(a.alert_id)}${a.resolved_at ? '?tab=resolved' : ''}" ${a.alert_id === shown ? html`aria-current="true"` : ''}><span class="st ${a.resolved_at ? 'resolved' : a.severity}">${icon(a.resolved_at ? 'ok' : a.severity)}<span class="vh">${a.severity}, ${a.state}</span></span><span>${a.message}</span>${time(a.fired_at)}<small>${a.sensor_id}${a.metadata.location ? ` in ${a.metadata.location}` : ''}${a.resolved_at ? ` · lasted ${lasted(a)}` : ''}${a.acknowledged_by ? ` · acknowledged by ${a.acknowledged_by}` : ''}</small></a></li>`)}</ul>`;

function explanation(a) {
  const since = Date.parse(a.fired_at), now = a.resolved_at
    ? html`fired at ${time(a.fired_at)}, resolved after ${lasted(a)}`
    : html`firing since ${time(a.fired_at)} (<span data-since="${since}">${duration(Date.now() - since)}</span>)`;
  const acts = a.resolved_at ? '' : html`<div class="cmds">${a.acknowledged_at ? html`<span class="dim">Acknowledged by ${a.acknowledged_by} at ${clock(a.acknowledged_at)}</span>` : write('Acknowledge', 'data-act="ack"', 'main')}${write('Silence…', 'data-act="silence"')}</div>`;
  return html`<p class="back"><a href="#/alerts">All alerts</a></p><div class="lede">${mark(a.severity)} <span class="dim">${now}</span></div>
    <h2>${a.message}</h2><p class="dim">${link(a.sensor_id, a.device_id)}${a.metadata.location ? ` in ${a.metadata.location}` : ''}</p>${acts}
    <h3>Why it fired</h3><p class="lede">${why(a)}</p><div id="ex-plot"></div>
    <h3>Rule</h3><div id="ex-rule"><p class="lede">${a.rule}</p></div><p class="lede"><a href="#/rules?backtest=${encodeURIComponent(a.rule)}">Backtest this rule</a></p>
    <h3>Timeline</h3>${timeline(a)}<h3>Notifications</h3>${notifications(a)}`;
}

const reading = m => `${number(Number(m.value), Number(m.value) % 1 ? 1 : 0)}${m.unit && sign(m.unit) ? ` ${sign(m.unit)}` : ''}`;
function why({ metadata: m, fired_at, rule }) {
  const began = m.crossed_at && Date.parse(fired_at) - Date.parse(m.crossed_at) > 1000 ? html`Its condition held from ${time(m.crossed_at, true)} on, for ${duration(Date.parse(fired_at) - Date.parse(m.crossed_at))} before it fired. ` : '';
  const value = m.value !== undefined && m.value !== '' && Number.isFinite(Number(m.value)) ? html`The ${spaced(m.type ?? 'value')} was ${reading(m)}.` : m.reason ? html`The device gave as reason: ${spaced(m.reason)}.` : '';
  return html`${began}${value}${began || value ? '' : `The condition of ${rule} holds.`}`;
}

const WORDS = { pending: ['wait', 'Pending'], clearing: ['wait', 'Clearing'], resolved: ['ok', 'Resolved'], acknowledged: ['ok', 'Acknowledged'] };
const CAUSES = ['reading', 'clock', 'rules'];
/** What alerting says of an event, in a few words. `fired` is the condition that made it fire: at the end it no longer holds. */
function detail({ kind, detail: { routes, by, reading: input, condition, for: held, keep_firing_for: after, absent, reason, windows, silence: name, created_by: who, until, comment, alert_id: other, channel, received_at: _, last_heard: __, ...rest } }, fired) {
  const said = [];
  for (const to of routes ?? []) said.push(`to ${to.receiver} by ${to.route}`);
  if (input?.value != null) said.push(`at ${reading(input)}`);
  else if (input?.reason) said.push(spaced(input.reason));
  if (by === 'clock') said.push(held ? `the condition held for ${held}` : absent ? `nothing heard for ${absent}` : 'by time');
  else if (by === 'silence') said.push(`silenced${who ? ` by ${who}` : ''}${until ? ` until ${when(until)}` : ''}${comment ? `: ${comment}` : ''}`);
  else if (by === 'inhibition') said.push(`for the alert ${other} fires`);
  else if (by === 'time') said.push('for the time of day');
  else if (by && !CAUSES.includes(by)) said.push(`by ${by}`);
  if (after) said.push(`fires on for ${after}`);
  if (condition) said.push(condition === fired && ['clearing', 'resolved'].includes(kind) ? `no longer ${condition}` : condition);
  if (channel) said.push(`to ${channel}`);
  for (const [name, value] of Object.entries(windows ?? {})) said.push(`${name} is ${typeof value === 'number' ? number(value, 1) : value}`);
  if (reason) said.push(spaced(reason));
  for (const [name, value] of Object.entries(rest)) if (value !== null && String(value)) said.push(`${spaced(name)} ${Array.isArray(value) ? value.join(', ') : typeof value === 'object' ? JSON.stringify(value) : value}`);
  return said.join(', ');
}
function timeline(a) {
  const changes = a.explanation.state_changes.length ? a.explanation.state_changes : [{ at: a.fired_at, kind: 'firing', detail: {} }, a.acknowledged_at && { at: a.acknowledged_at, kind: 'acknowledged', detail: { by: a.acknowledged_by } }, a.resolved_at && { at: a.resolved_at, kind: 'resolved', detail: {} }].filter(Boolean);
  const fired = changes.find(it => it.kind === 'firing')?.detail.condition;
  return html`<ol class="tl">${changes.map(it => { const [shape, word] = WORDS[it.kind] ?? [a.severity, words(it.kind)]; return html`<li>${time(it.at, true)}<span class="st ${shape}">${icon(shape)}</span><span>${word} <span class="dim">${detail(it, fired)}</span></span></li>`; })}</ol>`;
}

const OUTCOME = { sent: ['ok', 'ok', 'sent'], failed: ['refused', 'no', 'failed'], given_up: ['refused', 'no', 'given up'], suppressed: ['wait', 'wait', 'suppressed'] };
function notifications({ explanation: { routes, notifications: list } }) {
  const route = routes.map(it => html`<li>${time(it.at, true)}<span class="st wait">${icon('wait')}</span><span>${words(it.kind)} <span class="dim">${detail(it)}</span></span></li>`);
  const attempt = (message, it) => { const [kind, shape, word] = OUTCOME[it.outcome] ?? ['wait', 'wait', spaced(it.outcome)]; return html`<li>${time(it.at, true)}<span class="st ${kind}">${icon(shape)}</span><span><span class="mono">${message.topic ?? message.channel}</span> <span class="dim">${message.says ? `${message.says}: ` : ''}${message.topic && it.outcome === 'sent' ? 'published' : word}${it.took_ms == null ? '' : html` after ${milliseconds(it.took_ms)}`}${it.error ? `: ${it.error}` : ''}</span></span></li>`; };
  const sent = list.flatMap(it => (it.attempts.length ? it.attempts.map(one => attempt(it, one)) : [attempt(it, { at: it.done_at ?? it.due_at, outcome: it.outcome ?? 'waits', error: it.error })]));
  const told = list.some(it => it.channel !== 'mqtt');
  return html`${route.length || sent.length ? html`<ol class="tl">${route}${sent}</ol>` : ''}${told ? '' : html`<p class="lede dim">${sent.length ? 'Published to the broker; no receiver on a route: nobody else was told.' : 'Nothing was sent about it.'}</p>`}`;
}

async function ruleText(a) {
  const rule = (await rulesInForce()).find(it => it.name === a.rule), host = $('#ex-rule');
  if (!rule || !host) return;
  const rows = [['when', rule.when], ['for', rule.for], ['clear', rule.clear], ['absent', rule.absent], ['on', rule.topic], ['type', rule.type]].filter(([, value]) => value);
  put(host, html`<pre class="rule-text">${rule.name}
${rows.map(([name, value]) => `  ${name}: ${value}`).join('\n')}</pre>`);
}

/** The readings around the alert, if there are any; gives what ends the plot. */
async function readings(a, later) {
  const from = Date.parse(a.fired_at) - 45 * MINUTE, to = Math.min(Date.now(), (a.resolved_at ? Date.parse(a.resolved_at) : Date.now()) + 15 * MINUTE, Date.parse(a.fired_at) + 24 * HOUR);
  const kind = a.metadata.type ? `&type=${encodeURIComponent(a.metadata.type)}` : '';
  try {
    const [past, rules] = await Promise.all([call(`/sensors/${encodeURIComponent(a.sensor_id)}/readings?points=180&from=${new Date(from).toISOString()}&to=${new Date(to).toISOString()}${kind}`), rulesSoon(later)]);
    const host = $('#ex-plot'), sensor = { type: past.type, location: a.metadata.location ?? '' };
    if (!host || past.points.length < 2) return () => {};
    return plot(host, { title: words(past.type), unit: a.metadata.unit ?? past.unit, points: past.points, span: [from, to], thresholds: thresholds(rules.filter(it => it.name === a.rule), sensor), marks: [a] });
  } catch { return () => {}; }
}
