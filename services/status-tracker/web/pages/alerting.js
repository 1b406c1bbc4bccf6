// What pages share about alerts and rules: grouping, thresholds, acknowledging, silencing.

import { call, me } from '../live.js';
import { CANCEL, HOUR, MINUTE, $, Html, clock, dialog, html, number, plural, toast } from '../parts.js';

export const worstOf = alerts => (alerts?.critical ? 'critical' : alerts?.warning ? 'warning' : alerts?.info ? 'info' : 'online');

/** Where an alert is, as far as people think of it: the first two levels. */
export const area = alert => alert.metadata.location?.split('/').slice(0, 2).join('/') ?? '';

/** The gravest first. */
export const SEVERITIES = ['critical', 'warning', 'info'];
/**
 * What lists of alerts ask for, one after the other. The server pages by time, and a critical alert may be older than
 * any number of notices: so each severity is asked for.
 */
export const ASK = { firing: SEVERITIES.map(it => `state=firing&severity=${it}`), resolved: ['state=resolved'] };
/** Alerts that the server gives at once. */
const PAGE_MAX = 1000;
/** So many alerts at most, and whether there are more; by severity if they fire, of one severity the newest first. */
export async function firstAlerts(asked, limit) {
  const items = [];
  for (const filter of asked) {
    for (let cursor = ''; cursor !== null && items.length <= limit;) {
      const page = await call(`/alerts?${filter}&limit=${Math.min(PAGE_MAX, limit + 1 - items.length)}${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
      items.push(...page.items);
      cursor = page.next_cursor ?? null;
    }
  }
  return { items: items.slice(0, limit), more: items.length > limit };
}

/** Alerts of one rule in one area belong together; a group stands where its first alert stood. */
export const groups = list => [...Map.groupBy(list, it => `${it.rule} ${area(it)}`).values()];
export const groupTitle = list => (list.length > 1 ? `${plural(list.length, list.every(it => it.device_id === it.sensor_id) ? 'device' : 'sensor')}${area(list[0]) ? ` in ${area(list[0])}` : ''}: ${list[0].rule}` : list[0].message);

/** Takes note of alerts, and draws again. */
export async function acknowledge(ids, then) {
  try {
    for (const id of ids) await call(`/alerts/${encodeURIComponent(id)}/acknowledge`, { method: 'POST', body: { by: me() } });
  } catch (problem) { toast(problem); }
  await then();
}

/** Asks until when an alert shall be silent, and makes a silence of it. */
export function silence(alert, then) {
  const ends = [['30 min', 30 * MINUTE], ['2 h', 2 * HOUR], ['8 h', 8 * HOUR]].map(([label, ms]) => [label, Date.now() + ms]);
  const later = new Date(Date.now() + 24 * HOUR - new Date().getTimezoneOffset() * MINUTE).toISOString().slice(0, 16);
  dialog('Silence this alert', html`<p>It stays in the list. Nobody is notified until the end time.</p>
    <fieldset><legend class="vh">What</legend>
      <label><input type="radio" name="what" value="sensor" checked> Rule ${alert.rule} at ${alert.sensor_id}</label>
      <label><input type="radio" name="what" value="rule"> Rule ${alert.rule} at every sensor</label></fieldset>
    <fieldset><legend class="vh">Until</legend>${ends.map(([label, at], i) => html`<label><input type="radio" name="until" value="${at}" ${new Html(i ? '' : 'checked')}> ${label}, until ${clock(at)}</label>`)}
      <label><input type="radio" name="until" value=""> Until another time<input type="datetime-local" id="until" aria-label="End time" value="${later}"></label></fieldset>
    <label>Reason<input id="why" maxlength="1000" placeholder="Door repair, ticket 812"></label>`,
  html`${CANCEL}<button class="btn main" value="ok">Silence</button>`, async box => {
    const whole = $('[name=what]:checked', box).value === 'rule', until = $('[name=until]:checked', box).value;
    const matchers = [{ name: 'rule', op: '=', value: alert.rule }, ...(whole ? [] : [{ name: 'sensor_id', op: '=', value: alert.sensor_id }])];
    try {
      const ends_at = new Date(until ? Number(until) : $('#until', box).value).toISOString();
      await call('/silences', { method: 'POST', body: { matchers, ends_at, created_by: me(), comment: $('#why', box).value } });
    } catch (problem) { toast(problem.title ? problem : { title: 'That is no time', detail: 'Nothing was silenced. Give an end in the future.' }); }
    await then();
  });
}

/** Whether an MQTT filter matches a topic. */
export function matches(filter, topic) {
  const wanted = filter.split('/'), levels = topic.split('/');
  for (const [i, level] of wanted.entries()) {
    if (level === '#') return true;
    if (levels[i] === undefined || (level !== '+' && level !== levels[i])) return false;
  }
  return wanted.length === levels.length;
}

const BOUND = /^\s*value\s*(>=?|<=?)\s*(-?\d+(?:\.\d+)?)\s*$/;
/** The bounds that rules set on a sensor, where a rule is no more than a bound. */
export function thresholds(rules, sensor) {
  return rules.flatMap(rule => {
    const bound = BOUND.exec(rule.when ?? ''), topic = `sensors/${sensor.location}/${sensor.type}`;
    if (!bound || (rule.type && rule.type !== sensor.type) || (rule.topic && !matches(rule.topic, topic))) return [];
    const above = bound[1][0] === '>', value = Number(bound[2]);
    return [{ rule: rule.name, severity: rule.severity, above, value, label: `${rule.name}, ${above ? 'above' : 'below'} ${number(value, value % 1 ? 1 : 0)}` }];
  });
}

let known = null, asking = null;
/** The rules in force, asked once a minute at most; none while alerting is away. */
export async function rulesInForce() {
  if (known && Date.now() - known.at < MINUTE) return known.rules;
  asking ??= call('/rules').then(it => it.rules, () => []).then(rules => {
    [known, asking] = [{ at: Date.now(), rules }, null];
    return rules;
  });
  return asking;
}
/** The same without waiting for an alerting that does not answer: `later` is called when it has. */
export async function rulesSoon(later) {
  const asked = rulesInForce();
  const rules = await Promise.race([asked, new Promise(done => setTimeout(done, 250))]);
  if (!rules) asked.then(found => { if (found.length) later(); });
  return rules ?? [];
}
