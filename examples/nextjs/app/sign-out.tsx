'use client';
import { useVeltClient } from '@veltdev/react';
import type { FormEvent } from 'react';
import { signOut } from 'velt-sidecar';

export function SignOut() {
  const { client } = useVeltClient();

  // First Velt, then the session: a token that comes between the two would be the old user's.
  async function leave(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = event.currentTarget;
    try {
      if (client) await signOut(client);
    } finally {
      form.submit();
    }
  }

  return (
    <form method="post" action="/logout" onSubmit={leave}>
      <button data-testid="sign-out">Sign out</button>
    </form>
  );
}
