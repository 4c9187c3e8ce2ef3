// Loads React's own files from npm, which are CommonJS, without a bundler.
const FILES = {
    scheduler: 'scheduler/cjs/scheduler.development.js',
    react: 'react/cjs/react.development.js',
    'react-dom': 'react-dom/cjs/react-dom.development.js',
    'react-dom/client': 'react-dom/cjs/react-dom-client.development.js',
};

export async function loadReact() {
    const loaded = {};
    const require = (name) => loaded[name];
    const process = { env: { NODE_ENV: 'development' } };
    // In this order, a file finds those that it requires.
    for (const [name, path] of Object.entries(FILES)) {
        const answer = await fetch(`/node_modules/${path}`);
        if (!answer.ok) throw new Error(`${path}: ${answer.status}: run tests/run, which installs it`);
        const module = { exports: {} };
        new Function('module', 'exports', 'require', 'process', await answer.text())(
            module, module.exports, require, process,
        );
        loaded[name] = module.exports;
    }
    return { React: loaded.react, createRoot: loaded['react-dom/client'].createRoot };
}
