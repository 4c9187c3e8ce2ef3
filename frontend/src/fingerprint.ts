const rotate = (value: number, by: number): number => (value >>> by) | (value << (32 - by));

/**
 * SHA-256 (FIPS 180-4) of an ASCII text, as 64 hex digits. `crypto.subtle` is missing on pages over plain HTTP.
 */
export function fingerprint(text: string): string {
  const words: number[] = [];
  const constants: number[] = [];
  let hash: number[] = [];
  let at = 0;
  // The first 32 bits of the fractions of roots of primes.
  for (let prime = 2, divisor = 2; at < 64; divisor++) {
    if (prime % divisor) continue;
    if (divisor === prime) {
      hash[at % 8] ??= (prime ** 0.5 * 2 ** 32) | 0;
      constants[at++] = (prime ** (1 / 3) * 2 ** 32) | 0;
    }
    prime++;
    divisor = 1;
  }
  // The text, a one bit, zeros, and the length in bits at the end of a block.
  for (at = 0; at <= text.length; at++) {
    words[at >> 2]! |= (text.charCodeAt(at) || 128) << (24 - (at % 4) * 8);
  }
  const end = ((at + 7) >> 6) * 16 + 15;
  words[end] = text.length * 8;
  for (let block = 0; block < end; block += 16) {
    const w = words.slice(block, block + 16);
    const state = hash.slice();
    for (at = 0; at < 64; at++) {
      const [a, b, c, , e, f, g] = state as [number, number, number, number, number, number, number];
      const early = w[at + 1]!;
      const late = w[at + 14]!;
      const first =
        state.pop()! + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + constants[at]! + (w[at]! |= 0);
      state.unshift((first + (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0);
      state[4] = (state[4]! + first) | 0;
      w[at + 16] ??=
        w[at]! + (w[at + 9]! | 0) + (rotate(early, 7) ^ rotate(early, 18) ^ (early >>> 3)) +
        (rotate(late, 17) ^ rotate(late, 19) ^ (late >>> 10));
    }
    hash = state.map((value, i) => (value + hash[i]!) | 0);
  }
  return hash.map((value) => (value >>> 0).toString(16).padStart(8, '0')).join('');
}
