/**
 * Refuses a build that a browser under the platform's content security policy would refuse, or that is too
 * heavy: entry (its scripts and style sheets) under 200 KB gzip, no inline script or style, no foreign host.
 */
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const LIMIT = 200 * 1024;
const dist = fileURLToPath(new URL('../dist', import.meta.url));
const read = (name) => readFileSync(join(dist, name));
const gzip = (name) => gzipSync(read(name), { level: 9 }).length;
const kb = (bytes) => `${(bytes / 1024).toFixed(1)} KB`;
const faults = [];

const manifest = JSON.parse(read('.vite/manifest.json'));
const entry = Object.values(manifest).find((chunk) => chunk.isEntry);

/** Everything the browser has to have before the first page: static imports and their style sheets. */
function needed(chunk, found = new Set()) {
  found.add(chunk.file);
  for (const css of chunk.css ?? []) found.add(css);
  for (const name of chunk.imports ?? []) if (!found.has(manifest[name].file)) needed(manifest[name], found);
  return found;
}

const files = [...needed(entry)];
const total = files.reduce((sum, file) => sum + gzip(file), 0);
const script = files.filter((file) => file.endsWith('.js')).reduce((sum, file) => sum + gzip(file), 0);
console.log(`entry: ${kb(total)} gzip (scripts ${kb(script)}, styles ${kb(total - script)}; limit ${kb(LIMIT)})`);
if (total > LIMIT) faults.push(`the entry is ${kb(total)} gzip: over ${kb(LIMIT)}. Is a page imported without lazyRouteComponent?`);

const html = read('index.html').toString();
for (const [, attributes, body] of html.matchAll(/<script([^>]*)>([\s\S]*?)<\/script>/g)) {
  if (!attributes.includes('src=') || body.trim() !== '') faults.push('index.html holds an inline script');
}
if (/<style|\sstyle=|\son\w+=/.test(html)) faults.push('index.html holds an inline style or handler');
if (/(?:src|href)="(?:https?:)?\/\//.test(html)) faults.push('index.html asks another host');
for (const name of readdirSync(join(dist, 'assets'))) {
  if (!name.endsWith('.css')) continue;
  const css = read(join('assets', name)).toString();
  if (/url\((?:["']?)(?:https?:)?\/\//.test(css)) faults.push(`${name} asks another host`);
  if (/url\((?:["']?)data:(?:font|application)/.test(css)) faults.push(`${name} holds a font as data: URI`);
}

// The manifest has served its purpose; it is not for browsers.
rmSync(join(dist, '.vite'), { recursive: true });

for (const fault of faults) console.error(`check-dist: ${fault}`);
process.exit(faults.length > 0 ? 1 : 0);
