// Answers in all the ways that a message can be framed, and says what it has read.
'use strict';
const fs = require('node:fs');
const http = require('node:http');

const TOLD = ['accept-encoding', 'content-length', 'expect', 'range', 'transfer-encoding'];

async function read(request) {
    let length = 0;
    for await (const data of request) length += data.length;
    return length;
}

async function answer(request, response) {
    const path = request.url.replace('http://app.example', '').split('?')[0];
    if (path === '/refuse') { // without asking for the body
        response.writeHead(417, { 'content-length': 2, 'connection': 'close' });
        return response.end('no');
    }
    if (request.headers.expect) response.writeContinue();
    const length = await read(request);
    switch (path) {
    case '/close':
        response.writeHead(200, { 'content-length': 6, 'connection': 'close' });
        return response.end('closed');
    case '/until-the-end':
        response.useChunkedEncodingByDefault = false;
        response.removeHeader('transfer-encoding');
        response.writeHead(200, { 'connection': 'close' });
        response.write('as long as ');
        return response.end('it lasts');
    case '/chunked':
        response.write('in ');
        return setImmediate(() => response.end('pieces'));
    case '/chunked-empty':
        response.flushHeaders();
        return setImmediate(() => response.end());
    case '/length': return response.writeHead(200, { 'content-length': 5 }).end('hello');
    case '/empty': return response.writeHead(200, { 'content-length': 0 }).end();
    case '/both':
        return response.writeHead(200, { 'content-length': 3, 'transfer-encoding': 'chunked' }).end('hello');
    case '/both-reversed':
        return response.writeHead(200, { 'transfer-encoding': 'chunked', 'content-length': 3 }).end('hello');
    case '/204': return response.writeHead(204, { 'x-app': '1' }).end();
    case '/304': return response.writeHead(304, { 'etag': '"a"', 'content-length': 42 }).end();
    case '/hints':
        return response.writeEarlyHints({ link: '</a.css>; rel=preload' }, () => {
            response.writeHead(200, { 'content-length': 5 }).end('hints');
        });
    case '/processing':
        response.writeProcessing();
        response.writeProcessing();
        return response.writeHead(200, { 'content-length': 4 }).end('done');
    case '/reason': return response.writeHead(299, 'Quite Fine', { 'content-length': 0 }).end();
    default: {
        const told = TOLD.map((name) => [name, request.headers[name]]);
        const seen = { method: request.method, length, headers: Object.fromEntries(told) };
        const body = JSON.stringify(seen);
        return response.writeHead(200, { 'content-length': body.length }).end(body);
    }
    }
}

const server = http.createServer({ requireHostHeader: false }, answer);
server.on('checkContinue', answer);
server.listen(0, '127.0.0.1', () => {
    fs.writeSync(1, JSON.stringify({ port: server.address().port }) + '\n');
});
