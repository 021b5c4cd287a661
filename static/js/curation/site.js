// What the desk asks of the site, again and again until there is an answer.

const RETRY_FIRST_MS = 300;
const RETRY_MAX_MS = 8_000;

const loggedOut = document.querySelector("[data-logged-out]");
let token = document.querySelector("#desk [name=csrfmiddlewaretoken]").value;

export function headers() {
  return { "Content-Type": "application/json", "X-CSRFToken": token };
}

/** What the site said no to; asking again would not help. */
export class Refused extends Error {
  constructor(status, body) {
    super(body.detail ?? "The site refused that.");
    this.status = status;
    this.code = body.code;
  }
}

export async function ask(method, url, body) {
  let wait = RETRY_FIRST_MS;
  let hasNewToken = false;
  for (;;) {
    let response = null;
    try {
      response = await fetch(url, {
        method,
        headers: headers(),
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      if (response.ok) {
        const answer = response.status === 204 ? {} : await response.json();
        loggedOut.hidden = true;
        return answer;
      }
    } catch {
      // The network is away: what was said is kept here and sent again.
      response = null;
    }
    if (response?.status === 401) {
      // Kept, too, until the person has logged in again in another tab.
      loggedOut.hidden = false;
    } else if (response && response.status < 500 && response.status !== 429) {
      const error = new Refused(response.status, await response.json().catch(() => ({})));
      if (error.code !== "permission_denied" || hasNewToken) {
        throw error;
      }
      // Logging in changed the token.
      hasNewToken = true;
      await renewToken();
      continue;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, RETRY_MAX_MS);
  }
}

async function renewToken() {
  try {
    const page = await (await fetch(location.href)).text();
    const fresh = new DOMParser().parseFromString(page, "text/html");
    token = fresh.querySelector("[name=csrfmiddlewaretoken]").value;
  } catch {
    // Away again: the old token is refused, and the page loads anew.
  }
}
