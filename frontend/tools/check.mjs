// Everything that must hold: dist/ is what the sources build to, its size, its types, its behaviour.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const dist = join(root, 'dist');

/** Most bytes of each file of dist/ that a page loads, after gzip -9. */
const MOST = { 'index.js': 3072, 'sha256.js': 500 };

const failures = [];
const expect = (holds, what) => {
  console.log(`${holds ? 'ok' : 'FAILED'}: ${what}`);
  if (!holds) failures.push(what);
};

function run(...command) {
  return spawnSync(process.execPath, command, { cwd: root, stdio: 'inherit', timeout: 240_000 }).status === 0;
}

const built = mkdtempSync(join(tmpdir(), 'velt-sidecar-dist-'));
expect(run('tools/build.mjs', '--to', built), 'the sources compile');
const files = [...new Set([...readdirSync(built), ...readdirSync(dist)])].sort();
for (const file of files) {
  const read = (folder) => {
    try {
      return readFileSync(join(folder, file), 'utf8');
    } catch {
      return undefined;
    }
  };
  expect(read(built) === read(dist), `dist/${file} is what the sources build to (npm run build)`);
}
rmSync(built, { recursive: true });

for (const [file, most] of Object.entries(MOST)) {
  const bytes = gzipSync(readFileSync(join(dist, file)), { level: 9 }).length;
  expect(bytes <= most, `dist/${file} has ${bytes} bytes after gzip, of ${most}`);
}
const { dependencies = {}, peerDependencies = {} } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
expect(Object.keys({ ...dependencies, ...peerDependencies }).length === 0, 'the package has no dependencies');
expect(run('tools/types.mjs'), 'the types fit three versions of Velt');
const tests = readdirSync(join(root, 'test')).filter((name) => name.endsWith('.test.mjs'));
// Timers of requests that have ended would keep Node.js waiting; a page's timers harm nobody.
expect(run('--test', '--test-force-exit', '--test-timeout=60000', ...tests.map((name) => `test/${name}`)), 'the tests pass');

if (failures.length) console.error(`\nFAILED:\n${failures.join('\n')}`);
process.exitCode = failures.length ? 1 : 0;
