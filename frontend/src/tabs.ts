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
  /** Waits for this tab's turn to ask the route, and asks the other tabs. The turn ends with `signal`. */
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
      // Held until `signal`, which is aborted in twice this patience at the latest. This tab goes on without the
      // lock after a while, since the tab that has it may hang, and where there are no locks: on pages over plain
      // HTTP.
      await new Promise<unknown>(
        (granted) =>
          navigator.locks
            ?.request(own.name, { signal: AbortSignal.timeout(patience) }, () => {
              granted(0);
              return signal.aborted || sleep(2 * patience, signal);
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
