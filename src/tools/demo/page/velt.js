// How a page behind velt-sidecar signs its user in to Velt. Copy the way you use.
// `user` is Velt's user object: { userId, organizationId, name, email }. userId must be the user that
// the sidecar sees (the value of the login proxy's header, byte for byte), and organizationId the
// sidecar's organization: Velt compares both with the token. Have your own /api/me say them.

/** @typedef {import('@veltdev/types').Velt} Velt */
/** @typedef {import('@veltdev/types').User} User */

// ---- Way 1, the route: Velt asks for a token whenever it needs one, and renews it by itself.

/** @param {Velt} client @param {User} user @param {(error: unknown) => void} onError */
export function signInByRoute(client, user, onError) {
  const authProvider = {
    user,
    retryConfig: { retryCount: 3, retryDelay: 1000 },
    generateToken: fetchToken,
    onError,
  };
  return client.setVeltAuthProvider(authProvider);
}

// No user id in the request: the sidecar takes it from the login proxy, never from the browser.
/** @returns {Promise<string>} */
export async function fetchToken() {
  const response = await fetch('/api/velt/token', { method: 'POST', cache: 'no-store' });
  if (!response.ok) throw new Error(await errorText(response));
  const { token } = await response.json();
  return token;
}

/** @param {Response} response */
async function errorText(response) {
  // Some other proxy on the way may have answered, with a page instead of JSON.
  const body = await response.json().catch(() => null);
  return body?.error ?? `the token route answered HTTP ${response.status}`;
}

// ---- Way 2, the header: the token comes along with an answer of your own API.

const ATTEMPTS = 5;

/** @param {Velt} client @param {User} user @param {(error: unknown) => void} onError */
export async function signInByHeader(client, user, onError) {
  const identify = async () => {
    const authToken = await fetchTokenFromHeader();
    return client.identify(user, { authToken, throwError: true });
  };
  // Velt does not renew this one by itself: it says that the token expired, and waits.
  client.on('error').subscribe((/** @type {{ code?: string }} */ event) => {
    if (event.code === 'token_expired') identify().catch(onError);
  });
  return identify().catch(onError);
}

async function fetchTokenFromHeader() {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch('/api/me', { cache: 'no-store' });
    // Velt has not answered the sidecar yet. A later answer has the token.
    const isPending = response.headers.get('X-Velt-Token-Status') === 'pending';
    if (!isPending || attempt === ATTEMPTS) return tokenFromHeader(response);
    await new Promise((resolve) => { setTimeout(resolve, 500 * attempt); });
  }
}

/** @param {Response} response */
export function tokenFromHeader(response) {
  const token = response.headers.get('X-Velt-Token');
  if (token) return token;
  const status = response.headers.get('X-Velt-Token-Status') ?? 'no sidecar in front?';
  // Stop here: identify() without a token would go through while "Require JWT" is off.
  throw new Error(`no Velt token in the answer (${status})`, { cause: status });
}
