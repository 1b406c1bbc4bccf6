// What a device should be set to, and what it says that it is.

import { put, write } from './frame.js';
import { call, state } from '../live.js';
import { $, $$, CANCEL, Html, dialog, html, icon, plural, toast } from '../parts.js';

const text = value => (value === true ? 'on' : value === false ? 'off' : typeof value === 'string' ? value : JSON.stringify(value));

/** What an input says, as a value of the same kind as the one it began with. */
function inputValue(el) {
  if (el.type === 'checkbox') return el.checked;
  if (el.dataset.kind === 'number' && el.value.trim() !== '' && Number.isFinite(Number(el.value))) return Number(el.value);
  return el.value;
}

export function configuration(host, note, id, path) {
  let config = { desired: null, reported: null, in_sync: true }, changed = {};
  const keys = () => [...new Set([...Object.keys(config.desired ?? {}), ...Object.keys(config.reported ?? {})])].sort();
  const desired = key => config.desired?.[key] ?? config.reported?.[key];
  const field = (key, value) => {
    const lock = state.canWrite ? '' : 'disabled';
    if (typeof value === 'boolean') return html`<input type="checkbox" id="c-${key}" data-key="${key}" ${new Html(value ? 'checked' : '')} ${new Html(lock)}>`;
    if (value !== null && typeof value === 'object') return html`<code>${JSON.stringify(value)}</code>`;
    return html`<input id="c-${key}" data-key="${key}" data-kind="${typeof value}" value="${value ?? ''}" autocomplete="off" spellcheck="false" ${new Html(lock)}>`;
  };
  const reported = key => {
    const is = config.reported?.[key], wanted = config.desired?.[key];
    if (is === undefined) return html`<span class="st warning">${icon('wait')}not reported</span>`;
    if (wanted === undefined || JSON.stringify(wanted) === JSON.stringify(is)) return html`<span class="st ok">${icon('ok')}<span class="vh">applied: </span>${text(is)}</span>`;
    return html`<span class="st warning">${icon('wait')}${text(is)}</span><div class="faint">waits for the device</div>`;
  };
  const draw = () => {
    const waiting = Object.entries(config.desired ?? {}).filter(([key, value]) => JSON.stringify(config.reported?.[key]) !== JSON.stringify(value)).length;
    note.textContent = waiting ? `${plural(waiting, 'value')} ${waiting === 1 ? 'waits' : 'wait'} for the device` : '';
    const edit = html`${write('Edit as JSON…', 'data-cfg="edit"', 'quiet')}${config.desired ? write('Clear…', 'data-cfg="clear"', 'quiet') : ''}`;
    put(host, keys().length
      ? html`<table class="cfg"><thead><tr><th scope="col">Key</th><th scope="col">Desired</th><th scope="col">Reported</th></tr></thead><tbody>${keys().map(key => html`<tr><th scope="row" class="mono"><label for="c-${key}">${key}</label></th><td>${field(key, desired(key))}</td><td>${reported(key)}</td></tr>`)}</tbody></table><p class="cmds">${write('Publish', 'data-cfg="publish"')}${edit}<span class="dim" id="cfg-changes" role="status">No changes</span></p>`
      : html`<p class="empty dim">Nothing is asked of it, and it reports nothing.</p><p class="cmds">${write('Set…', 'data-cfg="edit"')}</p>`);
  };
  const change = async (method, body) => {
    try {
      await call(`${path}/config`, { method, body });
      changed = {};
      const say = $('#cfg-changes');
      if (say) say.textContent = method === 'PUT' ? 'Published, waiting for the device to report.' : 'Cleared.';
    } catch (problem) { toast(problem); }
  };
  const editor = () => dialog(`Configuration of ${id}`, html`<label>Desired, a JSON object<textarea id="cfg-json" rows="8" spellcheck="false" class="mono">${JSON.stringify(config.desired ?? config.reported ?? {}, null, 1)}</textarea></label>`, html`${CANCEL}<button class="btn main" value="ok">Publish</button>`, box => {
    try { change('PUT', JSON.parse($('#cfg-json', box).value)); } catch { toast({ title: 'That is not JSON', detail: 'Nothing was published. Write an object such as {"interval_ms":5000}.' }); }
  });
  const clear = () => dialog(`Clear the configuration of ${id}?`, html`<p>Nothing is asked of the device any more; it keeps what is in force.</p>`, html`${CANCEL}<button class="btn main" value="ok">Clear</button>`, () => change('DELETE'));
  return {
    draw,
    /** Draws what is set now, unless somebody is in the middle of changing it. */
    show(now) {
      config = now;
      if (!Object.keys(changed).length && !host.contains(document.activeElement)) draw();
    },
    input({ target }) {
      const { key } = target.dataset;
      if (key === undefined) return;
      const value = inputValue(target);
      if (value === desired(key)) delete changed[key]; else changed[key] = value;
      const names = Object.keys(changed);
      $('#cfg-changes').textContent = names.length ? `${plural(names.length, 'change')}: ${names.join(', ')}` : 'No changes';
    },
    click(event) {
      const act = event.target.closest('[data-cfg]')?.dataset.cfg;
      if (!act || !state.canWrite) return;
      if (act === 'edit') editor();
      else if (act === 'clear') clear();
      else if (Object.keys(changed).length) change('PUT', { ...config.desired, ...changed });
    },
  };
}
