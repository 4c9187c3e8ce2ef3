// Builds dist/ from src/: the minified module for pages, the one that it loads on demand, and declarations.
// With `--to FOLDER`, builds there instead, for the comparison of tools/check.mjs.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { minify } from 'terser';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const to = process.argv[2] === '--to' ? process.argv[3] : join(root, 'dist');
rmSync(to, { recursive: true, force: true });
mkdirSync(to, { recursive: true });

// Properties that begin with an underscore are this package's own, and get short names.
const mangleProps = /^_/;

// Loaded on demand, so it stays a file of its own.
const apart = {
  name: 'apart',
  setup: ({ onResolve }) => onResolve({ filter: /sha256/ }, ({ path }) => ({ path, external: true })),
};

async function bundle(name, plugins = []) {
  const bundled = await build({
    entryPoints: [join(root, `src/${name}.ts`)],
    bundle: true,
    minify: true,
    mangleProps,
    plugins,
    format: 'esm',
    target: 'es2022',
    write: false,
  });
  const { code } = await minify(bundled.outputFiles[0].text, {
    module: true,
    compress: { passes: 3, unsafe_arrows: true, ecma: 2022, hoist_funs: true },
  });
  writeFileSync(join(to, `${name}.js`), code);
}

/** Writes index.d.ts and the declarations that it imports; those of internal modules stay out. */
function declarations() {
  const folder = mkdtempSync(join(tmpdir(), 'velt-sidecar-types-'));
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const options = ['--noEmit', 'false', '--declaration', '--emitDeclarationOnly', '--outDir', folder];
  execFileSync(process.execPath, [compiler, '-p', root, ...options], { stdio: 'inherit' });
  const waiting = ['index'];
  const seen = new Set();
  while (waiting.length) {
    const name = waiting.pop();
    if (seen.has(name)) continue;
    seen.add(name);
    const text = readFileSync(join(folder, `${name}.d.ts`), 'utf8');
    writeFileSync(join(to, `${name}.d.ts`), text);
    for (const [, other] of text.matchAll(/from '\.\/([\w-]+)\.js'/g)) waiting.push(other);
  }
  rmSync(folder, { recursive: true });
}

await bundle('index', [apart]);
await bundle('sha256');
declarations();
