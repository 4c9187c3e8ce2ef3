// The page's user signs in as docs/frontend.md says for React, in StrictMode, with a provider made anew by each
// render.
import { veltAuthProvider } from '/velt-sidecar/index.js';
import { loadReact } from '/modules.js';

const { React, createRoot } = await loadReact();
const { StrictMode, createElement, useEffect, useRef, useState } = React;

window.renders = 0;

// Does what VeltProvider of @veltdev/react 6 does with its `authProvider`: it hands it to the client whenever it
// differs from the last one, and functions are equal only if they are the same function.
function VeltProvider({ authProvider, children }) {
    const last = useRef(null);
    useEffect(() => {
        if (isEqual(last.current, authProvider)) return;
        last.current = authProvider;
        window.client.setVeltAuthProvider(authProvider);
    }, [authProvider]);
    return children;
}

function isEqual(left, right) {
    if (left === right || typeof left !== 'object' || typeof right !== 'object' || !left || !right) {
        return left === right;
    }
    const keys = new Set([...Object.keys(left), ...Object.keys(right)]);
    return [...keys].every((key) => isEqual(left[key], right[key]));
}

function App() {
    const [count, setCount] = useState(0);
    const [userId, setUserId] = useState(window.user.userId);
    window.renders += 1;
    window.changeUser = setUserId;
    // A new object for each render, as an app makes it of its session.
    const user = { ...window.user, userId };
    return createElement(
        VeltProvider,
        { authProvider: veltAuthProvider(user) },
        createElement('button', { 'data-testid': 'again', onClick: () => setCount(count + 1) }, `${count}`),
    );
}

const root = createRoot(document.getElementById('root'));
root.render(createElement(StrictMode, null, createElement(App)));
