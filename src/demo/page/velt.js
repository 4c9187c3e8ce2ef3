// How a page behind velt-sidecar signs its user in to Velt. Copy the way you use.
// `user` is Velt's user object: { userId, organizationId, name, email }.

// ---- Way 1, the route: Velt asks for a token whenever it needs one, and renews it by itself.

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
export async function fetchToken() {
  const response = await fetch('/api/velt/token', { method: 'POST', cache: 'no-store' });
  if (!response.ok) throw new Error(await errorText(response));
  const { token } = await response.json();
  return token;
}

async function errorText(response) {
  // Some other proxy on the way may have answered, with a page instead of JSON.
  const body = await response.json().catch(() => null);
  return body?.error ?? `the token route answered HTTP ${response.status}`;
}

// ---- Way 2, the header: the token comes along with an answer of your own API.

export async function signInByHeader(client, user, onError) {
  const identify = async () => {
    const response = await fetch('/api/me', { cache: 'no-store' });
    return client.identify(user, { authToken: tokenFromHeader(response), throwError: true });
  };
  // Velt does not renew this one by itself: it says that the token expired, and waits.
  client.on('error').subscribe((event) => {
    if (event.code === 'token_expired') identify().catch(onError);
  });
  return identify().catch(onError);
}

export function tokenFromHeader(response) {
  const token = response.headers.get('X-Velt-Token');
  if (token) return token;
  const status = response.headers.get('X-Velt-Token-Status') ?? 'no sidecar in front?';
  // Stop here: identify() without a token would go through while "Require JWT" is off.
  throw new Error(`no Velt token in the answer (${status})`, { cause: status });
}
