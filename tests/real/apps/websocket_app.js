// Echoes every WebSocket message, and prints a line of JSON about each connection when it has ended.
'use strict';
const { createHash } = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const { WebSocketServer } = require('ws');

const print = (line) => fs.writeSync(1, JSON.stringify(line) + '\n');

const server = http.createServer();
// Compression is used if the client offers it, and then for messages of any size.
const echo = new WebSocketServer({
    server,
    perMessageDeflate: { threshold: 0 },
    maxPayload: 64 << 20,
});

echo.on('connection', (socket, request) => {
    const seen = { target: request.url, messages: 0, bytes: 0, pings: 0, pongs: 0, error: null };
    const digest = createHash('sha256');
    socket.on('message', (data, isBinary) => {
        seen.messages += 1;
        seen.bytes += data.length;
        digest.update(isBinary ? 'binary' : 'text').update(data);
        socket.send(data, { binary: isBinary });
    });
    socket.on('ping', () => { seen.pings += 1; });
    socket.on('pong', () => { seen.pongs += 1; });
    socket.on('error', (error) => { seen.error = error.code; });
    socket.on('close', (code, reason) => {
        print({ ...seen, digest: digest.digest('hex'), code, reason: reason.toString('hex') });
    });
});

server.listen(0, '127.0.0.1', () => print({ port: server.address().port }));
