// An Express app with a session of its own, and with the lines of docs/logins/own-session.md, which are in the file
// that is its argument. POST /login signs the user of the query in, POST /logout out. Prints its port.
import { readFileSync } from 'node:fs';
import express from 'express';
import session from 'express-session';

const app = express();
app.use(session({ secret: 'secret of the test', resave: false, saveUninitialized: false }));
new Function('app', readFileSync(process.argv[2], 'utf8'))(app);
app.post('/login', (request, response) => {
  request.session.userId = request.query.user;
  response.json({ signed: 'in' });
});
app.post('/logout', (request, response) => request.session.destroy(() => response.json({ signed: 'out' })));
app.get('/page', (request, response) => response.json({ page: 'of the app' }));

const server = app.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.on('end', () => process.exit()).resume();
