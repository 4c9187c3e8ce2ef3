'use client';
import { VeltComments, VeltPresence, VeltProvider } from '@veltdev/react';
import { useState } from 'react';
import { TokenError, veltAuthProvider } from 'velt-sidecar';
import { SignOut } from './sign-out';

interface Properties {
  user: { userId: string; organizationId: string; name: string };
  /** The token that the server has put into the page. */
  token: string | null;
  apiKey: string;
  /** Where the SDK is loaded from, for the emulator; empty for Velt. */
  sdkHost: string;
}

export function Collaboration({ user, token, apiKey, sdkHost }: Properties) {
  const [note, setNote] = useState('');
  const [problem, setProblem] = useState('');
  const onError = (error: unknown) => {
    const isSignedOut = error instanceof TokenError && error.code === 'signed_out';
    setProblem(isSignedOut ? 'Signed out in another tab. Load the page again.' : String(error));
  };
  return (
    <VeltProvider
      apiKey={apiKey}
      config={sdkHost ? { proxyDomain: sdkHost } : {}}
      // The same object at each rendering, as long as the user is the same.
      authProvider={veltAuthProvider(user, { initial: token, onError })}
      documentId="first-page"
    >
      <h1>Next.js</h1>
      <p data-testid="who">Signed in as {user.userId}.</p>
      <p data-testid="first-render">{token ? 'The page came with a token.' : 'The page came without a token.'}</p>
      <p><label>A note, to render again with each letter:{' '}
        <input value={note} onChange={(event) => setNote(event.target.value)} data-testid="note" />
      </label></p>
      {problem && <p role="alert" data-testid="problem">{problem}</p>}
      <SignOut />
      <VeltPresence />
      <VeltComments />
    </VeltProvider>
  );
}
