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
  /** Tells the tabs of the same user. */
  _tell(message: Omit<Message, 'user'>): void;
  /** Tells the tabs of other users that the sidecar has answered for this user. */
  _arrive(): void;
  /** Waits for this tab's turn to ask the route, and asks the other tabs. The turn ends with `signal`. */
  _turn(patience: number, signal: AbortSignal): Promise<void>;
  _close(): void;
}

/** Resolves after `wait` milliseconds, or with `signal`. */
export const sleep = (wait: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(end, signal.aborted ? 0 : wait);
    signal.addEventListener('abort', end);
  });

/** Joins the tabs of a user. */
export function openTabs(
  url: string,
  user: string,
  organization: string | undefined,
  hear: (message: Message) => void,
): Tabs {
  const open = (...scope: unknown[]): BroadcastChannel => {
    const channel = new BroadcastChannel(JSON.stringify(['velt-sidecar', url, ...scope]));
    channel.onmessage = ({ data }) => data?.user && hear(data);
    return channel;
  };
  const all = open();
  const own = open(user, organization);
  return {
    _tell: (message) => own.postMessage({ user, ...message }),
    _arrive: () => all.postMessage({ user }),
    async _turn(patience, signal) {
      await lock(own.name, patience, signal);
      own.postMessage({ user, ask: true });
      await sleep(ANSWER, signal);
    },
    _close() {
      all.close();
      own.close();
    },
  };
}

/**
 * Waits for the lock of a name, which is held until `signal`. Goes on without the lock after `patience`
 * milliseconds, since the tab that has it may hang, and where there are no locks: on pages over plain HTTP.
 */
const lock = (name: string, patience: number, signal: AbortSignal): Promise<void> =>
  new Promise((granted) => {
    const waiting = new AbortController();
    sleep(patience, signal).then(() => waiting.abort());
    const hold = () => {
      granted();
      return sleep(LONG, signal);
    };
    const locks = globalThis.navigator?.locks;
    locks ? locks.request(name, { signal: waiting.signal }, hold).catch(() => granted()) : granted();
  });

/** Milliseconds of the longest timer. */
const LONG = 2 ** 31 - 1;
