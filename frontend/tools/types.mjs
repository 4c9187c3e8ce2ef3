// Compiles test/types and the snippets of docs/frontend.md and docs/your-app.md against the types of three versions of Velt.

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(root, 'node_modules');

/** TypeScript blocks of a document, as [extension, text]. */
function snippets(document) {
  const text = readFileSync(join(root, document), 'utf8');
  return [...text.matchAll(/^ *```(tsx?)\n([\s\S]*?)^ *```/gm)].map(([, extension, block]) => [extension, block]);
}

/** Names that a page has before a snippet. */
const BEFORE = `import type { User, Velt } from '@veltdev/types';
declare global {
  const client: Velt;
  const user: User & { userId: string };
  const apiKey: string;
  const app: import('react').ReactNode;
}
`;

/** Runs the compiler, and returns whether it has no complaint. */
function compiles(...options) {
  const compiler = join(modules, 'typescript/bin/tsc');
  const checked = spawnSync(process.execPath, [compiler, ...options], { encoding: 'utf8' });
  process.stdout.write(checked.stdout + checked.stderr);
  return checked.status === 0;
}

const blocks = ['../docs/frontend.md', '../docs/your-app.md'].flatMap(snippets);
if (blocks.length < 8) throw new Error(`only ${blocks.length} snippets were found`);

// By itself, since some compilations below skip declarations.
const strict = ['--strict', '--exactOptionalPropertyTypes', '--noEmit', '--ignoreConfig', '--types', ''];
let failed = !compiles(...strict, '--lib', 'es2022,dom,dom.iterable', join(root, 'dist/index.d.ts'));
for (const version of [4, 5, 6]) {
  const folder = mkdtempSync(join(root, `node_modules/.types-${version}-`));
  try {
    for (const file of readdirSync(join(root, 'test/types'))) {
      copyFileSync(join(root, 'test/types', file), join(folder, file));
    }
    writeFileSync(join(folder, 'globals.d.ts'), `${BEFORE}export {};\n`);
    // Velt's types import it, and name it nowhere as a dependency.
    const missing = `declare module '@angular/fire/app' { export type FirebaseOptions = object }\n`;
    writeFileSync(join(folder, 'missing.d.ts'), missing);
    blocks.forEach(([extension, block], index) => {
      writeFileSync(join(folder, `snippet-${index + 1}.${extension}`), `${block}\nexport {};\n`);
    });
    const compilerOptions = {
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      noEmit: true,
      // Versions 4 and 5 name modules that they lack.
      skipLibCheck: version < 6,
      types: [],
      jsx: 'react-jsx',
      target: 'es2022',
      module: 'esnext',
      moduleResolution: 'bundler',
      lib: ['es2022', 'dom', 'dom.iterable'],
      paths: {
        '@veltdev/types': [join(modules, `velt-types-${version}`)],
        'velt-sidecar': [join(root, 'dist/index.d.ts')],
      },
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts', '*.tsx'] }));
    const fits = compiles('-p', folder);
    console.log(`Velt ${version}: types ${fits ? 'fit' : 'do not fit'}`);
    failed ||= !fits;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
process.exitCode = failed ? 1 : 0;
