// A proxy as a careful user would write it in Express: a Map of promises, so that a user's first requests
// share one mint, and http-proxy-middleware with kept-alive connections to the app.
import http from 'node:http';
import express from 'express';
import { createProxyMiddleware } from 'http-proxy-middleware';

const [host, port] = process.env.LISTEN.split(':');
const LIFE = 36 * 3600 * 1000;
const MAX_USERS = 1_000_000;
const cache = new Map();

async function mint(userId) {
    const answer = await fetch(process.env.VELT, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ data: { apiKey: 'peers', authToken: 'peers', userId } }),
        signal: AbortSignal.timeout(3000),
    });
    const token = (await answer.json())?.result?.data?.token;
    if (!token) throw new Error(`no token: ${answer.status}`);
    return token;
}

function tokenOf(user) {
    const found = cache.get(user);
    if (found && found.until > Date.now()) return found.token ?? found.promise;
    const entry = { until: Date.now() + LIFE };
    entry.promise = mint(user).then(
        (token) => {
            entry.promise = undefined;
            return (entry.token = token);
        },
        (error) => {
            cache.delete(user);
            throw error;
        },
    );
    cache.set(user, entry);
    if (cache.size > MAX_USERS) cache.delete(cache.keys().next().value);
    return entry.promise;
}

function userOf(request) {
    // The address of the login proxy, which may name the user.
    return request.socket.remoteAddress.startsWith('127.') && request.headers['x-forwarded-user'];
}

const proxy = createProxyMiddleware({
    target: process.env.APP,
    agent: new http.Agent({ keepAlive: true, maxFreeSockets: 256 }),
    xfwd: true,
    on: {
        proxyRes(answer, request) {
            delete answer.headers['x-velt-token'];
            if (!request.token) return;
            answer.headers['x-velt-token'] = request.token;
            answer.headers['cache-control'] = 'private, no-store';
        },
    },
});

const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.get('/api/velt/token', async (request, response) => {
    const user = userOf(request);
    if (!user) return response.sendStatus(401);
    try {
        response.set('Cache-Control', 'private, no-store').json({ token: await tokenOf(user) });
    } catch {
        response.sendStatus(502);
    }
});
app.use(async (request, response, next) => {
    const user = userOf(request);
    try {
        if (user) request.token = await tokenOf(user);
    } catch {
        // Without a token, the app still answers.
    }
    next();
});
app.use(proxy);

const server = http.createServer({ maxHeaderSize: 65536, keepAliveTimeout: 3_600_000 }, app);
server.on('upgrade', proxy.upgrade);
server.listen({ host, port: Number(port), backlog: 16384 });
