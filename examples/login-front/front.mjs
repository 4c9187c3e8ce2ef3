// Login proxy of the examples html and vite-react: a stand-in for oauth2-proxy, at the same paths. The login asks
// for a name and no password. Name and cookie are all the front knows: it forgets its sessions when it ends.
import { randomUUID } from 'node:crypto';
import { createServer, request as send } from 'node:http';

const [listen, sidecar] = process.argv.slice(2).map(Number);
const sessions = new Map();
const form = `<!doctype html><html lang="en"><meta charset="utf-8">
  <link rel="icon" href="data:,"><title>Sign in</title><h1>Sign in</h1>
  <form method="post"><label>User <input name="user" data-testid="user" required pattern="[a-z0-9]+" autofocus></label>
  <button data-testid="sign-in">Sign in</button></form>`;

const idOf = ({ headers }) => /(?:^|; *)front_session=([\w-]+)/.exec(headers.cookie ?? '')?.[1];

// Headers for the sidecar: the client's own copy of the user's header never passes.
function headersFor(request) {
  const { 'x-forwarded-user': _, ...headers } = request.headers;
  const user = sessions.get(idOf(request));
  return user ? { ...headers, 'x-forwarded-user': user } : headers;
}

const forward = (request) => send({
  host: '127.0.0.1', port: sidecar, path: request.url, method: request.method, headers: headersFor(request),
});

async function signIn(request, response) {
  let body = '';
  for await (const part of request.setEncoding('utf8')) body = (body + part).slice(0, 1000);
  const user = new URLSearchParams(body).get('user') ?? '';
  if (!/^[a-z0-9]{1,40}$/.test(user)) return response.writeHead(400).end('a user has letters a-z and digits');
  const id = randomUUID();
  sessions.set(id, user);
  const cookie = `front_session=${id}; Path=/; HttpOnly; SameSite=Lax`;
  response.writeHead(303, { Location: '/', 'Set-Cookie': cookie }).end();
}

createServer((request, response) => {
  const user = sessions.get(idOf(request));
  const path = request.url.split('?')[0];
  if (path === '/oauth2/userinfo') {
    response.writeHead(user ? 200 : 401, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' });
    response.end(JSON.stringify(user ? { user } : {}));
  } else if (path === '/oauth2/sign_in' && request.method === 'POST') {
    signIn(request, response).catch(() => response.destroy());
  } else if (path === '/oauth2/sign_in') {
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end(form);
  } else if (path === '/oauth2/sign_out') {
    sessions.delete(idOf(request));
    response.writeHead(302, { Location: '/' }).end();
  } else {
    const asked = forward(request);
    asked.on('response', (answer) => answer.pipe(response.writeHead(answer.statusCode, answer.rawHeaders)));
    asked.on('error', () => (response.headersSent ? response.destroy() : response.writeHead(502).end()));
    response.on('close', () => asked.destroy());
    request.pipe(asked);
  }
}).on('upgrade', (request, socket, first) => {
  const asked = forward(request);
  asked.on('upgrade', (answer, other, rest) => {
    const lines = answer.rawHeaders.reduce((text, part, at) => text + part + (at % 2 ? '\r\n' : ': '), '');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines}\r\n`);
    socket.write(rest);
    other.write(first);
    socket.pipe(other).pipe(socket);
    for (const end of [socket, other]) end.on('error', () => { socket.destroy(); other.destroy(); });
  });
  for (const end of ['response', 'error']) asked.on(end, () => socket.destroy());
  asked.end();
}).listen(listen, '127.0.0.1');
