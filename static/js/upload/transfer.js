// Sends a form and tells how far it has got. XMLHttpRequest, because fetch cannot
// tell the progress of an upload.

/** The site answered, and said no; the message is its sentence. */
export class Refused extends Error {}

/** Because of what was sent: an earlier try of the same was not taken in either. */
export class PhotoRefused extends Refused {}

/** What was chosen cannot be read any more, and is to be chosen again. */
export class Unreadable extends Error {}

/** The site did not answer, or not now: the same may be sent again. */
export class NotNow extends Error {}

/** No answer of the site: what was sent may have arrived. */
export class NoAnswer extends NotNow {}

/** So long after all is sent an answer is due: a batch takes its time. */
const SILENT_AFTER_MS = 30_000;

export const SILENT_WORDS =
  "All is sent, but the site has not answered yet. Please wait, or send it again: " +
  "nothing is lost, and what comes twice is kept once.";

/**
 * Send the form's fields; resolves with the address of the page that it leads to.
 * Rejects with Refused, Unreadable, NotNow, or the signal's AbortError.
 * @param {HTMLFormElement} form
 * @param {{signal: AbortSignal, onProgress: (percent: number) => void,
 *   onSilence: () => void}} options the last for when no answer comes; one still may
 * @returns {Promise<string>}
 */
export function send(form, { signal, onProgress, onSilence }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let silence = null;
    request.upload.addEventListener("load", () => {
      silence = setTimeout(onSilence, SILENT_AFTER_MS);
    });
    request.addEventListener("loadend", () => clearTimeout(silence));
    request.open("POST", form.action);
    request.responseType = "document";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) {
        onProgress((100 * event.loaded) / event.total);
      }
    });
    request.addEventListener("load", () => {
      if (request.status === 200 || request.responseURL !== form.action) {
        // It leads elsewhere once all is taken in, whatever is wrong with that page.
        resolve(request.responseURL);
      } else {
        reject(new (kindOf(request))(sentenceOf(request)));
      }
    });
    request.addEventListener("error", async () => {
      reject(
        (await isReadable(form))
          ? new NoAnswer("The site could not be reached. Please try again in a moment.")
          : new Unreadable("That cannot be read any more. Please choose it again."),
      );
    });
    request.addEventListener("abort", () => {
      // Not only by us: the browser's own Stop ends what is being sent, too.
      reject(signal.reason ?? new NoAnswer("The upload was stopped. Please try again."));
    });
    signal.addEventListener("abort", () => request.abort());
    request.send(new FormData(form));
  });
}

/** Of a page that is shown again: what it sends now is not what it sent before. */
export function renewPage(form) {
  form.elements.page.value = crypto.getRandomValues(new Uint32Array(4)).join("-");
}

/** Not what was changed, moved or unplugged since it was chosen, nor a folder. */
async function isReadable(form) {
  const files = [...new FormData(form).values()].filter((it) => it instanceof File);
  try {
    await Promise.all(files.map((file) => file.slice(0, 1).arrayBuffer()));
    return true;
  } catch {
    return false;
  }
}

function kindOf({ status, response }) {
  if (status === 502 || status === 504) {
    // Of a gateway, which has got no answer itself.
    return NoAnswer;
  }
  if (status === 429 || status >= 500) {
    return NotNow;
  }
  // Whoever has looked at the photo sends the form again; who has not, another page:
  // a proxy, or the site where the form's token is stale or its connection broke.
  const isFormAgain = response?.querySelector("#refusal");
  return isFormAgain && [400, 413, 415].includes(status) ? PhotoRefused : Refused;
}

function sentenceOf(request) {
  const words = request.response?.querySelector("[data-refusal]")?.textContent.trim();
  return words || `The site answered with error ${request.status}. Please try again.`;
}
