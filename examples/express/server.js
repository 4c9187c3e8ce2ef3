import express from 'express';
import session from 'express-session';

const { PORT = '4301', SESSION_SECRET, VELT_API_KEY = '', VELT_SDK_HOST = '' } = process.env;
if (!SESSION_SECRET) throw new Error('SESSION_SECRET is not set');

const app = express();
app.use(session({
  secret: SESSION_SECRET,
  resave: false,
  saveUninitialized: false,
  cookie: { httpOnly: true, sameSite: 'lax' },
}));

// Who is signed in, for the page and for the sidecar: so both give Velt the same user and organization.
app.get('/api/me', ({ session: { userId } }, response) => {
  const user = userId ? { userId, organizationId: 'acme', name: userId } : {};
  response.set('Cache-Control', 'no-store').json(user);
});

app.post('/login', express.urlencoded({ extended: false }), (request, response, next) => {
  const user = String(request.body?.user ?? '').trim();
  if (!/^[a-z0-9]{1,40}$/.test(user)) return response.status(400).send('a user has letters a-z and digits');
  // A new session, which no other person can know from before.
  request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.userId = user;
    response.redirect(303, '/');
  });
});

app.post('/logout', (request, response, next) => {
  request.session.destroy((error) => (error ? next(error) : response.redirect(303, '/')));
});

// The API key is public. Without a host, the SDK comes from Velt.
app.get('/settings.js', (request, response) => {
  const settings = { apiKey: VELT_API_KEY, proxyDomain: VELT_SDK_HOST };
  response.type('text/javascript').send(`export default ${JSON.stringify(settings)};`);
});

app.use('/modules', express.static('node_modules'));
app.use(express.static('public'));
app.listen(Number(PORT), '127.0.0.1');
