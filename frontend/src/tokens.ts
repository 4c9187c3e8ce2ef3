import { TokenError } from './error.js';
import { fingerprint } from './fingerprint.js';
import { MARGIN, claimsOf, endOfLife, isText } from './life.js';
import { askRoute } from './route.js';
import { openTabs, sleep, type Message, type Tabs } from './tabs.js';
import type { TokenOptions, VeltTokens } from './types.js';

/** Refusals in a row after which `generateToken` rejects with `refused`. */
const MOST_REFUSALS = 3;

/** Refusals count as in a row within this many milliseconds of each other. */
const ROW = 3e5;

/** Shortest first pause between two attempts where the sidecar names none. By chance up to twice it; then doubled. */
const FIRST_PAUSE = 200;

/** Milliseconds between two attempts to refresh in the background. */
const RENEWAL_PAUSE = 6e4;

/** Source of tokens that judges Velt's errors. */
export interface Source extends VeltTokens {
  /**
   * Reports the last token to the sidecar if Velt refused it, and returns nothing. Otherwise returns the cause: the
   * error of the last `generateToken` if that rejected, else `error`.
   */
  _judge(error: unknown): unknown;
}

const ignore = () => {};

/** Creates the source of tokens for one user. Does no work before its first use, so that a server may call it. */
export function createSource(options: TokenOptions = {}): Source {
  const {
    userId,
    url = '/api/velt/token',
    patience = 1e4,
    // Looked up at each call, since the app may replace it later.
    fetch: fetcher = (...args) => fetch(...args),
    tokenHeader = 'X-Velt-Token',
    statusHeader = tokenHeader + '-Status',
  } = options;
  const listeners = new Set<() => void>();
  const life = new AbortController();
  let isOut = false;
  let isDeaf = false;
  let tabs: Tabs | undefined;

  /** Token that is served from memory while it is good. */
  let held: string | undefined;
  let until = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;

  /** Pending request to the route, retries included, for all callers in the page; and the function that settles it. */
  let flight: Promise<string> | undefined;
  let land: (error: unknown, token?: string) => void = ignore;
  let callers = 0;
  /** Why the pending request has no token yet: what its callers are told when the patience ends. */
  let reason: TokenError;

  /** Token or error of the latest `generateToken`. */
  let handed: string | undefined;
  let failure: unknown;

  let refusedToken: string | undefined;
  let isReportDue = false;
  let refusals = 0;
  let refusedAt = 0;

  /** Milliseconds for which the token is still good; negative if there is none. */
  const spare = (): number => until - Date.now() - MARGIN;

  const forget = (): void => {
    held = undefined;
    until = 0;
  };

  /** Keeps a token from a header, the document or another tab, if it is of this user and can be used. */
  const take = (token: unknown, end: number): unknown =>
    isText(token) &&
    token !== refusedToken &&
    end - Date.now() >= MARGIN &&
    (!userId || (claimsOf(token).userId ?? userId) === userId) &&
    keep(token, end);

  const keep = (token: string, end: number): true => {
    held = token;
    until = end;
    isReportDue = false;
    schedule(spare() - MARGIN * Math.random());
    land(0, token);
    return true;
  };

  const tell = (): void => tabs?._tell({ token: held!, until });

  const schedule = (wait: number): void => {
    clearTimeout(timer);
    timer = setTimeout(renew, Math.max(wait, RENEWAL_PAUSE));
  };

  /** Refreshes a token that is about to end. Timers stand still while a laptop sleeps, so the clock decides. */
  const renew = (event?: { persisted?: boolean }): void => {
    // A page from the back/forward cache has missed what other tabs said.
    if (event?.persisted) until = 0;
    if (!held || globalThis.document?.hidden) return;
    const wait = spare() - MARGIN;
    if (wait > 0) schedule(wait);
    else join().catch(({ retryable, retryAfter = 0 }: TokenError) => retryable && schedule(retryAfter));
  };

  let start = (): void => {
    start = ignore;
    const { tabs: share = true, initial = documentToken() } = options;
    if (share && userId) tabs = openTabs(url, userId, options.organizationId, hear);
    for (const type of ['visibilitychange', 'pageshow', 'online']) {
      globalThis.addEventListener?.(type, renew as () => void, life);
    }
    take(initial, endOfLife(initial!));
  };

  const hear = ({ user, token, until: end, ask, out }: Message): void => {
    if (user !== userId || out) leave(true);
    else if (ask && spare() >= 0) tell();
    else if (!isOut && end! > until) take(token, end!);
  };

  /** Forgets the token, and ignores responses from now on: those under way may be the former user's. */
  const leave = (hasUser?: unknown): void => {
    hasUser ||= held;
    forget();
    isDeaf = true;
    if (!isOut && hasUser) listeners.forEach(queueMicrotask);
    isOut = true;
    land(new TokenError('signed_out'));
  };

  /** Asks the route until there is a token, an error that stays, or no patience left. */
  const ask = async (signal: AbortSignal): Promise<void> => {
    const deadline = Date.now() + patience;
    await tabs?._turn(patience / 2, signal).catch(ignore);
    for (let pause = FIRST_PAUSE; !signal.aborted; pause *= 2) {
      try {
        if (refusals >= MOST_REFUSALS && Date.now() - refusedAt < ROW) throw new TokenError('refused');
        const refused = isReportDue ? await fingerprint(refusedToken!).catch(ignore) : undefined;
        const answer = await askRoute(fetcher, url, { userId, refused }, signal);
        // Another pod of the sidecar may still hold the refused token: the next request reports it to that pod.
        if ((isReportDue = answer[0] === refusedToken)) throw new TokenError('refused');
        if (signal.aborted) return;
        isOut = false;
        keep(...answer);
        tell();
      } catch (error) {
        if (signal.aborted) return;
        reason = error as TokenError;
        const { code, retryable, retryAfter = 0 } = reason;
        const wait = Math.max(retryAfter, pause * (1 + Math.random()));
        if (retryable && wait < deadline - Date.now()) {
          await sleep(wait, signal);
        } else {
          land(reason);
          if (/signed|user/.test(code)) leave();
        }
      }
    }
  };

  const fly = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const controller = new AbortController();
      const { signal } = controller;
      land = (error, token) => {
        land = ignore;
        flight = undefined;
        failure = error;
        callers = 0;
        controller.abort();
        token ? resolve(token) : reject(error);
      };
      reason = new TokenError('timeout', { retryable: true });
      sleep(patience, signal).then(() => signal.aborted || land(reason));
      ask(signal);
    });

  const join = (signal?: AbortSignal): Promise<string> => {
    const current = (flight ??= fly());
    callers++;
    const aborted = new Promise<never>((_, reject) =>
      signal?.addEventListener('abort', () => {
        const error = new TokenError('aborted');
        reject(error);
        if (flight === current && !--callers) land(error);
      }),
    );
    return Promise.race([current, aborted]);
  };

  const refused = (token: string): void => {
    if (token === refusedToken) return;
    refusals = Date.now() - refusedAt < ROW ? refusals + 1 : 1;
    refusedAt = Date.now();
    refusedToken = token;
    if (held !== token && spare() >= 0) return;
    forget();
    isReportDue = true;
  };

  const observe = <R extends Response>(response: R): R => {
    try {
      const { headers, type } = response;
      // A response of another origin says nothing about the user here.
      if (isDeaf || type === 'cors') return response;
      start();
      const token = headers.get(tokenHeader);
      if (token) {
        if (token !== held && take(token, endOfLife(token, headers))) tell();
      } else if (spare() < 0 && headers.get(statusHeader) === 'pending') {
        // The mint is under way: ask now, so that the token is here when Velt wants it.
        join().catch(ignore);
      }
    } catch {
      // A replaced `fetch` may answer with an object of another shape, which is the app's to judge.
    }
    return response;
  };

  return {
    async generateToken({ signal } = {}) {
      start();
      handed = failure = undefined;
      if (signal?.aborted) throw new TokenError('aborted');
      return (handed = spare() < 0 ? await join(signal) : held!);
    },
    observe,
    fetch: async (...args) => observe(await fetcher(...args)),
    refused,
    _judge(error) {
      // Velt could not be reached: that says nothing about the token.
      if (error instanceof TypeError) return error;
      if (!handed && failure) return failure;
      if (handed) refused(handed);
      handed = undefined;
      if (!isReportDue) return error;
      // Report at once: no event says when Velt asks again, and the next page would get the same token.
      join().catch(ignore);
    },
    signedOut() {
      if (isOut) return;
      start();
      tabs?._tell({ out: true });
      leave(true);
    },
    onSignedOut(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      start = () => {
        throw new TokenError('aborted');
      };
      isOut = true;
      life.abort();
      land(new TokenError('aborted'));
      clearTimeout(timer);
      tabs?._close();
    },
  };
}

/** Token in this document's `Server-Timing`, once: a later user of the same document has another. */
let documentToken = (): string | undefined => {
  documentToken = ignore as () => undefined;
  const [document] = performance.getEntriesByType('navigation') as PerformanceNavigationTiming[];
  return document?.serverTiming?.find((metric) => metric.name === 'velt-token')?.description;
};
