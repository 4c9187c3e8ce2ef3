import { end } from '../session';

export async function POST() {
  await end();
  return new Response(null, { status: 303, headers: { Location: '/' } });
}
