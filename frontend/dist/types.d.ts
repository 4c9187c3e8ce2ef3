/** User object of Velt, as far as this package reads it. Further fields travel on to Velt as they are. */
export interface User {
    /** Must be the user that the sidecar sees, byte for byte: Velt compares it with the token. */
    userId: string;
    /** Must be the organization of the token: `velt.organization`, or what the login says of this user. */
    organizationId?: string;
}
/** Settings of {@link VeltTokens}. */
export interface TokenOptions {
    /** Velt user id that the page shows. Sent along, so that the sidecar refuses if another user is signed in. */
    userId?: string;
    /** Organization that the page shows. Tabs share a token only if it is the same in both. */
    organizationId?: string;
    /** Address of the token route; `/api/velt/token` by default. */
    url?: string;
    /** Milliseconds that one token may take, with all attempts; 10,000 by default. */
    patience?: number;
    /** Response header that carries a token; `X-Velt-Token` by default. */
    tokenHeader?: string;
    /** Response header that says why there is no token; `X-Velt-Token-Status` by default. */
    statusHeader?: string;
    /** Token that the server put into the page. By default the token in the document's `Server-Timing`. */
    initial?: string | null;
    /** Whether tabs of this user share tokens; true by default. Without `userId` they never do. */
    tabs?: boolean;
    /** Replacement of `fetch`. */
    fetch?: typeof fetch;
}
/** Source of tokens for one user in one page. */
export interface VeltTokens {
    /** Resolves to a token that is good for five minutes or more. Needs no `this`: pass it to Velt as it is. */
    generateToken(this: void, options?: {
        signal?: AbortSignal;
    }): Promise<string>;
    /** Takes the token from a response that the app has fetched anyway, and returns the response. */
    observe<R extends Response>(this: void, response: R): R;
    /** `fetch` that observes each response. */
    fetch: typeof fetch;
    /** Notes that Velt refused this token: the next `generateToken` reports its fingerprint to the sidecar. */
    refused(this: void, token: string): void;
    /** Forgets the token, here and in the other tabs of this user. */
    signedOut(this: void): void;
    /** Calls `listener` when the user is signed out, here or in another tab. Returns a function that ends it. */
    onSignedOut(this: void, listener: () => void): () => void;
    /** Ends timers, listeners and the channel to other tabs. */
    close(this: void): void;
}
/** Settings of {@link veltAuthProvider} and {@link signIn}. */
export interface ProviderOptions extends Omit<TokenOptions, 'userId' | 'organizationId'> {
    /** Called with errors of Velt and of the tokens, also those that occur long after the sign-in. */
    onError?: (error: unknown) => void;
}
/** Value for `authProvider` of Velt. */
export interface AuthProvider<U extends User = User> {
    user: U;
    generateToken: () => Promise<string>;
    retryConfig: {
        retryCount: number;
        retryDelay: number;
    };
    onError: (error: unknown) => void;
}
/** Part of Velt's client that {@link signIn} calls. A client without `setVeltAuthProvider` is identified. */
export interface VeltClient {
    setVeltAuthProvider?(provider: any): Promise<unknown>;
    identify(user: any, options?: any): Promise<unknown>;
    signOutUser(): unknown;
    on(event: any): {
        subscribe(listener: (event: any) => void): {
            unsubscribe?: () => void;
        } | void;
    };
}
/** User who is signed in to Velt. */
export interface SignedIn<U extends User = User> {
    user: U;
    tokens: VeltTokens;
    /** Forgets the token in all tabs and signs out of Velt. Call it before your own logout. */
    signOut(this: void): Promise<void>;
}
