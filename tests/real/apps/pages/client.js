// Velt's client as far as a page sees it: the calls that sign users in and out, by the documentation of
// `setVeltAuthProvider`. It counts the calls, and refuses the tokens that the test tells it to refuse.
export class Client {
    calls = [];
    refused = new Set();
    token = null;
    lastError = null;
    #provider = null;

    async setVeltAuthProvider(provider) {
        this.calls.push('setVeltAuthProvider');
        this.#provider = provider;
        return this.renew();
    }

    // Asks for a token, as Velt does at the first sign-in and when the token has expired.
    async renew() {
        const provider = this.#provider;
        const { retryCount = 0, retryDelay = 0 } = provider.retryConfig ?? {};
        for (let attempt = 0; ; attempt += 1) {
            try {
                return await this.#signIn(provider);
            } catch (error) {
                if (attempt >= retryCount) {
                    this.lastError = error;
                    provider.onError?.(error);
                    return null;
                }
                await new Promise((resolve) => setTimeout(resolve, retryDelay));
            }
        }
    }

    async #signIn(provider) {
        const token = await provider.generateToken();
        if (this.refused.has(token)) throw new Error('Invalid user token');
        this.token = token;
        return provider.user;
    }

    async identify() {
        this.calls.push('identify');
    }

    async signOutUser() {
        this.calls.push('signOutUser');
        this.token = null;
    }

    on() {
        return { subscribe: () => ({ unsubscribe() {} }) };
    }
}
