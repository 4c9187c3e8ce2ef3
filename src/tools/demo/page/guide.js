// @ts-check
// The line that says what to try next, and moves on when the visitor has done so.
import { byTestId } from './token-panel.js';

/** @typedef {{kind: 'user', id: string | null} | {kind: 'velt', isDown: boolean}} Deed */

/** @type {{say: [string, string], isDone: (deed: Deed) => boolean}[]} */
const STEPS = [
  {
    say: ['Start here:', 'sign in as Grace. Velt mints one token for her, and both ways bring the same one.'],
    isDone: (deed) => deed.kind === 'user' && deed.id === 'grace',
  },
  {
    say: ['Next:', 'press \u201cTake Velt down\u201d below, then sign in as Linus. Grace would keep her token; the sidecar has not seen Linus yet.'],
    isDone: (deed) => deed.kind === 'user' && deed.id === 'linus',
  },
  {
    say: ['Then:', 'press \u201cBring Velt back\u201d and wait: both cards get their token without a click.'],
    isDone: (deed) => deed.kind === 'velt' && !deed.isDown,
  },
  {
    say: ['That is all of it.', 'The experiments below have more. Then put it in front of your own app: velt-sidecar demo --app http://127.0.0.1:3000'],
    isDone: () => false,
  },
];

export function createGuide() {
  let step = 0;
  let isDown = false;
  show();
  return { note };

  /** @param {Deed} deed */
  function note(deed) {
    if (deed.kind === 'velt') isDown = deed.isDown;
    // Linus learns of an outage only while there is one.
    const isEarly = step === 1 && !isDown;
    if (!STEPS[step].isDone(deed) || isEarly) return;
    step += 1;
    show();
  }

  function show() {
    const element = byTestId('guide');
    const [beginning, rest] = STEPS[step].say;
    const strong = document.createElement('strong');
    strong.textContent = beginning;
    element.dataset.step = String(step + 1);
    element.replaceChildren(strong, ` ${rest}`);
  }
}
