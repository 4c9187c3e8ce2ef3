/** SHA-256 of an ASCII text, as 64 hex digits. */
export async function fingerprint(text: string): Promise<string> {
  // Pages over plain HTTP have no `crypto.subtle`.
  if (!crypto.subtle) return (await import('./sha256.js')).sha256(text);
  const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
