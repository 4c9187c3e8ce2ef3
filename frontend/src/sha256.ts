/** `value`, rotated to the right. Shifts count modulo 32. */
const rotate = (value: number, by: number): number => (value >>> by) | (value << -by);

/**
 * SHA-256 (FIPS 180-4) of an ASCII text, as 64 hex digits. A file of its own, which pages over plain HTTP load when
 * Velt has refused a token: `crypto.subtle` is missing there.
 */
export function sha256(text: string): string {
  const words: number[] = [];
  const constants: number[] = [];
  let hash: number[] = [];
  // The first 32 bits of the fractions of square roots and cube roots of primes.
  for (let prime = 2; !constants[63]; prime++) {
    let divisor = 2;
    while (prime % divisor) divisor++;
    if (divisor === prime) {
      hash.push((prime ** 0.5 * 2 ** 32) | 0);
      constants.push((prime ** (1 / 3) * 2 ** 32) | 0);
    }
  }
  // The text, a one bit, zeros, and the length in bits at the end of a block.
  for (let at = 0; at <= text.length; at++) words[at >> 2]! |= (text.charCodeAt(at) || 128) << (24 - 8 * at);
  words[((text.length + 8) >> 2) | 15] = text.length * 8;
  for (let block = 0; block < words.length; block += 16) {
    const w = words.slice(block, block + 16);
    const state = hash.slice(0, 8);
    for (let i = 0; i < 64; i++) {
      const [a, b, c, , e, f, g, h] = state as [number, number, number, number, number, number, number, number];
      const early = w[i + 1]!;
      const late = w[i + 14]!;
      const first =
        h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (g ^ (e & (f ^ g))) + constants[i]! + (w[i]! |= 0);
      state.unshift((first + (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (c & (a ^ b)))) | 0);
      state[4] = (state[4]! + first) | 0;
      w[i + 16] =
        w[i]! + (w[i + 9]! | 0) + (rotate(early, 7) ^ rotate(early, 18) ^ (early >>> 3)) +
        (rotate(late, 17) ^ rotate(late, 19) ^ (late >>> 10));
    }
    hash = hash.map((value, i) => (value + state[i]!) | 0);
  }
  return hash
    .slice(0, 8)
    .map((value) => (value >>> 0).toString(16).padStart(8, '0'))
    .join('');
}
