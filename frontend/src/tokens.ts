import { TokenError } from './error.js';
import { fingerprint } from './fingerprint.js';
import { MARGIN, claimsOf, endOfLife, isToken, type Held } from './life.js';
import { askRoute } from './route.js';
import { openTabs, sleep, type Message, type Tabs } from './tabs.js';
import type { TokenOptions, VeltTokens } from './types.js';

/** Refusals by Velt in a row before the user of this package is told. */
const MOST_REFUSALS = 3;

/** Refusals count as in a row within this many milliseconds of each other. */
const ROW = 3e5;

/** First pause between two attempts where the sidecar names none; each further one is twice as long. */
const FIRST_PAUSE = 250;

/** Milliseconds between two attempts to renew in the background. */
const RENEWAL_PAUSE = 6e4;

/** Source of tokens that judges Velt's errors. */
export interface Source extends VeltTokens {
  /** Reports the token that Velt was given last, unless `error` says nothing about it. Returns whether it is refused. */
  _judge(error: unknown): boolean;
}

const EVENTS = ['visibilitychange', 'pageshow', 'online'];

const ignore = () => {};

/** Creates the source of tokens for one user. Does no work before its first use, so that a server may call it. */
export function createSource(options: TokenOptions = {}): Source {
  const { userId, organizationId, url = '/api/velt/token', patience = 1e4, fetch: given } = options;
  const { tokenHeader = 'X-Velt-Token', statusHeader = 'X-Velt-Token-Status' } = options;
  const fetcher: typeof fetch = (...args) => (given ?? fetch)(...args);
  const listeners = new Set<() => void>();
  const life = new AbortController();
  let isOut = false;
  let isDeaf = false;
  let held: Held | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let tabs: Tabs | undefined;

  /** Request to the route with its repetitions, for all callers in the page, and its end. */
  let flight: Promise<string> | undefined;
  let land: (error: unknown, token?: string) => void = ignore;
  let callers = 0;

  /** Token that Velt was given last, unless the answer was an error or Velt has refused it. */
  let handed: string | undefined;
  let refusedToken: string | undefined;
  let isReportDue = false;
  let refusals = 0;
  let refusedAt = 0;

  const isInRow = (): boolean => Date.now() - refusedAt < ROW;
  const left = (): number => (held ? held.until - Date.now() : 0);

  /** Keeps a token that the route has not answered to this page, if it is of this user and can be used. */
  const take = (token: unknown, until: number): boolean => {
    if (!isToken(token) || token === refusedToken || !(until - Date.now() >= MARGIN)) return false;
    if (userId && (claimsOf(token).userId ?? userId) !== userId) return false;
    keep({ token, until });
    return true;
  };

  const keep = (next: Held): void => {
    held = next;
    isReportDue = false;
    schedule(left() - MARGIN * (1 + Math.random()));
    land(undefined, next.token);
  };

  const schedule = (wait: number): void => {
    clearTimeout(timer);
    timer = setTimeout(renew, Math.max(wait, RENEWAL_PAUSE));
  };

  /** Renews a token that is about to end. Timers stand still while a laptop sleeps, so the clock decides. */
  const renew = (event?: { persisted?: boolean }): void => {
    // A page from the back/forward cache has missed what other tabs said.
    if (event?.persisted && held) held.until = 0;
    if (!held || globalThis.document?.hidden) return;
    const wait = left() - 2 * MARGIN;
    if (wait > 0) return schedule(wait);
    join().catch(({ retryable, retryAfter = 0 }: TokenError) => retryable && schedule(retryAfter));
  };

  let start = (): void => {
    start = ignore;
    const { tabs: share = true, initial = documentToken() } = options;
    if (share && userId && globalThis.BroadcastChannel) tabs = openTabs(url, userId, organizationId, hear);
    for (const type of EVENTS) globalThis.addEventListener?.(type, renew as () => void, life);
    take(initial, endOfLife(initial!));
  };

  const hear = ({ user, token, until, ask, out }: Message): void => {
    if (user !== userId || out) leave(true);
    else if (ask && left() >= MARGIN) tabs!._tell(held!);
    else if (!isOut && until! > (held?.until ?? 0)) take(token, until!);
  };

  /** Forgets the token. Responses that are still on their way may be those of the former user. */
  const leave = (tell: unknown): void => {
    tell ||= held;
    held = undefined;
    isDeaf = true;
    if (isOut) return;
    isOut = true;
    land(new TokenError('signed_out'));
    if (tell) listeners.forEach(queueMicrotask);
  };

  /** Asks the route until there is a token, an error that stays, or no patience left. */
  const ask = async (signal: AbortSignal): Promise<void> => {
    const deadline = Date.now() + patience;
    await tabs?._turn(patience / 2, signal);
    for (let pause = FIRST_PAUSE; !signal.aborted; pause *= 2) {
      try {
        if (isReportDue && isInRow() && refusals >= MOST_REFUSALS) throw new TokenError('refused');
        const refused = isReportDue ? fingerprint(refusedToken!) : undefined;
        const answer = await askRoute(fetcher, url, { userId, refused }, signal);
        if (answer.token === refusedToken && isInRow()) throw new TokenError('refused');
        if (signal.aborted) return;
        isOut = false;
        refusedToken = undefined;
        tabs?._tell(answer);
        tabs?._arrive();
        keep(answer);
      } catch (error) {
        if (signal.aborted) return;
        const { code, retryable, retryAfter = 0 } = error as TokenError;
        const wait = Math.max(retryAfter, pause * (0.5 + Math.random()));
        if (retryable && globalThis.navigator?.onLine !== false && Date.now() + wait < deadline) {
          await sleep(wait, signal);
        } else {
          land(error);
          if (/^signed_out|^user_m/.test(code)) leave(false);
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
        callers = 0;
        controller.abort();
        token ? resolve(token) : reject(error);
      };
      sleep(patience, signal).then(() => signal.aborted || land(new TokenError('timeout', { retryable: true })));
      ask(signal).catch((error) => signal.aborted || land(error));
    });

  const join = (signal?: AbortSignal): Promise<string> => {
    const current = (flight ??= fly());
    callers++;
    const aborted = new Promise<never>((_, reject) =>
      signal?.addEventListener('abort', () => {
        reject(new TokenError('aborted'));
        if (flight === current && !--callers) land(new TokenError('aborted'));
      }),
    );
    return Promise.race([current, aborted]);
  };

  const refused = (token: string): void => {
    if (token === refusedToken) return;
    refusals = isInRow() ? refusals + 1 : 1;
    refusedAt = Date.now();
    refusedToken = token;
    if (held?.token !== token && left() >= MARGIN) return;
    held = undefined;
    isReportDue = true;
  };

  const observe = <R extends Response>(response: R): R => {
    try {
      if (!isDeaf && isSameOrigin(response, url)) look(response.headers);
    } catch {
      // A replaced `fetch` may answer with an object of another shape, which is the app's to judge.
    }
    return response;
  };

  const look = (headers: Headers): void => {
    start();
    const token = headers.get(tokenHeader);
    if (token) {
      if (token !== held?.token && take(token, endOfLife(token, headers))) tabs?._tell(held!);
    } else if (left() < MARGIN && headers.get(statusHeader) === 'pending') {
      // The mint is under way: ask now, so that the token is here when Velt wants it.
      join().catch(ignore);
    }
  };

  return {
    async generateToken(options) {
      const signal = options?.signal;
      start();
      handed = undefined;
      if (life.signal.aborted || signal?.aborted) throw new TokenError('aborted');
      return (handed = left() < MARGIN ? await join(signal) : held!.token);
    },
    observe,
    fetch: async (...args) => observe(await fetcher(...args)),
    refused,
    _judge(error) {
      // Velt could not be reached: that says nothing about the token.
      if (error instanceof TypeError) return false;
      if (handed) refused(handed);
      handed = undefined;
      // Report at once: no event says when Velt asks again, and the next page would get the same token.
      if (isReportDue) join().catch(ignore);
      return isReportDue;
    },
    signedOut() {
      start();
      if (!isOut) tabs?._tell({ out: true });
      leave(true);
    },
    onSignedOut(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      start = ignore;
      isDeaf = true;
      life.abort();
      land(new TokenError('aborted'));
      clearTimeout(timer);
      tabs?._close();
    },
  };
}

/** Whether a response is of the token route's origin: that of another origin says nothing about the user. */
function isSameOrigin({ url }: Response, route: string): boolean {
  // A response that a script made has no address.
  return !url || new URL(url).origin === new URL(route, globalThis.location?.href ?? url).origin;
}

let isDocumentTokenTaken = false;

/** Token in this document's `Server-Timing`, once: a later user of the same document has another. */
function documentToken(): string | undefined {
  if (isDocumentTokenTaken) return;
  isDocumentTokenTaken = true;
  const [document] = performance.getEntriesByType('navigation') as PerformanceNavigationTiming[];
  return document?.serverTiming?.find(({ name }) => name === 'velt-token')?.description;
}
