// Signing in: an authorization code with PKCE (RFC 7636), kept for as long as the tab is open.

const HERE = `${location.origin}/`;

/** A token that the API takes, renewed where it has ended, or null. */
export async function token() {
  const held = JSON.parse(sessionStorage.getItem("session") ?? "null");
  if (!held || Date.now() < held.end) return held?.token ?? null;
  try {
    return await exchange(held, { grant_type: "refresh_token", refresh_token: held.refresh });
  } catch {
    forget();
    return null;
  }
}

export const signedIn = () => sessionStorage.getItem("session") !== null;
export const forget = () => sessionStorage.removeItem("session");

/** Takes a token that a person pasted; its end is the API's business. */
export function keep(text) {
  sessionStorage.setItem("session", JSON.stringify({ token: text, end: Number.MAX_SAFE_INTEGER }));
}

/** Leaves for the sign-in page, which comes back here with a code. */
export async function begin({ url, client_id }) {
  const verifier = random(), state = random();
  sessionStorage.setItem("begun", JSON.stringify({ verifier, state, url, client_id }));
  const challenge = encode(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
  location.assign(`${url}/oauth2/authorize?${new URLSearchParams({
    response_type: "code", client_id, redirect_uri: HERE, scope: "openid email", state,
    code_challenge_method: "S256", code_challenge: challenge,
  })}`);
}

/** Comes back: trades the code in the address for tokens. Throws where this tab did not ask for it. */
export async function finish() {
  const query = new URLSearchParams(location.search);
  if (!query.has("code") && !query.has("error")) return;
  const begun = JSON.parse(sessionStorage.getItem("begun") ?? "null");
  sessionStorage.removeItem("begun");
  history.replaceState(null, "", HERE); // a code is no address to keep
  if (query.has("error") || !begun || query.get("state") !== begun.state) throw new Error("Signing in did not work.");
  await exchange(begun, {
    grant_type: "authorization_code", code: query.get("code"), redirect_uri: HERE, code_verifier: begun.verifier,
  });
}

export function end({ url, client_id }) {
  forget();
  location.assign(`${url}/logout?${new URLSearchParams({ client_id, logout_uri: HERE })}`);
}

async function exchange({ url, client_id, refresh }, fields) {
  const answer = await fetch(`${url}/oauth2/token`, { method: "POST", body: new URLSearchParams({ client_id, ...fields }) });
  if (!answer.ok) throw new Error("Signing in did not work.");
  const said = await answer.json();
  const session = {
    url, client_id, token: said.access_token, refresh: said.refresh_token ?? refresh,
    end: Date.now() + (said.expires_in - 30) * 1000,
  };
  sessionStorage.setItem("session", JSON.stringify(session));
  return session.token;
}

const random = () => encode(crypto.getRandomValues(new Uint8Array(32)));
const encode = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes)))
  .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
