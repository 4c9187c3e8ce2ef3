// The app's page: it has the package, a stand-in of Velt's client and the user at hand for the test's scripts.
import * as kit from '/velt-sidecar/index.js';
import { Client } from '/client.js';

// Errors that no code of the page has handled.
window.failures = [];
addEventListener('error', (event) => window.failures.push(String(event.message)));
addEventListener('unhandledrejection', (event) => window.failures.push(String(event.reason)));

// Whether the page came from the back/forward cache, each time it was shown.
window.shown = [];
addEventListener('pageshow', (event) => window.shown.push(event.persisted));

// How often this user was said to be signed out.
window.signedOut = 0;

// The user that a token names.
const userOf = (token) => JSON.parse(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/'))).userId;

// How a request for a token has ended, as JSON.
window.outcome = (asking) => asking.then(
    (token) => {
        document.querySelector('[data-testid=token]').textContent = userOf(token);
        return { token, user: userOf(token) };
    },
    ({ name, code, status, retryable, retryAfter, message }) => ({ name, code, status, retryable, retryAfter, message }),
);

window.kit = kit;
window.client = new Client();
window.user = { userId: document.body.dataset.user, organizationId: 'acme', name: 'A name' };

// Makes the page's tokens, and asks for one. A busy machine takes its time. Half the patience is longer than a test
// waits, so that a lock which no page gives back fails the test.
window.ask = (options) => {
    window.tokens ??= kit.createVeltTokens({ userId: window.user.userId, patience: 90_000, ...options });
    window.listening ??= window.tokens.onSignedOut(() => { window.signedOut += 1; });
    return window.outcome(window.tokens.generateToken());
};
window.ready = true;
