// An app whose bodies are larger than any buffer, over HTTP/1.1 or, if started with "h2c", HTTP/2. Prints
// lines of JSON about its work.
//
//   GET /events?coding=...   a number of events, each of which is sent when a line has come on
//                            standard input
//   GET /produce?bytes=...&framing=...   so many bytes, as fast as they are taken
//   POST /discard            takes everything, and says how much that was
//   POST /dawdle             the same, but does not begin before a line has come
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const readline = require('node:readline');
const zlib = require('node:zlib');

const print = (line) => fs.writeSync(1, JSON.stringify(line) + '\n');
const now = () => (performance.timeOrigin + performance.now()) * 1000;

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const CHUNK = Buffer.alloc(65536, 'velt-sidecar ');

async function events(response, coding) {
    const headers = { 'content-type': 'text/event-stream', 'cache-control': 'no-store' };
    let body = response;
    // Bytes that are handed to the response, recorded before they are written.
    const written = [];
    const write = response.write.bind(response);
    response.write = (chunk, ...rest) => {
        written.push(Buffer.from(chunk));
        return write(chunk, ...rest);
    };
    if (coding === 'gzip') {
        headers['content-encoding'] = 'gzip';
        body = zlib.createGzip();
        body.pipe(response);
    }
    response.writeHead(200, headers);
    response.flushHeaders?.();
    let left = false;
    response.on('close', () => { left = true; });
    for (let number = 0; ; number += 1) {
        await lines.next();
        if (left) return;
        const event = `id: ${number}\ndata: ${'x'.repeat(number % 7)}\n\n`;
        const at = now();
        body.write(event);
        if (body !== response) await new Promise((done) => body.flush(done));
        // Piping takes a turn of the loop.
        while (written.length === 0) await new Promise(setImmediate);
        print({ number, at, bytes: Buffer.concat(written.splice(0)).toString('hex') });
    }
}

function produce(response, bytes, framing) {
    let sent = 0;
    response.writeHead(200, framing === 'length' ? { 'content-length': bytes } : {});
    const more = () => {
        while (sent < bytes) {
            const chunk = CHUNK.subarray(0, bytes - sent);
            sent += chunk.length;
            if (!response.write(chunk)) {
                response.once('drain', more);
                return;
            }
        }
        response.end();
    };
    producing = () => sent;
    more();
}

function discard(request, response) {
    let taken = 0;
    producing = () => taken;
    request.on('data', (data) => { taken += data.length; });
    request.on('end', () => response.end(String(taken)));
}

// Progress of the current body, in bytes.
let producing = () => 0;

async function answer(request, response) {
    const url = new URL(request.url, 'http://app.example');
    const parameter = (name) => url.searchParams.get(name);
    response.on('close', () => {
        const whole = response.stream ? !response.stream.aborted : response.writableFinished;
        print({ closed: url.pathname, whole });
    });
    switch (url.pathname) {
    case '/events': return events(response, parameter('coding'));
    case '/produce': return produce(response, Number(parameter('bytes')), parameter('framing'));
    case '/discard': return discard(request, response);
    case '/dawdle':
        print({ waiting: true });
        await lines.next();
        return discard(request, response);
    case '/progress': return response.end(String(producing()));
    }
}

const server = process.argv[2] === 'h2c' ? http2.createServer() : http.createServer();
server.on('request', answer);
server.on('sessionError', () => {});
server.listen(0, '127.0.0.1', () => print({ port: server.address().port }));
