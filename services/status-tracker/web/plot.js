// A plot of readings: mean line, min-max band, bounds of rules, alerts, the value under the cursor.

import { $, clock, html, number, sign, when } from './parts.js';

/** A token's colour as canvas understands it: light-dark() is resolved by the browser. */
function ink(token, alpha) {
  const probe = document.createElement('i');
  probe.hidden = true;
  document.documentElement.append(probe);
  probe.style.color = alpha == null ? `var(${token})` : `color-mix(in srgb, var(${token}) ${alpha}%, transparent)`;
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

/** Space above and below the values, and room for a bound that they come near to. */
function range(thresholds) {
  return (_, low, high) => {
    let [a, b] = [low, high];
    const span = b - a || Math.abs(b) * 0.1 || 1;
    for (const { value, above } of thresholds) {
      if (above && value > b && value - b < span) b = value;
      if (!above && value < a && a - value < span) a = value;
    }
    const pad = (b - a) * 0.1 || 1;
    return [a - pad, b + pad];
  };
}

/** Zones beyond the bounds, and bands while an alert fired, below the line. */
const drawBelow = (thresholds, marks, ends) => u => {
  const { ctx: c, bbox: { left, top, width, height } } = u;
  c.save();
  c.beginPath();
  c.rect(left, top, width, height);
  c.clip();
  for (const { value, above, severity } of thresholds) {
    const y = u.valToPos(value, 'y', true);
    c.fillStyle = ink(`--${severity}`, 8);
    if (above) c.fillRect(left, top, width, y - top); else c.fillRect(left, y, width, top + height - y);
  }
  for (const mark of marks) {
    const a = u.valToPos(mark.from, 'x', true), b = u.valToPos(mark.to ?? ends, 'x', true);
    c.fillStyle = ink(`--${mark.severity}`, 18);
    c.fillRect(a, top, Math.max(2, b - a), height);
  }
  c.restore();
};

/** Height of a line of text in a plot, in CSS pixels. */
const LINE = 14;
/**
 * The tops of the names of bounds, so that no name lies on another: null where there is no room left. A name is beyond
 * its line, as near to it as the names before it allow. All in pixels, `y` from the top of a plot that is `height` high.
 */
export function labelTops(bounds, height, line = LINE) {
  const tops = [];
  const isFree = top => top >= 0 && top + line <= height && tops.every(it => it === null || Math.abs(it - top) >= line);
  for (const { y, above } of bounds) {
    const wish = Math.round(above ? y - line : y), beyond = above ? -1 : 1;
    const nextTo = tops.filter(it => it !== null).flatMap(it => [it - line, it + line]);
    const places = [wish, Math.min(Math.max(wish, 0), height - line), ...nextTo].filter(isFree);
    places.sort((a, b) => Math.abs(a - wish) - Math.abs(b - wish) || (b - a) * beyond);
    tops.push(places[0] ?? null);
  }
  return tops;
}

/** The bounds with their rules' names, and where alerts began, above the line. */
const drawAbove = (thresholds, marks, font) => u => {
  const { ctx: c, bbox: { left, top, width, height } } = u, r = devicePixelRatio;
  c.save();
  c.font = font(r);
  c.lineWidth = r;
  const seen = thresholds.map(it => ({ ...it, y: u.valToPos(it.value, 'y', true) })).filter(({ y }) => y >= top && y <= top + height);
  const tops = labelTops(seen.map(({ y, above }) => ({ y: (y - top) / r, above })), Math.floor(height / r));
  for (const [i, { y, severity, label }] of seen.entries()) {
    c.strokeStyle = c.fillStyle = ink(`--${severity}`);
    c.setLineDash([4 * r, 3 * r]);
    c.beginPath();
    c.moveTo(left, y);
    c.lineTo(left + width, y);
    c.stroke();
    c.setLineDash([]);
    c.textAlign = 'left';
    c.textBaseline = 'middle';
    if (tops[i] !== null) c.fillText(label, left + 6 * r, top + (tops[i] + LINE / 2) * r);
  }
  for (const mark of marks) {
    const x = u.valToPos(mark.from, 'x', true);
    if (x < left || x > left + width) continue;
    c.strokeStyle = c.fillStyle = ink(`--${mark.severity}`);
    c.beginPath();
    c.moveTo(x, top);
    c.lineTo(x, top + height);
    c.stroke();
    c.beginPath();
    c.moveTo(x, top + 9 * r);
    c.lineTo(x - 5 * r, top);
    c.lineTo(x + 5 * r, top);
    c.fill();
  }
  c.restore();
};

const table = (x, [low, mean, high], value) => {
  const step = Math.ceil(x.length / 12);
  return html`<details><summary>Values as a table</summary><table><thead><tr><th scope="col">Time</th><th scope="col" class="num">Min</th><th scope="col" class="num">Mean</th><th scope="col" class="num">Max</th></tr></thead><tbody>${x.map((t, i) => (i % step ? '' : html`<tr><td>${when(t * 1e3)}</td><td class="num">${value(low[i])}</td><td class="num">${value(mean[i])}</td><td class="num">${value(high[i])}</td></tr>`))}</tbody></table></details>`;
};

/** Where the time between two points is far longer than usual, the line is broken: nothing was stored. */
function withGaps(columns) {
  const x = columns[0], steps = x.slice(1).map((t, i) => t - x[i]).sort((a, b) => a - b), usual = steps[Math.floor(steps.length / 2)] || 1;
  const out = columns.map(() => []);
  x.forEach((t, i) => {
    if (i && t - x[i - 1] > 6 * usual) out.forEach((column, k) => column.push(k ? null : (t + x[i - 1]) / 2));
    out.forEach((column, k) => column.push(columns[k][i]));
  });
  return out;
}

/**
 * Draws into `host` and gives a function that ends it. `points` have `at`, `min`, `mean`, `max`; `marks` are alerts or
 * episodes; `span` is what the time axis shows, in milliseconds.
 */
export function plot(host, { title, unit: measure, points, span, thresholds = [], marks = [], height = 168, table: tabled = true }) {
  const unit = sign(measure), truth = measure === 'boolean';
  const x = points.map(p => Date.parse(p.at) / 1e3), mean = points.map(p => p.mean), low = points.map(p => p.min), high = points.map(p => p.max);
  const lowest = Math.min(...low), highest = Math.max(...high);
  const digits = highest - lowest < 20 && [...low, ...high].some(v => v % 1) ? 1 : 0, value = v => (v == null ? '–' : number(v, digits));
  const alerts = marks.map(it => ({ from: Date.parse(it.fired_at) / 1e3, to: it.resolved_at && Date.parse(it.resolved_at) / 1e3, severity: it.severity ?? thresholds[0]?.severity ?? 'warning' }));
  const told = alerts.map(it => `; alert from ${when(it.from * 1e3)}${it.to ? ` to ${when(it.to * 1e3)}` : ''}`).join('');
  host.classList.add('plot');
  host.innerHTML = html`<div class="plot-h"><h3>${title}</h3><output>${value(mean.at(-1))} <span>${unit}</span></output></div>
    <div class="plot-c" role="img" aria-label="${title}: now ${value(mean.at(-1))} ${unit}, lowest ${value(lowest)}, highest ${value(highest)}${thresholds.map(it => `; rule ${it.label}`).join('')}${told}"></div>
    ${tabled && table(x, [low, mean, high], value)}`;
  const box = $('.plot-c', host), out = $('output', host), family = getComputedStyle(document.body).fontFamily;
  const line = { stroke: ink('--ink-3'), font: `11px ${family}`, grid: { stroke: ink('--grid'), width: 1 }, ticks: { show: false } };
  const hidden = { stroke: 'transparent', points: { show: false } };
  const font = r => `${11 * r}px ${family}`;
  const data = withGaps([x, mean, low, high]);
  // Open or shut is no slope.
  const paths = truth ? uPlot.paths.stepped({ align: 1 }) : undefined;
  const chart = new uPlot({
    width: box.clientWidth || 300,
    height,
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, sync: { key: 'device' }, drag: { x: true, y: false } },
    scales: { x: { range: () => [span[0] / 1e3, span[1] / 1e3] }, y: { range: truth ? () => [-0.1, 1.2] : range(thresholds) } },
    axes: [
      { ...line, size: 24, gap: 4, space: 70, values: (_, at, __, ___, step) => at.map(t => (step >= 86400 ? when(t * 1e3).split(' ')[0] : clock(t * 1e3))) },
      { ...line, size: 44, gap: 4, space: 32, splits: truth ? () => [0, 1] : undefined, values: (_, at) => at.map(v => number(v, at.length > 1 && (at[1] - at[0]) % 1 ? 1 : 0)) },
    ],
    series: [{}, { stroke: ink('--series'), width: 1.5, paths, points: { show: points.length < 3 } }, hidden, hidden],
    bands: [{ series: [3, 2], fill: ink('--series', 16) }],
    hooks: {
      drawClear: [drawBelow(thresholds, alerts, span[1] / 1e3)],
      draw: [drawAbove(thresholds, alerts, font)],
      setCursor: [u => {
        const i = u.cursor.idx, [t, m, lo, hi] = data.map(column => column[i]);
        out.innerHTML = i == null || m == null ? html`${value(mean.at(-1))} <span>${unit}</span>` : html`<span>${when(t * 1e3)}</span> ${value(m)} <span>${unit}, ${value(lo)} to ${value(hi)}</span>`;
      }],
    },
  }, data, box);
  const watch = new ResizeObserver(() => box.clientWidth && chart.setSize({ width: box.clientWidth, height }));
  watch.observe(box);
  return () => { watch.disconnect(); chart.destroy(); };
}
