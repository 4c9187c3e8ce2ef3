// A login library, with keys of the test's own. The login's name is the argument. Prints the port at which the issuer
// publishes its keys, then answers each line: {"make": {...}} with the cookies and the token that the library writes
// for a user, and {"read": {"cookies", "token"}} with what the library reads in them, null for nothing that it believes.
import http from 'node:http';
import readline from 'node:readline';

// The library's own lines about what it refuses are not for the test.
console.warn = console.error = () => {};

const OWN = ['authjs', 'clerk', 'cognito', 'firebase', 'nextauth', 'supabase'];

// Answers /LOGIN/jwks and /LOGIN/x509/KIND.
async function publish(login, request, response) {
  const [, , document, kind] = request.url.split('/');
  const keys = await login[document]?.(kind);
  const headers = { 'content-type': 'application/json', 'cache-control': 'public, max-age=21600' };
  response.writeHead(keys ? 200 : 404, headers).end(JSON.stringify(keys ?? {}));
}

function answer(login, line) {
  const { make, read } = JSON.parse(line);
  return make ? login.make(make) : login.read(read.cookies, read.token).then((library) => ({ library }));
}

const name = process.argv[2];
const { open } = await import(OWN.includes(name) ? `./${name}.mjs` : './oidc.mjs');
let login;
const server = http.createServer((request, response) => {
  publish(login, request, response).catch((error) => response.writeHead(500).end(String(error)));
});
server.listen(0, '127.0.0.1', async () => {
  const { port } = server.address();
  login = await open(`http://127.0.0.1:${port}`, name);
  console.log(JSON.stringify({ port }));
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('close', () => process.exit());
  for await (const line of lines) {
    const answered = await answer(login, line).catch((error) => ({ failed: String(error?.stack ?? error) }));
    console.log(JSON.stringify(answered));
  }
});
