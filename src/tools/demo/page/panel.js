// @ts-check
// The demo's panel in a page of the reader's app: who is signed in, and what each response carried.
// It runs before the page's own scripts, stands in a shadow root outside `body`, and only reads.
(() => {
  /** @typedef {{id: string, name: string, email: string}} DemoUser */
  /** @typedef {{path: string, status: number, carried: string, kind: 'token' | 'status' | 'nothing'}} Seen */

  const SHOWN = 40;
  const OWN_PATHS = '/__velt-demo/';
  const ROUTE = '/api/velt/token';
  const COLLAPSED = 'velt-demo-collapsed';
  const MOST_RETURNS = 20;

  const globals = /** @type {any} */ (globalThis);
  /** @type {{user: string | null, users: DemoUser[]} | undefined} */
  const state = globals.__veltDemo;
  delete globals.__veltDemo;
  const script = document.currentScript;
  if (!state || !(script instanceof HTMLScriptElement)) return;
  const { user, users } = state;
  const policy = script.dataset.policy ?? '';
  // Gone before a framework compares the document with its own.
  script.remove();

  const STYLE = `
    :host {
      all: initial !important; position: fixed !important; display: block !important;
      right: 12px !important; bottom: 12px !important; z-index: 2147483647 !important;
      color-scheme: light dark !important;
      --card: light-dark(#ffffff, #1d2126); --sunken: light-dark(#f0f2f5, #14171b);
      --line: light-dark(#c9ced6, #434a55); --text: light-dark(#1b2027, #e6e9ed);
      --quiet: light-dark(#56606d, #a3adb9); --accent: light-dark(#1f5fbf, #7db0f7);
      --on-accent: light-dark(#ffffff, #10151c); --good: light-dark(#17693a, #7fd6a0);
      --bad: light-dark(#a3271f, #ff9d94);
    }
    @media print { :host { display: none !important; } }
    * { box-sizing: border-box; margin: 0; padding: 0; }
    aside {
      width: min(320px, calc(100vw - 24px)); max-height: min(440px, calc(100vh - 24px));
      display: flex; flex-direction: column; overflow: hidden;
      background: var(--card); color: var(--text); border: 1px solid var(--line); border-radius: 8px;
      box-shadow: 0 4px 18px rgb(0 0 0 / 25%);
      font: 13px/1.4 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
    }
    aside[data-collapsed] { width: auto; }
    aside[data-collapsed] > :not(header) { display: none; }
    header { display: flex; align-items: center; gap: 8px; padding: 4px 4px 4px 10px; }
    header strong { flex: 1; font-weight: 600; white-space: nowrap; }
    button {
      font: inherit; color: inherit; min-height: 26px; padding: 2px 8px; cursor: pointer;
      background: var(--card); border: 1px solid var(--line); border-radius: 5px;
    }
    button:hover { border-color: var(--accent); }
    button:focus-visible, a:focus-visible, ol:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
    button[aria-pressed="true"] { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
    header button { border-color: transparent; }
    section { padding: 6px 10px; border-top: 1px solid var(--line); }
    section:has(ol) { display: flex; flex-direction: column; min-height: 76px; }
    h2 { font-size: 12px; font-weight: 600; color: var(--quiet); }
    .users { display: flex; flex-wrap: wrap; gap: 4px; }
    .line { display: flex; align-items: center; gap: 8px; }
    .line > :first-child { flex: 1; min-width: 0; }
    code, ol { font: 12px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
    .answer { overflow-wrap: anywhere; }
    ol { list-style: none; overflow: auto; margin-top: 2px; }
    li { display: grid; grid-template-columns: auto 1fr auto; gap: 8px; }
    li span:nth-child(2) { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .token { color: var(--good); } .status { color: var(--bad); } .nothing { color: var(--quiet); }
    .quiet { color: var(--quiet); font-size: 12px; }
    .problem { color: var(--bad); }
    a { color: var(--accent); }
  `;

  // ---- What responses carry

  /** @type {Seen[]} */
  const seen = [];
  /** @type {() => void} */
  let showSeen = () => {};
  const ownFetch = globalThis.fetch.bind(globalThis);

  /** @param {string} token */
  function claimsOf(token) {
    try {
      const base64 = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
      const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
      return JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      return {};
    }
  }

  /** @param {string} url @param {number} status @param {(name: string) => string | null} header */
  function note(url, status, header) {
    const { origin, pathname } = new URL(url, location.href);
    if (origin !== location.origin || pathname.startsWith(OWN_PATHS)) return;
    const token = header('X-Velt-Token');
    const reason = header('X-Velt-Token-Status');
    const owner = token ? String(claimsOf(token).userId ?? 'unknown user') : '';
    seen.unshift({
      path: pathname,
      status,
      carried: token ? `token: ${owner}` : reason ?? 'no token, no status',
      kind: token ? 'token' : reason ? 'status' : 'nothing',
    });
    seen.length = Math.min(seen.length, SHOWN);
    if (token && owner !== (user ?? '')) showOtherUser(owner);
    showSeen();
  }

  // Proxies, since they keep the name, the length and the text of what the page may look at.
  globalThis.fetch = new Proxy(globalThis.fetch, {
    apply(target, self, parameters) {
      const answer = Reflect.apply(target, self, parameters);
      answer.then(
        (/** @type {Response} */ response) => {
          if (response.url) note(response.url, response.status, (name) => response.headers.get(name));
        },
        () => {},
      );
      return answer;
    },
  });
  XMLHttpRequest.prototype.send = new Proxy(XMLHttpRequest.prototype.send, {
    apply(target, self, parameters) {
      if (self instanceof XMLHttpRequest) {
        self.addEventListener('loadend', () => {
          if (self.responseURL) note(self.responseURL, self.status, (name) => headerOf(self, name));
        }, { once: true });
      }
      return Reflect.apply(target, self, parameters);
    },
  });

  /** Chromium complains of a header that another origin does not expose. @param {XMLHttpRequest} request @param {string} name */
  function headerOf(request, name) {
    const isOwn = new URL(request.responseURL).origin === location.origin;
    return isOwn ? request.getResponseHeader(name) : null;
  }

  // ---- The panel

  /**
   * @param {string} tag @param {Record<string, string>} attributes @param {(Node | string)[]} children
   * @returns {HTMLElement}
   */
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /** @param {string} text @param {() => void} action @param {Record<string, string>} attributes */
  function button(text, action, attributes = {}) {
    const made = element('button', { type: 'button', ...attributes }, text);
    made.addEventListener('click', action);
    return made;
  }

  const current = users.find(({ id }) => id === user);
  const answer = element('p', { class: 'answer', 'data-testid': 'route', 'aria-live': 'polite' }, '\u2026');
  const problem = element('p', { class: 'problem', 'data-testid': 'problem', role: 'status' });
  const list = element('ol', { tabindex: '0', 'aria-label': 'Responses, newest first', 'data-testid': 'responses' });
  const collapse = button('\u2013', () => setCollapsed(!panel.hasAttribute('data-collapsed')), { 'data-testid': 'collapse' });
  const panel = element('aside', { 'aria-label': 'velt-sidecar demo' },
    element('header', {},
      element('strong', { 'data-testid': 'user', 'data-user': user ?? '' }, current ? `Signed in: ${current.name}` : 'Signed out'),
      collapse),
    element('section', {},
      element('div', { class: 'users', role: 'group', 'aria-label': 'Sign in as' },
        ...users.map(({ id, name }) => userButton(id, name.split(' ')[0])),
        userButton('', 'Sign out')),
      problem),
    element('section', {},
      element('div', { class: 'line' },
        element('h2', {}, 'Token route ', element('code', {}, ROUTE)),
        button('Ask', askRoute, { 'data-testid': 'ask' })),
      answer),
    element('section', {},
      element('h2', {}, 'Responses to this page\u2019s scripts'),
      list),
    element('section', { class: 'quiet' },
      element('a', { href: OWN_PATHS, target: '_blank', rel: 'noopener' }, 'More: outages, all responses'),
      element('p', { 'data-testid': 'policy' }, policyNote())));
  const host = document.createElement('velt-demo-panel');

  /** @param {string} id @param {string} name */
  function userButton(id, name) {
    const pressed = String(id === (user ?? ''));
    return button(name, () => signIn(id), { 'data-testid': `user-${id || 'none'}`, 'aria-pressed': pressed });
  }

  function policyNote() {
    const text = {
      nonce: 'The panel\u2019s script carries the nonce of this page.',
      widened: 'The demo added the panel\u2019s script to this page\u2019s Content-Security-Policy.',
    }[policy];
    if (text) console.info(`velt-sidecar demo: ${text}`);
    return text ?? '';
  }

  /** @param {boolean} collapsed */
  function setCollapsed(collapsed) {
    panel.toggleAttribute('data-collapsed', collapsed);
    collapse.textContent = collapsed ? '+' : '\u2013';
    collapse.setAttribute('aria-label', collapsed ? 'Expand the demo\u2019s panel' : 'Collapse the demo\u2019s panel');
    collapse.setAttribute('aria-expanded', String(!collapsed));
    try {
      sessionStorage.setItem(COLLAPSED, collapsed ? 'yes' : 'no');
    } catch {
      // Without storage, the panel opens again with the next page.
    }
  }

  function startsCollapsed() {
    try {
      const stored = sessionStorage.getItem(COLLAPSED);
      if (stored) return stored === 'yes';
    } catch {
      // The width decides.
    }
    return innerWidth < 600;
  }

  /** @param {string} id */
  async function signIn(id) {
    try {
      const headers = { 'Content-Type': 'application/json' };
      const body = JSON.stringify({ user: id });
      const response = await ownFetch(`${OWN_PATHS}login`, { method: 'POST', headers, body });
      if (response.ok) return location.reload();
    } catch {
      // The page's policy lets its scripts fetch nothing, so the browser goes there itself.
    }
    const to = location.pathname + location.search + location.hash;
    location.assign(`${OWN_PATHS}login?${new URLSearchParams({ user: id, to })}`);
  }

  async function askRoute() {
    answer.textContent = '\u2026';
    answer.className = 'answer';
    try {
      const response = await ownFetch(ROUTE, { method: 'POST', cache: 'no-store' });
      const body = await response.json().catch(() => null);
      answer.dataset.status = String(response.status);
      answer.classList.add(response.ok ? 'token' : 'status');
      answer.textContent = `${response.status}, ${response.ok ? describeToken(body?.token) : describeError(body)}`;
    } catch (error) {
      answer.dataset.status = '';
      answer.classList.add('status');
      answer.textContent = `could not be asked (${error instanceof Error ? error.message : error}): does the page\u2019s `
        + 'Content-Security-Policy let scripts fetch from \u2018self\u2019 (connect-src)?';
    }
  }

  /** @param {unknown} token */
  function describeToken(token) {
    if (typeof token !== 'string') return 'but no token: is this path the app\u2019s own?';
    const { userId, exp } = claimsOf(token);
    const minutes = Math.floor((exp - Date.now() / 1000) / 60);
    return `token: ${userId}, ${Math.floor(minutes / 60)} h ${minutes % 60} min left`;
  }

  /** @param {{error?: string, code?: string} | null} body */
  function describeError(body) {
    return body?.error ? `${body.code ?? 'error'}: ${body.error}` : 'and no JSON';
  }

  /** @param {string} owner */
  function showOtherUser(owner) {
    problem.textContent = `Another tab signed ${owner} in. Reload this page.`;
  }

  showSeen = () => {
    list.replaceChildren(...seen.map(({ path, status, carried, kind }) => element('li', {},
      element('span', {}, String(status)),
      element('span', { title: path }, path),
      element('span', { class: kind }, carried))));
  };

  function show() {
    const root = host.attachShadow({ mode: 'open' });
    // A constructed sheet, which no Content-Security-Policy forbids.
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    root.append(panel);
    // The app's shortcuts and its clicks outside a dialog are none of the panel's.
    for (const type of ['click', 'pointerdown', 'mousedown', 'keydown', 'keyup', 'keypress']) {
      host.addEventListener(type, (event) => event.stopPropagation());
    }
    setCollapsed(startsCollapsed());
    showSeen();
    attach();
    askRoute();
  }

  /** Stands beside `body`, and comes back if a framework replaces the document. */
  function attach() {
    let returns = 0;
    const observer = new MutationObserver(stand);
    observer.observe(document, { childList: true });
    stand();

    function stand() {
      if (host.isConnected || returns > MOST_RETURNS) return;
      returns += 1;
      // A copy of the document has an empty copy of the panel.
      for (const copy of document.querySelectorAll(host.localName)) copy.remove();
      document.documentElement.append(host);
      observer.observe(document.documentElement, { childList: true });
    }
  }

  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', show, { once: true });
  else show();
})();
