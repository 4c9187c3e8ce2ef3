import { begin } from '../session';

// A whole page is loaded after it, so that the request for the page has the session, and the page its token.
export async function POST(request: Request) {
  const user = String((await request.formData()).get('user') ?? '').trim();
  if (!/^[a-z0-9]{1,40}$/.test(user)) return new Response('a user has letters a-z and digits', { status: 400 });
  await begin(user);
  return new Response(null, { status: 303, headers: { Location: '/' } });
}
