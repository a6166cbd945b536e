// Draws how the rate of a job changes with its size: an SVG with a panel for each database, both axes logarithmic. Its colours follow the reader's
// scheme, light or dark, and it has no background, so that it is readable on either.

const SIDES = {
  ours: { name: 'this store', style: 'ours' },
  before: { name: 'the version before', style: 'before' },
  baseline: { name: 'Sequelize', style: 'sequelize' },
  limit: { name: 'in memory', style: 'memory' },
};
const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .small { font-size: 11px; fill: #57606a }
  .title { font-weight: 600 }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .ours { stroke: #0969da; fill: #0969da } .before { stroke: #8250df; fill: #8250df } .line.before { stroke-dasharray: 6 3 }
  .sequelize { stroke: #bc4c00; fill: #bc4c00 } .memory { stroke: #6e7781; fill: #6e7781 } .line.memory { stroke-dasharray: 2 3 }
  .line { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d }
    .ours { stroke: #4493f8; fill: #4493f8 } .before { stroke: #ab7df8; fill: #ab7df8 }
    .sequelize { stroke: #f0883e; fill: #f0883e } .memory { stroke: #9198a1; fill: #9198a1 } .line { fill: none }
  }`;

const [LEFT, TOP, HEIGHT, RIGHT, BOTTOM] = [64, 40, 200, 24, 44];
const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
const short = (value) => (value >= 1e6 ? `${value / 1e6}M` : value >= 1e3 ? `${value / 1e3}k` : `${value}`);
const powers = (from, to) => Array.from({ length: Math.round(Math.log10(to / from)) + 1 }, (_, n) => from * 10 ** n);
const axis = (values) => [10 ** Math.floor(Math.log10(Math.min(...values))), 10 ** Math.ceil(Math.log10(Math.max(...values)))];

function panel({ name, points }, wide, x0, y0, [lowX, highX], [lowY, highY]) {
  const x = (value) => x0 + LEFT + (Math.log10(value / lowX) / Math.log10(highX / lowX)) * wide;
  const y = (value) => y0 + TOP + HEIGHT - (Math.log10(value / lowY) / Math.log10(highY / lowY)) * HEIGHT;
  const parts = [`<text x="${x0 + LEFT}" y="${y0 + 24}" class="title">${escaped(name)}</text>`];
  for (const tick of powers(lowX, highX)) {
    parts.push(`<line class="grid" x1="${x(tick)}" x2="${x(tick)}" y1="${y(lowY)}" y2="${y(highY)}"/>`);
    parts.push(`<text class="small" x="${x(tick)}" y="${y(lowY) + 16}" text-anchor="middle">${short(tick)}</text>`);
  }
  for (const tick of powers(lowY, highY)) {
    parts.push(`<line class="grid" x1="${x(lowX)}" x2="${x(highX)}" y1="${y(tick)}" y2="${y(tick)}"/>`);
    parts.push(`<text class="small" x="${x(lowX) - 8}" y="${y(tick) + 4}" text-anchor="end">${short(tick)}</text>`);
  }
  for (const [side, { name: of, style }] of Object.entries(SIDES)) {
    const line = points.filter((point) => point.side === side).toSorted((a, b) => a.records - b.records);
    if (line.length === 0) continue;
    const at = line.map(({ records, rate }) => `${x(records).toFixed(1)} ${y(rate).toFixed(1)}`);
    parts.push(`<path class="line ${style}" d="M${at.join('L')}"/>`);
    for (const { records, rate } of line) {
      const says = `${of}: ${Math.round(rate).toLocaleString('en')} records/s in a job of ${records.toLocaleString('en')} records`;
      const [cx, cy] = [x(records).toFixed(1), y(rate).toFixed(1)];
      parts.push(`<circle class="${style}" cx="${cx}" cy="${cy}" r="2.5"><title>${escaped(says)}</title></circle>`);
    }
  }
  return parts;
}

/**
 * @param {string} title
 * @param {{ name: string, points: { side: string, records: number, rate: number }[] }[]} panels
 */
export function growthChart(title, panels) {
  const all = panels.flatMap(({ points }) => points);
  const scales = [axis(all.map(({ records }) => records)), axis(all.map(({ rate }) => rate))];
  const columns = Math.min(2, panels.length);
  const wide = columns === 1 ? 600 : 300;
  const [across, down] = [LEFT + wide + RIGHT, TOP + HEIGHT + BOTTOM];
  const parts = panels.flatMap((each, n) => panel(each, wide, (n % columns) * across, 28 + Math.floor(n / columns) * down, ...scales));
  const height = 28 + Math.ceil(panels.length / columns) * down + 24;
  const width = columns * across;
  const present = Object.entries(SIDES).filter(([side]) => all.some((point) => point.side === side));
  const legend = present.map(([, { name, style }], n) => {
    const at = LEFT + n * 165;
    const y = height - 18;
    return `<line class="line ${style}" x1="${at - 30}" x2="${at - 6}" y1="${y - 4}" y2="${y - 4}"/><text x="${at}" y="${y}">${name}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(title)}">
<style>${STYLE}
</style>
<text x="${LEFT}" y="20" class="title">${escaped(title)}</text>
${[...parts, ...legend].join('\n')}
</svg>
`;
}
