// Replaces Supabase Auth, which `usher dev` does not have. Signs demo users in with any password.
//
// It answers like GoTrue, so the app uses supabase-js exactly as in a real project.

/** Returns a Vite plugin that answers `/auth/v1` with the tokens of the demo. */
export function standInForAuth(demo) {
  return {
    name: "stand-in-for-supabase-auth",
    configureServer(server) {
      server.middlewares.use("/auth/v1", async (request, response) => {
        const { status, body } = answer(demo, request, await jsonOf(request));
        response.writeHead(status, { "content-type": "application/json" });
        response.end(JSON.stringify(body));
      });
    },
  };
}

function answer(demo, { url, headers }, asked) {
  const { pathname } = new URL(url, "http://localhost");
  if (pathname === "/logout") return { status: 204 };
  const token = headers.authorization?.replace("Bearer ", "");
  const isAsked = (user) =>
    pathname === "/user" ? user.token === token : [emailOf(user), user.id].includes(asked.email ?? asked.refresh_token);
  const user = demo.users.find(isAsked);
  if (!user)
    return { status: 400, body: { code: "invalid_credentials", message: "The demo has no user with this address" } };
  const person = { id: user.id, aud: "authenticated", role: "authenticated", email: emailOf(user), user_metadata: {} };
  return { status: 200, body: pathname === "/user" ? person : sessionOf(user, person) };
}

function sessionOf({ id, token }, user) {
  const { exp } = JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString());
  const expires_in = exp - Math.floor(Date.now() / 1000);
  return { access_token: token, token_type: "bearer", expires_in, expires_at: exp, refresh_token: id, user };
}

function emailOf({ username }) {
  return `${username}@usher.example`;
}

async function jsonOf(request) {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text === "" ? {} : JSON.parse(text);
}
