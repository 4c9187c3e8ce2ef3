// Answers every whole request with an empty 200 and prints what it has made of it, a line of JSON
// each. Started with the path of its socket.
'use strict';
const http = require('node:http');
const fs = require('node:fs');

const print = (line) => fs.writeSync(1, JSON.stringify(line) + '\n');

// Far above the sidecar's own limit, so that the sidecar's limit decides.
const server = http.createServer({ maxHeaderSize: 1 << 20, keepAliveTimeout: 0 });
server.maxHeadersCount = 0;

server.on('request', (request, response) => {
    const users = [];
    for (let i = 0; i < request.rawHeaders.length; i += 2) {
        const name = request.rawHeaders[i].toLowerCase().replaceAll('_', '-');
        if (name === 'x-forwarded-user') users.push(request.rawHeaders[i + 1]);
    }
    const seen = { method: request.method, target: request.url, users };
    const answer = (length) => {
        print({ ...seen, length });
        response.setHeader('Content-Length', 0);
        response.end();
    };
    let length = 0;
    request.socket.busy = true;
    request.on('data', (data) => { length += data.length; });
    request.on('error', () => {}); // `close` comes after it
    // This path does not wait for the body.
    const early = request.url === '/early';
    if (early) answer(0);
    request.on('close', () => { if (!request.complete && !early) print({ ...seen, broken: true }); });
    request.on('end', () => {
        request.socket.busy = false;
        if (!early) answer(length);
    });
});

// Prints bytes that are no request, unless they are only the rest of a broken request.
server.on('clientError', (error, socket) => {
    if (!socket.busy && error.code.startsWith('HPE_')) print({ broken: true, target: String(error.code) });
    socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
});

server.listen(process.argv[2]);
