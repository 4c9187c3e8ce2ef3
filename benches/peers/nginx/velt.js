// Mints a token for the user in X-User. nginx caches the answer.
async function mint(request) {
    const data = { apiKey: 'peers', authToken: 'peers', userId: request.headersIn['X-User'] };
    try {
        const answer = await ngx.fetch(request.variables.velt, {
            method: 'POST',
            headers: { 'Content-Type': 'application/json' },
            body: JSON.stringify({ data }),
        });
        const token = (await answer.json()).result.data.token;
        request.headersOut['X-Minted'] = token;
        request.headersOut['Content-Type'] = 'application/json';
        request.return(200, JSON.stringify({ token }));
    } catch (error) {
        request.error(`minting failed: ${error}`);
        request.return(502);
    }
}

export default { mint };
