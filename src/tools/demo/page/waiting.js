// @ts-check
// Opens the reader's app as soon as it accepts connections.
const PAUSE_MS = 1000;

async function look() {
  try {
    const response = await fetch('/__velt-demo/app', { cache: 'no-store' });
    if ((await response.json()).up) return location.reload();
    say('Trying every second.');
  } catch {
    say('The demo itself does not answer: is it still running?');
  }
  setTimeout(look, PAUSE_MS);
}

/** @param {string} text */
function say(text) {
  const line = document.querySelector('[data-testid=waiting]');
  if (line && line.textContent !== text) line.textContent = text;
}

look();
