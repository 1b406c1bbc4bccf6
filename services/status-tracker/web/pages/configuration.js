// What a device should be set to, and what it says that it is.

import { put, write } from './frame.js';
import { call, state } from '../live.js';
import { $, CANCEL, Html, dialog, html, icon, plural, toast } from '../parts.js';

const text = value => (value === true ? 'on' : value === false ? 'off' : typeof value === 'string' ? value : JSON.stringify(value));

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const isObject = value => value !== null && typeof value === 'object' && !Array.isArray(value);
/** Where a device says what it does not take: an object of key and reason, the whole of it under an empty key. */
const REFUSED = 'refused';

/** The rows of the table: what is desired, what is reported, and why a key was refused, key by key. */
export function settings({ desired, reported }) {
  const wanted = isObject(desired) ? desired : {}, said = isObject(reported) ? { ...reported } : {};
  const refused = isObject(said[REFUSED]) ? said[REFUSED] : {};
  if (isObject(said[REFUSED])) delete said[REFUSED];
  const has = Object.hasOwn, of = (from, key) => (has(from, key) ? from[key] : undefined);
  const keys = [...new Set([wanted, said, refused].flatMap(Object.keys))].filter(key => key || has(wanted, key) || has(said, key)).sort();
  const state = key => (has(refused, key) ? 'refused' : !has(wanted, key) || same(of(wanted, key), of(said, key)) ? 'applied' : 'waits');
  const rows = keys.map(key => ({ key, wanted: of(wanted, key), is: of(said, key), state: state(key), reason: of(refused, key) }));
  return { rows, whole: of(refused, '') };
}

/** What an input says, as a value of the same kind as the one it began with. */
function inputValue(el) {
  if (el.type === 'checkbox') return el.checked;
  if (el.dataset.kind === 'number' && el.value.trim() !== '' && Number.isFinite(Number(el.value))) return Number(el.value);
  return el.value;
}

const REASONED = html`class="reasoned"`;

export function configuration(host, note, id, path) {
  let config = { desired: null, reported: null, in_sync: true }, changed = {};
  const begun = key => { const row = settings(config).rows.find(it => it.key === key); return row?.wanted ?? row?.is; };
  const field = (key, value) => {
    const lock = state.canWrite ? '' : 'disabled';
    if (typeof value === 'boolean') return html`<input type="checkbox" id="c-${key}" data-key="${key}" ${new Html(value ? 'checked' : '')} ${new Html(lock)}>`;
    if (value !== null && typeof value === 'object') return html`<code>${JSON.stringify(value)}</code>`;
    return html`<input id="c-${key}" data-key="${key}" data-kind="${typeof value}" value="${value ?? ''}" autocomplete="off" spellcheck="false" ${new Html(lock)}>`;
  };
  const reported = ({ is, state: how }) => {
    if (how === 'applied') return html`<span class="st ok">${icon('ok')}<span class="vh">applied: </span><span>${text(is)}</span></span>`;
    if (how === 'refused') return html`<span class="st no">${icon('no')}<span>refused</span></span>${is === undefined ? '' : html`<div class="faint">stays ${text(is)}</div>`}`;
    if (is === undefined) return html`<span class="st warning">${icon('wait')}<span>not reported</span></span>`;
    return html`<span class="st warning">${icon('wait')}<span>${text(is)}</span></span><div class="faint">waits for the device</div>`;
  };
  const row = it => html`<tr ${it.state === 'refused' ? REASONED : ''}><th scope="row" class="mono"><label for="c-${it.key}">${it.key}</label></th><td>${it.wanted === undefined && it.is === undefined ? html`<span class="faint">–</span>` : field(it.key, it.wanted ?? it.is)}</td><td>${reported(it)}</td></tr>${it.state === 'refused' ? html`<tr class="why"><td colspan="3"><span class="vh">Why ${it.key} was refused: </span>${text(it.reason)}</td></tr>` : ''}`;
  const draw = () => {
    const { rows, whole } = settings(config), count = how => rows.filter(it => it.state === how).length;
    const [refused, waiting] = [count('refused'), count('waits')];
    note.textContent = [whole === undefined ? '' : 'refused', refused ? `${plural(refused, 'value')} refused` : '', waiting ? `${plural(waiting, 'value')} ${waiting === 1 ? 'waits' : 'wait'} for the device` : ''].filter(Boolean).join(', ');
    const edit = html`${write('Edit as JSON…', 'data-cfg="edit"', 'quiet')}${config.desired ? write('Clear…', 'data-cfg="clear"', 'quiet') : ''}`;
    const all = whole === undefined ? '' : html`<p class="lede"><span class="st no">${icon('no')}<span>The device refused all of it: ${text(whole)}</span></span></p>`;
    put(host, rows.length
      ? html`${all}<table class="cfg"><thead><tr><th scope="col">Key</th><th scope="col">Desired</th><th scope="col">Reported</th></tr></thead><tbody>${rows.map(row)}</tbody></table><p class="cmds">${write('Publish', 'data-cfg="publish"')}${edit}<span class="dim" id="cfg-changes" role="status">No changes</span></p>`
      : html`${all || html`<p class="empty dim">Nothing is asked of it, and it reports nothing.</p>`}<p class="cmds">${write('Set…', 'data-cfg="edit"')}${config.desired ? write('Clear…', 'data-cfg="clear"', 'quiet') : ''}</p>`);
  };
  const change = async (method, body) => {
    try {
      await call(`${path}/config`, { method, body });
      changed = {};
      const say = $('#cfg-changes');
      if (say) say.textContent = method === 'PUT' ? 'Published, waiting for the device to report.' : 'Cleared.';
    } catch (problem) { toast(problem); }
  };
  /** What is reported, without what was refused: nobody wants that. */
  const inForce = () => Object.fromEntries(settings(config).rows.filter(it => it.is !== undefined).map(it => [it.key, it.is]));
  const editor = () => dialog(`Configuration of ${id}`, html`<label>Desired, a JSON object<textarea id="cfg-json" rows="8" spellcheck="false" class="mono">${JSON.stringify(config.desired ?? inForce(), null, 1)}</textarea></label>`, html`${CANCEL}<button class="btn main" value="ok">Publish</button>`, box => {
    try { change('PUT', JSON.parse($('#cfg-json', box).value)); } catch { toast({ title: 'That is not JSON', detail: 'Nothing was published. Write an object such as {"interval_ms":5000}.' }); }
  });
  const clear = () => dialog(`Clear the configuration of ${id}?`, html`<p>Nothing is asked of the device any more; it keeps what is in force.</p>`, html`${CANCEL}<button class="btn main" value="ok">Clear</button>`, () => change('DELETE'));
  return {
    draw,
    /** Draws what is set now, unless somebody is in the middle of changing it; a button keeps the focus. */
    show(now) {
      config = now;
      const focused = host.contains(document.activeElement) ? document.activeElement : null;
      if (Object.keys(changed).length || focused?.matches('input')) return;
      draw();
      if (focused && !focused.isConnected) $(`[data-cfg="${focused.dataset.cfg}"]`, host)?.focus();
    },
    input({ target }) {
      const { key } = target.dataset;
      if (key === undefined) return;
      const value = inputValue(target);
      if (value === begun(key)) delete changed[key]; else changed[key] = value;
      const names = Object.keys(changed);
      $('#cfg-changes').textContent = names.length ? `${plural(names.length, 'change')}: ${names.join(', ')}` : 'No changes';
    },
    click(event) {
      const act = event.target.closest('[data-cfg]')?.dataset.cfg;
      if (!act || !state.canWrite) return;
      if (act === 'edit') editor();
      else if (act === 'clear') clear();
      else if (Object.keys(changed).length) change('PUT', { ...(isObject(config.desired) && config.desired), ...changed });
    },
  };
}
