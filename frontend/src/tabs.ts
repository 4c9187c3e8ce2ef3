/** Message between tabs. `user` is in each, so that no tab takes the token of another user. */
export interface Message {
  user: string;
  /** Token of this user, with `until`. */
  token?: string;
  until?: number;
  /** Whether the sender wants the token that another tab holds. */
  ask?: boolean;
  /** Whether the user has signed out. */
  out?: boolean;
}

/** Milliseconds that a tab waits for the token of another tab. A message takes few of them. */
const ANSWER = 30;

/** Other tabs of this origin. */
export interface Tabs {
  /** Tells the tabs of the same user, and those of other users that this user is signed in now. */
  _tell(message: Omit<Message, 'user'>): void;
  /** Waits for this tab's turn to ask the route, and asks the other tabs. The turn ends with `signal`, or with the page. */
  _turn(patience: number, signal: AbortSignal): Promise<void>;
  _close(): void;
}

/** Resolves after `wait` milliseconds, or with `signal`. */
export const sleep = (wait: number, signal?: AbortSignal): Promise<unknown> =>
  new Promise((resolve) => {
    setTimeout(resolve, wait);
    signal?.addEventListener('abort', resolve);
  });

/** Joins the tabs of a user. */
export function openTabs(
  url: string,
  user: string,
  organization: string | undefined,
  hear: (message: Message) => void,
): Tabs {
  const open = (scope: unknown[]): BroadcastChannel => {
    const channel = new BroadcastChannel('velt' + JSON.stringify(scope));
    channel.onmessage = ({ data }) => data?.user && hear(data);
    return channel;
  };
  const all = open([url]);
  const own = open([url, user, organization]);
  return {
    _tell(message) {
      own.postMessage({ user, ...message });
      all.postMessage({ user });
    },
    async _turn(patience, signal) {
      // The turn, and the wait for it, end with the request, after a while, since a tab may hang, and with the page: a
      // browser may keep a page that is left, and its lock. Pages over plain HTTP have no locks.
      const turn = new AbortController();
      const end = () => turn.abort();
      sleep(patience, signal).then(end);
      globalThis.addEventListener?.('pagehide', end, turn);
      await new Promise<unknown>(
        (granted) =>
          navigator.locks
            ?.request(own.name, turn, () => {
              granted(0);
              return sleep(patience, turn.signal);
            })
            .catch(granted) ?? granted(0),
      );
      own.postMessage({ user, ask: true });
      await sleep(ANSWER, signal);
    },
    _close() {
      all.close();
      own.close();
    },
  };
}
