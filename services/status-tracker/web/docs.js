// Shows /openapi.json for people.

import { $, html } from './parts.js';

const api = await (await fetch('/openapi.json')).json();
const operations = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, it]) => ({ path, method, id: `${method}-${path}`, ...it })));
const schemaName = schema => schema?.$ref?.split('/').pop() ?? schema?.items?.$ref?.split('/').pop() ?? '';
const typeOf = schema => (Array.isArray(schema?.type) ? schema.type.join(' or ') : schema?.type ?? schemaName(schema) ?? '');
const parameters = list => html`<table><thead><tr><th scope="col">Parameter</th><th scope="col">In</th><th scope="col">Type</th><th scope="col">Meaning</th></tr></thead><tbody>${list.map(it => html`<tr><th scope="row" class="mono">${it.name}${it.required ? '' : '?'}</th><td>${it.in}</td><td>${typeOf(it.schema)}</td><td>${it.description}</td></tr>`)}</tbody></table>`;
const answers = list => html`<table><thead><tr><th scope="col">Answer</th><th scope="col">Body</th><th scope="col">Meaning</th></tr></thead><tbody>${Object.entries(list).map(([status, it]) => html`<tr><th scope="row">${status}</th><td class="mono">${schemaName(Object.values(it.content ?? {})[0]?.schema)}</td><td>${it.description}</td></tr>`)}</tbody></table>`;

$('#nav').innerHTML = html`<ul>${operations.map(it => html`<li><a href="#${it.id}">${it.method.toUpperCase()} ${it.path.replace("/api/v1", "")}</a></li>`)}</ul>`;
$('#main').innerHTML = html`<h1>API</h1><p class="lede">${api.info.description} The same for programs: <a href="/openapi.json">/openapi.json</a>. Writes need <code>Authorization: Bearer TOKEN</code>; errors are problem details (RFC 9457).</p>
  ${operations.map(it => html`<section id="${it.id}"><div class="sec-h"><h2 class="mono">${it.method.toUpperCase()} ${it.path}</h2><p>${it.security ? 'needs the token' : ''}</p></div><p class="lede">${it.summary} ${it.description}</p>${it.parameters && parameters(it.parameters)}${answers(it.responses)}</section>`)}
  <section id="schemas"><div class="sec-h"><h2>Bodies</h2></div>${Object.entries(api.components?.schemas ?? {}).map(([name, it]) => html`<h3>${name}</h3><pre class="rule-text">${JSON.stringify(it, null, 1)}</pre>`)}</section>`;
