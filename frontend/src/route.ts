import { TokenError } from './error.js';
import { endOfLife, isText, timeOf, type Held } from './life.js';

/** Milliseconds of the longest `retryAfter`: longer timers of a browser overflow, and end at once. */
const LONGEST_WAIT = 864e5;

/** Asks the token route once. Rejects with a {@link TokenError} only. */
export async function askRoute(
  fetcher: typeof fetch,
  url: string,
  body: object,
  signal: AbortSignal,
): Promise<Held> {
  let response: Response | undefined;
  let text: string;
  try {
    response = await fetcher(url, {
      method: 'POST',
      headers: { Accept: 'application/json', 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
      // A redirect leads to a login page, which the page can't read if it is of another origin.
      redirect: 'manual',
      signal,
    });
    text = await response.text();
  } catch (cause) {
    throw new TokenError(response ? 'bad_answer' : 'network', { status: response?.status, retryable: true, cause });
  }
  const { headers, ok, status } = response;
  // A redirect that a browser does not follow has the status 0.
  if (status < 400 && (!ok || /^\s*</.test(text))) throw new TokenError('signed_out', { status });
  let json: { token?: unknown; expiresAt?: unknown; code?: unknown; error?: unknown } | undefined;
  try {
    json = JSON.parse(text);
  } catch {
    // The parser's error quotes the text, in which there may be a token.
  }
  const token = json?.token ?? json;
  if (ok && isText(token)) return [token, endOfLife(token, headers, json?.expiresAt)];
  const sidecarCode = !ok && isText(json?.code) ? json.code : undefined;
  // Seconds or an HTTP date (RFC 9110, 10.2.3).
  const after = headers.get('retry-after')!;
  const wait = +after * 1e3 || Date.parse(after) - timeOf(headers);
  const retryAfter = wait > 0 ? Math.min(wait, LONGEST_WAIT) : undefined;
  throw new TokenError(
    status === 401 ? 'signed_out' : (sidecarCode ?? 'bad_answer'),
    {
      status,
      sidecarCode,
      // A 502 of the sidecar itself stays until the operator changes something.
      retryable: wait > 0 || (status === 502 ? !sidecarCode : /^5|408|429/.test(status as unknown as string)),
      retryAfter,
    },
    sidecarCode && (json!.error as string),
  );
}
