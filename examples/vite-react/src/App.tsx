import { VeltComments, VeltPresence, VeltProvider } from '@veltdev/react';
import { useEffect, useState } from 'react';
import { TokenError, veltAuthProvider } from 'velt-sidecar';
import { SignOut } from './SignOut.tsx';
import { askForUser, type VeltUser } from './user.ts';

const apiKey = import.meta.env.VITE_VELT_API_KEY;
// Where the SDK is loaded from, for the emulator. Without it, from Velt.
const proxyDomain = import.meta.env.VITE_VELT_SDK_HOST;

export function App() {
  const [user, setUser] = useState<VeltUser | null>();
  const [note, setNote] = useState('');
  const [problem, setProblem] = useState('');
  const onError = (error: unknown) => {
    // Another tab has signed out, or the session has ended.
    if (error instanceof TokenError && error.code === 'signed_out') setUser(null);
    else setProblem(String(error));
  };
  useEffect(() => { askForUser().then(setUser, () => setUser(null)); }, []);

  if (user === undefined) return <p data-testid="who">Asking who is signed in …</p>;
  if (user === null) {
    return <p data-testid="who">Signed out. <a href="/oauth2/sign_in" data-testid="to-sign-in">Sign in</a></p>;
  }
  return (
    <VeltProvider
      apiKey={apiKey}
      config={proxyDomain ? { proxyDomain } : {}}
      // The same object at each rendering, as long as the user is the same.
      authProvider={veltAuthProvider(user, { onError })}
      documentId="first-page"
    >
      <h1>Vite and React</h1>
      <p data-testid="who">Signed in as {user.userId}.</p>
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
