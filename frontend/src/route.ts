import { TokenError } from './error.js';
import { endOfLife, isToken, timeOf, type Held } from './life.js';

/** Characters of the longest answer that is read. A token with its frame has about a thousand. */
const LONGEST_ANSWER = 65536;

/** Milliseconds of the longest `retryAfter`: longer timers of a browser overflow, and end at once. */
const LONGEST_WAIT = 864e5;

/** Asks the token route once. Rejects with a {@link TokenError} only. */
export async function askRoute(
  fetcher: typeof fetch,
  url: string,
  body: object,
  signal: AbortSignal,
): Promise<Held> {
  const began = Date.now();
  let response: Response | undefined;
  try {
    response = await fetcher(url, {
      method: 'POST',
      headers: { Accept: 'application/json', 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
      cache: 'no-store',
      credentials: 'include',
      // A redirect leads to a login page, which the page can't read if it is of another origin.
      redirect: 'manual',
      signal,
    });
    return await read(response, began);
  } catch (error) {
    if (error instanceof TokenError) throw error;
    const { status } = response ?? {};
    throw new TokenError(response ? 'bad_answer' : 'network', { status, retryable: true, cause: error });
  }
}

async function read(response: Response, began: number): Promise<Held> {
  const { body, headers, ok, status, type } = response;
  const isRedirect = type === 'opaqueredirect' || (status >= 300 && status < 400);
  const text = isRedirect ? '<' : await readText(body!);
  if ((ok || isRedirect) && /^\s*</.test(text)) throw new TokenError('signed_out', { status });
  let json: { token?: unknown; expiresAt?: unknown; code?: unknown; error?: unknown } | undefined;
  try {
    json = JSON.parse(text);
  } catch {
    // The parser's error quotes the text, in which there may be a token.
  }
  const token = json?.token ?? json;
  if (ok && isToken(token)) return { token, until: endOfLife(token, headers, json?.expiresAt, began) };
  const sidecarCode = isToken(json?.code) ? json.code : undefined;
  const code = status === 401 ? 'signed_out' : ((!ok && sidecarCode) || 'bad_answer');
  // Seconds or an HTTP date (RFC 9110, 10.2.3).
  const after = headers.get('retry-after')!;
  const wait = +after * 1e3 || Date.parse(after) - timeOf(headers);
  const retryAfter = wait > 0 ? Math.min(wait, LONGEST_WAIT) : undefined;
  // A 502 of the sidecar itself stays until the operator changes something.
  const isPassing = /408|42[59]|50[34]/.test(`${status}`) || (status === 502 && !sidecarCode);
  const retryable = !ok && (isPassing || !!retryAfter);
  throw new TokenError(code, { status, sidecarCode, retryable, retryAfter }, sidecarCode && (json!.error as string));
}

/** Reads an answer up to its bound. */
async function readText(body: ReadableStream<Uint8Array>): Promise<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  for (let text = ''; ; ) {
    const { done, value } = await reader.read();
    if (done) return text;
    text += decoder.decode(value, { stream: true });
    if (text.length > LONGEST_ANSWER) throw new TokenError('bad_answer');
  }
}
