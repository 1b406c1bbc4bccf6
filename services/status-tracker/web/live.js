// Talks to the API: requests, and live events that go on where they were after a broken connection.

const TOKEN = 'api-token', NAME = 'name';
/** Events for pages: `summary`, `device`, `removed`, `alert`, `acknowledged`, `reset`, `link`. */
export const bus = new EventTarget();
export const state = { summary: null, live: false, locked: false, lostAt: 0, attempt: 0, retryAt: 0, canWrite: false, writes: true, known: false };

let token = null, name = null;
try { [token, name] = [sessionStorage.getItem(TOKEN), localStorage.getItem(NAME)]; } catch { /* storage may be blocked */ }
const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

/** An answer as JSON; throws the problem of the answer, or one that says that there was none. */
export async function call(path, { method = 'GET', body } = {}) {
  let response;
  try {
    response = await fetch(`/api/v1${path}`, { method, headers: { ...headers(), ...(body !== undefined && { 'Content-Type': 'application/json' }) }, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw { title: 'The tracker cannot be reached', detail: 'Nothing is known to have changed. The page tries again by itself.', status: 0 };
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => ({ title: 'The answer cannot be read', detail: response.statusText, status: response.status }));
  if (!response.ok) throw answer;
  return answer;
}

/** All pages of a list. */
export async function all(path) {
  const items = [];
  let cursor = '';
  do {
    const page = await call(`${path}${path.includes('?') ? '&' : '?'}limit=1000${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor);
  return items;
}

/** Asks what the token may do. */
export async function checkAccess() {
  try {
    const access = await call('/access');
    state.canWrite = access.authorized;
    state.writes = access.writes;
    state.known = true;
  } catch { state.canWrite = false; }
  tell('link');
}

/** Who acknowledges and silences. */
export const me = () => name || 'dashboard';
export function callMe(text) {
  name = text;
  try { if (text) localStorage.setItem(NAME, text); else localStorage.removeItem(NAME); } catch { /* storage may be blocked */ }
}

let lastId = '', wake = () => {};
export async function useToken(text) {
  token = text;
  try { if (text) sessionStorage.setItem(TOKEN, text); else sessionStorage.removeItem(TOKEN); } catch { /* storage may be blocked */ }
  await checkAccess();
  if (state.locked) wake();
}

const tell = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));

function took(name, data) {
  if (name === 'summary') state.summary = data;
  tell(name, data);
}

/** Reads the stream for ever. EventSource cannot send a token, so the stream is read by hand. */
export async function listen() {
  for (;;) {
    try {
      const response = await fetch('/api/v1/events', { headers: { ...headers(), ...(lastId && { 'Last-Event-ID': lastId }) }, cache: 'no-store' });
      state.locked = response.status === 401;
      if (!response.ok) throw new Error(response.statusText);
      Object.assign(state, { live: true, attempt: 0 });
      tell('link');
      await read(response.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch { /* told below, by the state */ }
    if (state.live) state.lostAt = Date.now();
    state.live = false;
    state.attempt += 1;
    const pause = Math.min(1000 * 2 ** (state.attempt - 1), 16000);
    state.retryAt = Date.now() + pause;
    tell('link');
    await new Promise(done => { wake = done; setTimeout(done, pause); });
  }
}
export const retryNow = () => wake();

async function read(reader) {
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split('\n\n');
    text = events.pop();
    for (const event of events) {
      let name = '', data = '';
      for (const line of event.split('\n')) {
        if (line.startsWith('id: ')) lastId = line.slice(4);
        else if (line.startsWith('event: ')) name = line.slice(7);
        else if (line.startsWith('data: ')) data = line.slice(6);
      }
      if (name) took(name, JSON.parse(data));
    }
  }
}
